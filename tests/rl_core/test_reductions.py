import numpy as np
import pytest
import torch

from rl_core import reductions
from tests.reference import policy_losses as twin

LOSS = torch.tensor([[1.0, 2.0, torch.nan], [6.0, torch.nan, torch.nan]])
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_aggregations_by_hand():
    assert reductions.token_mean(LOSS, MASK) == 3.0
    assert reductions.token_mean(LOSS, MASK, num_tokens=6) == 1.5
    assert reductions.sequence_mean(LOSS, MASK) == (1.5 + 6.0) / 2
    assert reductions.constant_mean(LOSS, MASK, length=3) == 9.0 / 6


@pytest.mark.parametrize(
    ("ours", "how"),
    [
        (reductions.token_mean, "token"),
        (reductions.sequence_mean, "sequence"),
        (lambda x, m: reductions.constant_mean(x, m, length=5), "constant"),
    ],
)
def test_aggregations_equal_the_loop(ours, how):
    rng = np.random.default_rng(0)
    loss, mask = rng.normal(size=(4, 5)), rng.random((4, 5)) < 0.5
    mask[2] = False
    theirs = twin.reduce(loss, mask, how, 5)
    np.testing.assert_allclose(ours(torch.from_numpy(loss), torch.from_numpy(mask)), theirs, atol=1e-5)


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whiten_equals_the_twin(shift_mean):
    rng = np.random.default_rng(0)
    x, mask = rng.normal(3, 5, size=(4, 6)), rng.random((4, 6)) < 0.5
    ours = reductions.whiten(torch.from_numpy(x), torch.from_numpy(mask), shift_mean=shift_mean)
    np.testing.assert_allclose(ours, twin.whiten(x, mask, shift_mean), atol=1e-5)


def test_no_mask_is_a_full_mask_and_an_empty_one_is_zero():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    everything, nothing = torch.ones(3, 4, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.bool)
    for reduce in (
        reductions.masked_mean,
        reductions.masked_var,
        reductions.whiten,
        reductions.sequence_mean,
    ):
        assert torch.allclose(reduce(x), reduce(x, everything))
        assert (reduce(x, nothing) == 0).all()
    assert reductions.masked_var(x) == pytest.approx(x.var().item(), rel=1e-5)
    assert torch.allclose(reductions.masked_mean(x, dim=0), x.mean(0))


def test_a_constant_or_single_advantage_whitens_to_zero():
    assert (reductions.whiten(torch.full((4,), 7.0)) == 0).all()
    assert (reductions.whiten(torch.tensor([7.0])) == 0).all()
