import math

import numpy as np
import pytest
import torch

from rl_core import advantages, kl, reductions
from rl_core import policy_losses as pl
from tests.reference import advantages as twin_advantages
from tests.reference import policy_losses as twin

RNG = np.random.default_rng(0)
GROUPS, SIZE, LENGTH = 3, 4, 7
SHAPE = (GROUPS * SIZE, LENGTH)
LOG_PROB = RNG.normal(-2, 0.5, SHAPE)
OLD = LOG_PROB + RNG.normal(0, 0.3, SHAPE)
REF = LOG_PROB + RNG.normal(0, 0.3, SHAPE)
MASK = np.arange(LENGTH) < RNG.integers(1, LENGTH + 1, (SHAPE[0], 1))
REWARDS = RNG.normal(size=(GROUPS, SIZE))
LP, OLD_T, REF_T, MASK_T = (torch.from_numpy(a) for a in (LOG_PROB, OLD, REF, MASK))


def per_token(group_advantage):
    return group_advantage.reshape(-1, 1).expand(SHAPE)


def close(tensor, array):
    np.testing.assert_allclose(tensor.numpy(), array, atol=1e-5)


# The GRPO family as points on the axes: name -> (ours, twin), each of the advantages of ours / of the twin.
def grpo(a):
    loss = pl.clipped_surrogate(pl.token_ratio(LP, OLD_T, MASK_T), a, clip_low=0.2, clip_high=0.2)
    return reductions.sequence_mean(loss + 0.04 * kl.k3(LP, REF_T), MASK_T)


def twin_grpo(a):
    loss = twin.clipped_surrogate(twin.ratios(LOG_PROB, OLD, MASK, "token"), a, 0.2, 0.2)
    return twin.reduce(loss + 0.04 * twin.kl_estimates(LOG_PROB, REF)[2], MASK, "sequence")


def dr_grpo(a):
    loss = pl.clipped_surrogate(pl.token_ratio(LP, OLD_T, MASK_T), a, clip_low=0.2, clip_high=0.2)
    return reductions.constant_mean(loss, MASK_T, length=LENGTH)


def twin_dr_grpo(a):
    loss = twin.clipped_surrogate(twin.ratios(LOG_PROB, OLD, MASK, "token"), a, 0.2, 0.2)
    return twin.reduce(loss, MASK, "constant", LENGTH)


def dapo(a):
    loss = pl.clipped_surrogate(pl.token_ratio(LP, OLD_T, MASK_T), a, clip_low=0.2, clip_high=0.28)
    return reductions.token_mean(loss, MASK_T)


def twin_dapo(a):
    loss = twin.clipped_surrogate(twin.ratios(LOG_PROB, OLD, MASK, "token"), a, 0.2, 0.28)
    return twin.reduce(loss, MASK, "token")


def gspo(a):
    loss = pl.clipped_surrogate(pl.geometric_ratio(LP, OLD_T, MASK_T), a, clip_low=3e-4, clip_high=4e-4)
    return reductions.sequence_mean(loss, MASK_T)


def twin_gspo(a):
    loss = twin.clipped_surrogate(twin.ratios(LOG_PROB, OLD, MASK, "geometric"), a, 3e-4, 4e-4)
    return twin.reduce(loss, MASK, "sequence")


def gmpo(a):
    ratio = pl.clipped_geometric_ratio(LP, OLD_T, a, MASK_T, clip_low=0.4, clip_high=0.4)
    return reductions.sequence_mean(pl.surrogate(ratio, a), MASK_T)


def twin_gmpo(a):
    ratio = twin.clipped_geometric_ratio(LOG_PROB, OLD, a, MASK, 0.4, 0.4)
    return twin.reduce(-ratio * a, MASK, "sequence")


def cispo(a):
    loss = pl.cispo(pl.token_ratio(LP, OLD_T, MASK_T), LP, a, ratio_low=0.0, ratio_high=1.1)
    return reductions.token_mean(loss, MASK_T)


def twin_cispo(a):
    ratio = twin.ratios(LOG_PROB, OLD, MASK, "token")
    return twin.reduce(twin.cispo(ratio, LOG_PROB, a, 0.0, 1.1), MASK, "token")


def sapo(a):
    return reductions.sequence_mean(pl.sapo(pl.token_ratio(LP, OLD_T, MASK_T), a), MASK_T)


def twin_sapo(a):
    return twin.reduce(twin.sapo(twin.ratios(LOG_PROB, OLD, MASK, "token"), a), MASK, "sequence")


def vespo(a):
    return reductions.token_mean(pl.vespo(LP, OLD_T, a, MASK_T), MASK_T)


def twin_vespo(a):
    return twin.reduce(twin.vespo(LOG_PROB, OLD, a, MASK), MASK, "token")


def luspo(a):
    loss = pl.clipped_surrogate(pl.geometric_ratio(LP, OLD_T, MASK_T), a, clip_low=3e-4, clip_high=4e-4)
    return reductions.constant_mean(loss, MASK_T, length=1)


def twin_luspo(a):
    ratio = twin.ratios(LOG_PROB, OLD, MASK, "geometric")
    return twin.reduce(twin.clipped_surrogate(ratio, a, 3e-4, 4e-4), MASK, "constant")


def rloo(a):
    loss = pl.clipped_surrogate(pl.sequence_ratio(LP, OLD_T, MASK_T), a, clip_low=0.2, clip_high=0.2)
    return reductions.sequence_mean(loss, MASK_T)


def twin_rloo(a):
    loss = twin.clipped_surrogate(twin.ratios(LOG_PROB, OLD, MASK, "sequence"), a, 0.2, 0.2)
    return twin.reduce(loss, MASK, "sequence")


FAMILY = {  # name: (advantage, baseline and scale of its twin, loss, twin)
    "GRPO": (advantages.group_zscore, ("mean", "group"), grpo, twin_grpo),
    "Dr.GRPO": (advantages.group_center, ("mean", "none"), dr_grpo, twin_dr_grpo),
    "DAPO": (advantages.group_zscore, ("mean", "group"), dapo, twin_dapo),
    "GSPO": (advantages.group_zscore, ("mean", "group"), gspo, twin_gspo),
    "GMPO": (advantages.group_zscore, ("mean", "group"), gmpo, twin_gmpo),
    "CISPO": (advantages.group_zscore, ("mean", "group"), cispo, twin_cispo),
    "SAPO": (advantages.group_zscore, ("mean", "group"), sapo, twin_sapo),
    "VESPO": (advantages.group_zscore, ("mean", "group"), vespo, twin_vespo),
    "LUSPO": (advantages.group_zscore, ("mean", "group"), luspo, twin_luspo),
    "RLOO": (advantages.leave_one_out, ("others", "none"), rloo, twin_rloo),
}


@pytest.mark.parametrize("name", FAMILY)
def test_the_grpo_family_is_a_table_of_compositions(name):
    advantage, axes, loss, twin_loss = FAMILY[name]
    ours = loss(per_token(advantage(torch.from_numpy(REWARDS))))
    theirs = twin_loss(np.broadcast_to(twin_advantages.group_relative(REWARDS, *axes).reshape(-1, 1), SHAPE))
    close(ours, theirs)


def test_clip_by_hand():
    ratio, advantage = torch.tensor([1.5, 0.5, 1.5, 0.5, 5.0]), torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0])
    loss = pl.clipped_surrogate(ratio, advantage, clip_low=0.2, clip_high=0.3)
    assert torch.allclose(loss, torch.tensor([-1.3, -0.5, 1.5, 0.8, 5.0]))
    assert torch.allclose(pl.dual_clip(loss, advantage, bound=3.0), torch.tensor([-1.3, -0.5, 1.5, 0.8, 3.0]))


def test_soft_gate_and_gamma_weight_by_hand():
    """At advantage 1 and ratio 2: 4 sigmoid(1), and exp(3) 2^2 exp(-6)."""
    one = torch.ones(1, 1)
    assert torch.allclose(pl.sapo(2 * one, one), torch.tensor(-4 / (1 + math.exp(-1))))
    log_prob = torch.full((1, 1), -1.0)
    weight = pl.vespo(log_prob, log_prob - math.log(2), one)  # log pi is -1: the loss is the weight
    assert torch.allclose(weight, torch.tensor(4 * math.exp(-3)))


def test_dual_clip_caps_the_ratio():
    ratio = RNG.uniform(0, 6, 200)
    advantage = RNG.normal(size=200)
    a = torch.from_numpy(advantage)
    loss = pl.clipped_surrogate(torch.from_numpy(ratio), a, clip_low=0.2, clip_high=0.2)
    close(pl.dual_clip(loss, a, bound=3.0), twin.clipped_surrogate(ratio, advantage, 0.2, 0.2, dual=3.0))


def test_on_policy_every_surrogate_has_the_gradient_of_reinforce():
    """At ratio 1 the ratio levels differ only in how a token's gradient is shared out over its row."""
    a = per_token(advantages.group_center(torch.from_numpy(REWARDS)))
    lp = LP.clone().requires_grad_()
    reinforce = torch.autograd.grad(reductions.token_mean(pl.reinforce(lp, a), MASK_T), lp)[0]
    losses = {
        "token": pl.clipped_surrogate(pl.token_ratio(lp, LP, MASK_T), a, clip_low=0.2, clip_high=0.2),
        "gspo-token": pl.surrogate(pl.geometric_token_ratio(lp, LP, MASK_T), a),
        "geometric": pl.surrogate(pl.geometric_ratio(lp, LP, MASK_T), a),
        "gmpo": pl.surrogate(pl.clipped_geometric_ratio(lp, LP, a, MASK_T, clip_low=0.4, clip_high=0.4), a),
        "cispo": pl.cispo(pl.token_ratio(lp, LP, MASK_T), lp, a, ratio_low=0.0, ratio_high=5.0),
        "sapo": pl.sapo(pl.token_ratio(lp, LP, MASK_T), a),
        "vespo": pl.vespo(lp, LP, a, MASK_T),
    }
    for name, loss in losses.items():
        grad = torch.autograd.grad(reductions.token_mean(loss, MASK_T), lp)[0]
        assert torch.allclose(grad, reinforce), name


def test_values_outside_the_mask_never_matter():
    a = per_token(advantages.group_center(torch.from_numpy(REWARDS)))
    for ratio in (pl.token_ratio, pl.sequence_ratio, pl.geometric_ratio, pl.geometric_token_ratio):
        clean = reductions.token_mean(pl.surrogate(ratio(LP, OLD_T, MASK_T), a), MASK_T)
        dirty = reductions.token_mean(
            pl.surrogate(ratio(LP.masked_fill(~MASK_T, torch.nan), OLD_T, MASK_T), a), MASK_T
        )
        assert torch.equal(clean, dirty)


def test_value_loss():
    value, old, returns = RNG.normal(size=(3, 50))
    v, o, r = (torch.from_numpy(x) for x in (value, old, returns))
    close(pl.clipped_value_loss(v, o, r, clip_range=0.2), twin.clipped_value_loss(value, old, returns, 0.2))
    close(pl.clipped_value_loss(v, o, r, clip_range=1e9), pl.value_loss(v, r).numpy())
    by_hand = pl.clipped_value_loss(torch.tensor(3.0), torch.tensor(0.0), torch.tensor(3.0), clip_range=1.0)
    assert by_hand == 2.0


def test_ratio_stats():
    stats = pl.ratio_stats(LP, OLD_T, MASK_T, clip_low=0.2, clip_high=0.2)
    ratio = np.exp(LOG_PROB - OLD)[MASK]
    assert stats["clip_fraction"] == pytest.approx(np.mean(abs(ratio - 1) > 0.2))
    assert stats["approx_kl"] == pytest.approx(np.mean(ratio - 1 - np.log(ratio)))
    assert stats["ratio_max"] == pytest.approx(max(ratio.max(), 1.0))
