import json
import math

import numpy as np
import pytest
import torch

from rl_core import kl
from tests.reference import policy_losses as twin


def test_estimators_equal_the_twin():
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(2, 20))
    ours = [k(torch.from_numpy(p), torch.from_numpy(q)) for k in (kl.k1, kl.k2, kl.k3)]
    for a, b in zip(ours, twin.kl_estimates(p, q), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_k3_by_hand_and_never_negative_near_zero():
    assert kl.k3(torch.tensor(0.0), torch.tensor(1.0)) == pytest.approx(math.e - 2)
    close = torch.linspace(-1e-4, 1e-4, 101)
    assert (kl.k3(close, torch.zeros(101)) >= 0).all()


def test_estimators_average_to_the_exact_kl():
    """In expectation over p, by summing over all outcomes: k1 and k3 are exact, k2 is close."""
    logits = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.2
    p, q = logits.log_softmax(-1)
    exact = kl.categorical_kl(p, q)
    assert exact == pytest.approx(twin.categorical_kl(p.exp().tolist(), q.exp().tolist()))
    assert (p.exp() * kl.k1(p, q)).sum() == pytest.approx(exact.item())
    assert (p.exp() * kl.k3(p, q)).sum() == pytest.approx(exact.item())
    assert (p.exp() * kl.k2(p, q)).sum() == pytest.approx(exact.item(), rel=0.2)


def test_categorical_kl_of_impossible_outcomes():
    p = torch.tensor([1.0, 0.0]).log()
    assert kl.categorical_kl(p, torch.tensor([0.5, 0.5]).log()) == pytest.approx(math.log(2))


def test_gaussian_kl_equals_torch():
    mean, log_std, ref_mean, ref_log_std = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(
        normal(mean, log_std.exp()), normal(ref_mean, ref_log_std.exp())
    )
    assert torch.allclose(kl.gaussian_kl(mean, log_std, ref_mean, ref_log_std), theirs.sum(-1), atol=1e-5)
    assert (kl.gaussian_kl(mean, log_std, mean, log_std).abs() < 1e-6).all()


def test_adaptive_controller_by_hand_and_resumes():
    controller = kl.AdaptiveKL(0.1, target=6.0, horizon=100)
    controller.update(6.6, 10)
    assert controller.coef == pytest.approx(0.1 * 1.01)
    controller.update(100.0, 10)
    assert controller.coef == pytest.approx(0.1 * 1.01 * 1.02)
    controller.update(0.0, 10**9)
    assert controller.coef == pytest.approx(0.1 * 1.01 * 1.02 * 0.8)
    resumed = kl.AdaptiveKL(0.5, target=6.0, horizon=100)
    resumed.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    assert resumed.coef == controller.coef


def test_fixed_controller_stays():
    controller: kl.KLController = kl.FixedKL(0.1)
    controller.update(100.0, 1000)
    assert controller.coef == 0.1


@pytest.mark.parametrize("field", ["coef", "target", "horizon"])
def test_bad_controller_is_named(field):
    with pytest.raises(ValueError, match=rf"{field}=-1.*> 0"):
        kl.AdaptiveKL(**{"coef": 0.1, "target": 6.0, "horizon": 10} | {field: -1})
