"""Initialisation, dropout masks, and the network itself."""

import math

import pytest
import torch
from torch import nn

from embodied_rl.models.mlp import MLP, dropout_masks, linear


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_equals_a_sequential_of_its_layers():
    mlp = MLP(3, (8, 8), 2, generator=generator())
    a, b, c = mlp.layers
    x = torch.randn(5, 3, generator=generator(1))
    torch.testing.assert_close(mlp(x), nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)(x), rtol=0, atol=0)


def test_torch_init_has_the_bounds_of_the_library():
    layer, theirs = linear(400, 300, "torch", None, generator()), nn.Linear(400, 300)
    for ours, reference in zip(layer.parameters(), theirs.parameters(), strict=True):
        assert ours.abs().max() <= 1 / math.sqrt(400)
        torch.testing.assert_close(ours.std(), reference.std(), rtol=0.1, atol=0)


@pytest.mark.parametrize(("gain", "expected"), [(None, 2.0), (0.01, 1e-4)])
def test_orthogonal_init(gain, expected):
    layer = linear(16, 8, "orthogonal", gain, generator())
    gram = (layer.weight @ layer.weight.T).detach()
    torch.testing.assert_close(gram, expected * torch.eye(8), rtol=1e-4, atol=1e-5)
    assert not layer.bias.any()


def test_out_gain_shrinks_only_the_last_layer():
    mlp = MLP(4, (64,), 2, out_gain=1e-2, generator=generator())
    assert mlp.layers[-1].weight.abs().max() <= 1e-2 * math.sqrt(6 / 66)
    assert mlp.layers[0].weight.abs().max() > 0.3


def test_dropout_masks_keep_the_mean_and_are_absent_without_dropout():
    (mask,) = dropout_masks(0.25, 1000, (100,), generator())
    assert mask.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert mask.mean().item() == pytest.approx(1.0, abs=0.01)
    assert dropout_masks(0.0, 10, (8, 8), generator()) == ()


def test_a_masked_unit_has_no_influence():
    mlp = MLP(3, (2,), 1, generator=generator())
    x = torch.randn(5, 3, generator=generator(1))
    mask = torch.tensor([1.0, 0.0]).expand(5, 2)
    before = mlp(x, [mask])
    mlp.layers[0].weight.data[1] += 10.0
    assert torch.equal(before, mlp(x, [mask]))
    assert not torch.equal(before, mlp(x))
