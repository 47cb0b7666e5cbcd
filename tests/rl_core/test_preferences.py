import functools
import inspect
import itertools
import math

import numpy as np
import pytest
import torch

from rl_core import preferences as pref
from tests.reference import preferences as twin

RNG = np.random.default_rng(0)
CHOSEN, REJECTED = -RNG.uniform(0.1, 5, (2, 40))  # negative, as the mean log-probabilities of ORPO must be
BETA, SMOOTHING = 0.3, 0.1


def ours(name):
    """The loss with whichever of beta and label_smoothing it takes."""
    loss = getattr(pref, name)
    settings = {"beta": BETA, "label_smoothing": SMOOTHING}
    taken = inspect.signature(loss).parameters
    return functools.partial(loss, **{k: v for k, v in settings.items() if k in taken})


@pytest.mark.parametrize("name", twin.PAIR_LOSSES)
def test_pair_losses_equal_the_twin(name):
    numbers = ours(name)(torch.from_numpy(CHOSEN), torch.from_numpy(REJECTED))
    expected = [twin.PAIR_LOSSES[name](w, r, BETA, SMOOTHING) for w, r in zip(CHOSEN, REJECTED, strict=True)]
    np.testing.assert_allclose(numbers, expected, atol=1e-5)


@pytest.mark.parametrize("name", sorted(twin.PAIR_LOSSES.keys() - {"apo_down_loss", "discopop_loss"}))
def test_pair_losses_pull_the_two_apart_at_the_start(name):
    """At equal scores the gradient raises the chosen above the rejected; APO-down lowers both, rejected
    more.
    """
    chosen, rejected = (torch.tensor(-0.7, requires_grad=True) for _ in "wl")
    up, down = torch.autograd.grad(ours(name)(chosen, rejected), (chosen, rejected))
    assert up < down


@pytest.mark.parametrize("name", twin.PAIR_LOSSES)
def test_pair_losses_stay_finite_at_extreme_scores(name):
    chosen = torch.tensor([-1e-4, -300.0, -1e-4, -300.0], requires_grad=True)
    rejected = torch.tensor([-300.0, -1e-4, -1e-4, -300.0], requires_grad=True)
    loss = ours(name)(chosen, rejected)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert chosen.grad.isfinite().all()
    assert rejected.grad.isfinite().all()


def test_aot_equals_the_twin_in_any_order():
    chosen, rejected = torch.from_numpy(CHOSEN), torch.from_numpy(REJECTED)
    loss = pref.aot_loss(chosen, rejected, beta=BETA, label_smoothing=0.1)
    want = twin.aot_loss(CHOSEN, REJECTED, BETA, 0.1)  # by rank
    np.testing.assert_allclose(loss[chosen.argsort()], want, atol=1e-6)
    turned = pref.aot_loss(chosen.flip(0), rejected, beta=BETA, label_smoothing=0.1)
    torch.testing.assert_close(turned.flip(0), loss)


def test_aot_has_the_gradient_of_sorting_in_whole_and_in_parts():
    sides = [torch.randn(6, generator=torch.Generator().manual_seed(n), requires_grad=True) for n in (0, 1)]
    ordered = pref.smoothed_loss(*(x.sort().values for x in sides), beta=BETA, label_smoothing=0.1).sum()
    want = torch.autograd.grad(ordered, sides)
    rivals = pref.same_rank(*sides)
    for size in (6, 2):
        parts = zip(*(x.split(size) for x in (*sides, rivals)), strict=True)
        loss = sum(
            pref.aot_loss(better, worse, beta=BETA, label_smoothing=0.1, rivals=near).sum()
            for better, worse, near in parts
        )
        torch.testing.assert_close(loss, ordered)
        torch.testing.assert_close(torch.autograd.grad(loss, sides), want)


def test_on_policy_weights_equal_the_twin():
    log_prob = torch.tensor([[-1.0, -2.0, 7.0], [-0.5, -0.1, -3.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    weight = pref.on_policy_weight(log_prob, mask)
    rows = ([-1.0, -2.0], [-0.5, -0.1, -3.0])
    np.testing.assert_allclose(weight, [twin.on_policy_weight(row) for row in rows], rtol=1e-6)
    assert not weight.requires_grad


def test_discopop_parts_the_wrong_way_at_the_start():
    """The paper's section 5: its loss is not convex around equal scores."""
    chosen = torch.tensor(0.0, requires_grad=True)
    pref.discopop_loss(chosen, torch.tensor(0.0), beta=BETA).backward()
    assert chosen.grad > 0


def test_by_hand():
    zero = torch.zeros(1)
    assert pref.bradley_terry_loss(zero, zero).item() == pytest.approx(math.log(2))
    assert pref.bradley_terry_loss(zero + 3, zero, margin=3.0).item() == pytest.approx(math.log(2))
    assert pref.sigmoid_loss(zero, zero, beta=0.1).item() == pytest.approx(math.log(2))
    assert pref.ipo_loss(zero + 5, zero, beta=0.1).item() == 0.0
    assert pref.sppo_loss(zero + 5, zero - 5, beta=0.1).item() == 0.0
    assert pref.hinge_loss(zero + 4, zero, beta=0.1).item() == pytest.approx(0.6)
    assert pref.exo_loss(
        zero + math.log(9) / 0.1, zero, beta=0.1, label_smoothing=0.1
    ).item() == pytest.approx(0.0, abs=1e-6)
    assert pref.pointwise_loss(zero + 3, zero + 1).item() == 4.0
    assert pref.centering_loss(zero + 3, zero - 1).item() == 4.0
    assert pref.kto_reference_point(torch.tensor([1.0, 2.0])) == 1.5
    assert pref.kto_reference_point(torch.tensor([-1.0, -2.0])) == 0.0


def test_members_that_coincide():
    w, r = torch.from_numpy(CHOSEN), torch.from_numpy(REJECTED)
    dpo = pref.sigmoid_loss(w, r, beta=BETA)
    assert torch.allclose(pref.smoothed_loss(w, r, beta=BETA, label_smoothing=0.0), dpo)
    assert torch.allclose(pref.robust_loss(w, r, beta=BETA, label_smoothing=0.0), dpo)
    assert torch.allclose(pref.bradley_terry_loss(BETA * w, BETA * r), dpo)
    odpo = pref.sigmoid_loss(w, r, beta=BETA, offset=0.5)
    assert torch.allclose(odpo, pref.sigmoid_loss(w - 0.5 / BETA, r, beta=BETA))  # SimPO's gamma / beta
    up, down = torch.ones(40, dtype=torch.bool), torch.zeros(40, dtype=torch.bool)
    kto = functools.partial(pref.kto_loss, beta=BETA, reference_point=0.0)
    assert torch.allclose(kto(w, up) + kto(r, down), pref.apo_zero_loss(w, r, beta=BETA))
    bco = functools.partial(pref.bco_loss, beta=BETA, shift=0.0)
    assert torch.allclose(bco(w, up) + bco(r, down), pref.bco_pair_loss(w, r, beta=BETA))


def test_unpaired_losses_equal_the_twin():
    desirable = RNG.random(40) < 0.5
    score, label = torch.from_numpy(CHOSEN), torch.from_numpy(desirable)
    kto = pref.kto_loss(
        score, label, beta=BETA, reference_point=0.4, desirable_weight=1.2, undesirable_weight=0.7
    )
    rows = list(zip(CHOSEN, desirable, strict=True))
    np.testing.assert_allclose(kto, [twin.kto_loss(s, d, BETA, 0.4, 1.2, 0.7) for s, d in rows], atol=1e-5)
    bco = pref.bco_loss(score, label, beta=BETA, shift=0.2)
    np.testing.assert_allclose(bco, [twin.bco_loss(s, d, BETA, 0.2) for s, d in rows], atol=1e-5)


def test_divergence_scores():
    ratio = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    assert torch.allclose(pref.forward_kl_score(ratio), 1 - (-ratio).exp())
    assert torch.allclose(pref.js_score(ratio), (2 * ratio.sigmoid()).log())
    assert torch.allclose(pref.alpha_score(ratio, alpha=0.5), 2 * (1 - (-0.5 * ratio).exp()))
    assert torch.allclose(pref.alpha_score(ratio, alpha=0.0), pref.forward_kl_score(ratio))
    assert torch.allclose(pref.alpha_score(ratio, alpha=1 + 1e-7), ratio)
    assert pref.forward_kl_score(torch.tensor(-1e4)).isfinite()


def test_plackett_luce_equals_the_twin_with_ties_and_holes():
    scores, rank = RNG.normal(size=(30, 5)), RNG.integers(0, 4, (30, 5))
    mask = RNG.random((30, 5)) < 0.8
    holes = np.where(mask, scores, np.nan)
    loss = pref.plackett_luce_loss(*(torch.from_numpy(a) for a in (holes, rank, mask)))
    expected = [twin.plackett_luce_loss(*row) for row in zip(scores, rank, mask, strict=True)]
    np.testing.assert_allclose(loss, expected, atol=1e-5)


def test_plackett_luce_is_a_distribution_over_orders():
    scores = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    assert (-pref.plackett_luce_loss(scores.expand(24, 4), orders)).exp().sum().item() == pytest.approx(1.0)


def test_plackett_luce_special_cases():
    scores = torch.tensor([[1.0, 3.0]])
    bradley_terry = pref.bradley_terry_loss(scores[:, 1], scores[:, 0])
    assert torch.allclose(pref.plackett_luce_loss(scores, torch.tensor([[1, 0]])), bradley_terry)
    assert pref.plackett_luce_loss(scores, torch.tensor([[2, 2]])) == 0
    assert pref.plackett_luce_loss(scores, torch.tensor([[1, 0]]), torch.tensor([[True, False]])) == 0


def test_plackett_luce_recovers_the_order():
    scores = torch.zeros(1, 4, requires_grad=True)
    optimizer = torch.optim.SGD([scores], lr=0.5)
    rank = torch.tensor([[2, 0, 3, 1]])
    for _ in range(100):
        optimizer.zero_grad()
        pref.plackett_luce_loss(scores, rank).sum().backward()
        optimizer.step()
    assert scores.argsort(descending=True).tolist() == [[1, 3, 0, 2]]
