import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_core.scan import scan
from tests.reference import advantages as twin

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def test_hand_computed():
    y = scan(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.1, 9.0]))
    assert torch.allclose(y, torch.tensor([1 + 0.5 * 2.3, 2 + 0.1 * 3, 3.0]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(shape=st.lists(st.integers(1, 3), max_size=2), num_steps=st.integers(0, 70), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_equals_the_loop_on_any_shape(device, dtype, shape, num_steps, seed):
    rng = np.random.default_rng(seed)
    x, decay = rng.normal(size=(*shape, num_steps)), rng.uniform(-1, 1, size=(*shape, num_steps))
    y = scan(torch.tensor(x, dtype=dtype, device=device), torch.tensor(decay, dtype=dtype, device=device))
    assert y.dtype == dtype
    assert y.shape == x.shape
    np.testing.assert_allclose(y.cpu().numpy(), twin.scan(x, decay), atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 6])
def test_gradient_to_second_order(num_steps):
    generator = torch.Generator().manual_seed(0)
    x, decay = (
        torch.rand(2, num_steps, dtype=torch.float64, generator=generator, requires_grad=True) for _ in "xd"
    )
    assert torch.autograd.gradcheck(scan, (x, decay))
    assert torch.autograd.gradgradcheck(scan, (x, decay))


def test_decay_broadcasts_and_special_cases():
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(scan(x, torch.tensor(0.0)), x)
    assert torch.equal(scan(x, torch.tensor(1.0)), x.flip(-1).cumsum(-1).flip(-1))
    decay = torch.full((3,), 0.5, requires_grad=True)
    scan(x, decay).sum().backward()
    assert decay.grad.shape == (3,)


def test_input_is_left_alone_and_may_be_strided():
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).t()
    before = x.clone()
    y = scan(x, torch.full_like(x, 0.9))
    assert torch.equal(x, before)
    assert torch.allclose(y, scan(x.contiguous(), torch.full_like(x, 0.9)))
