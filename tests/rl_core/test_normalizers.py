import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_core.normalizers import RewardScaler, RunningMeanStd
from tests.reference import distributions as twin


@given(cuts=st.lists(st.integers(0, 60), max_size=5), offset=st.sampled_from([0.0, 1e4]))
@settings(max_examples=30, deadline=None)
def test_any_split_equals_all_rows_together(cuts, offset):
    rows = np.random.default_rng(0).normal(offset, 3, size=(60, 2)).astype(np.float32)
    norm = RunningMeanStd((2,))
    for part in np.split(rows, sorted(cuts)):
        norm.update(torch.from_numpy(part))
    np.testing.assert_allclose(norm.mean, rows.mean(0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(norm.var, rows.var(0, dtype=np.float64), rtol=1e-6)
    assert norm.count == 60


def test_by_hand_clip_and_inverse():
    norm = RunningMeanStd((1,), clip=1.5)
    norm.update(torch.tensor([[1.0], [5.0]]))  # mean 3, std 2
    x = torch.tensor([[5.0], [9.0]])
    assert torch.allclose(norm(x), torch.tensor([[1.0], [1.5]]))
    assert torch.allclose(norm.inverse(norm(x[:1])), x[:1])


def test_identity_before_the_first_update_and_finite_for_a_constant():
    norm = RunningMeanStd((2,))
    x = torch.tensor([[1.0, -2.0]])
    assert torch.allclose(norm(x), x)
    norm.update(torch.ones(5, 2))
    assert (norm(torch.ones(1, 2)) == 0).all()


def test_state_travels_with_the_module():
    norm, copy = RunningMeanStd((2,)), RunningMeanStd((2,))
    norm.update(torch.randn(9, 2, generator=torch.Generator().manual_seed(0)))
    copy.load_state_dict(norm.state_dict())
    x = torch.ones(1, 2)
    assert torch.equal(copy(x), norm(x))
    assert norm.state_dict()["count"].dtype == torch.float64


def test_leading_axes_are_all_rows():
    x = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    folded, flat = RunningMeanStd((2,)), RunningMeanStd((2,))
    folded.update(x)
    flat.update(x.reshape(12, 2))
    assert torch.equal(folded.var, flat.var)


def test_reward_scaler_equals_the_twin_and_keeps_the_sign():
    rng = np.random.default_rng(0)
    rewards, ended = rng.normal(1, 2, size=(50, 3)), rng.random((50, 3)) < 0.1
    scaler = RewardScaler(3, gamma=0.9, clip=100.0)
    for reward, end in zip(torch.from_numpy(rewards), torch.from_numpy(ended), strict=True):
        scaler.update(reward, end)
    std = twin.discounted_return_std(rewards, ended, 0.9)
    np.testing.assert_allclose(scaler(torch.from_numpy(rewards)), rewards / std, rtol=1e-6)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="clip=0: must be > 0"):
        RunningMeanStd(clip=0)
    with pytest.raises(ValueError, match="eps=-1"):
        RunningMeanStd(eps=-1)
    with pytest.raises(ValueError, match=r"gamma=1.1: must lie in \[0, 1\]"):
        RewardScaler(1, gamma=1.1)
