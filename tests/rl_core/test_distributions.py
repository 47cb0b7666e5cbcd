import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_core import distributions as dist
from tests.reference import distributions as twin

RNG = np.random.default_rng(0)
MEAN, LOG_STD, NOISE = RNG.normal(size=(3, 5, 2)) * 0.5
M, S, E = (torch.from_numpy(a) for a in (MEAN, LOG_STD, NOISE))


def test_gaussian_equals_the_twin():
    normal = dist.DiagonalGaussian(M, S)
    action = normal.rsample(E)
    np.testing.assert_allclose(action, MEAN + np.exp(LOG_STD) * NOISE)
    expected = [twin.normal_log_prob(*row) for row in zip(action.numpy(), MEAN, LOG_STD, strict=True)]
    np.testing.assert_allclose(normal.log_prob(action), expected, atol=1e-5)
    np.testing.assert_allclose(normal.entropy(), [twin.normal_entropy(s) for s in LOG_STD], atol=1e-5)


def test_gaussian_by_hand_with_one_shared_log_std():
    normal = dist.DiagonalGaussian(torch.zeros(4, 3), torch.zeros(3))
    assert torch.allclose(normal.log_prob(torch.ones(4, 3)), torch.tensor(-1.5 - 1.5 * math.log(2 * math.pi)))
    assert normal.entropy().shape == (4,)


def test_tanh_gaussian_equals_the_twin():
    squashed = dist.TanhGaussian(M, S)
    action, log_prob = squashed.rsample_with_log_prob(E)
    latent = MEAN + np.exp(LOG_STD) * NOISE
    expected = [twin.tanh_normal_log_prob(*row) for row in zip(latent, MEAN, LOG_STD, strict=True)]
    np.testing.assert_allclose(action, np.tanh(latent))
    np.testing.assert_allclose(log_prob, expected, atol=1e-5)
    np.testing.assert_allclose(squashed.log_prob(action), expected, atol=1e-5)
    assert torch.equal(squashed.rsample(E), action)


def test_tanh_density_integrates_to_one():
    action = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1, None]
    squashed = dist.TanhGaussian(torch.tensor([0.4]).double(), torch.tensor([-0.5]).double())
    assert squashed.log_prob(action).exp().mean() * 2 == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("latent", [-30.0, -12.0, 0.0, 9.0, 30.0])
def test_tanh_log_prob_is_exact_where_tanh_saturates_in_float32(latent):
    """log(1 - tanh^2) is -58.6 at 30; the usual log(1 - a^2 + 1e-6) stops at -13.8."""
    exact = -2 * (abs(latent) + math.log1p(math.exp(-2 * abs(latent))) - math.log(2))
    assert dist.tanh_log_det(torch.tensor([latent])) == pytest.approx(exact, rel=1e-6, abs=1e-6)


def test_recorded_actions_on_the_border_stay_finite_with_gradient():
    mean = torch.zeros(2, 1, requires_grad=True)
    log_prob = dist.TanhGaussian(mean, torch.zeros(1)).log_prob(torch.tensor([[1.0], [-1.0]]))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert mean.grad.isfinite().all()
    assert torch.allclose(log_prob[0], log_prob[1])


def test_categorical_equals_the_twin_and_never_picks_the_masked():
    logits, mask = RNG.normal(size=(6, 4)), RNG.random((6, 4)) < 0.5
    mask[:, 1] = True
    categorical = dist.MaskedCategorical(torch.from_numpy(logits), torch.from_numpy(mask))
    probs = np.array([twin.masked_probs(*row) for row in zip(logits, mask, strict=True)])
    np.testing.assert_allclose(categorical.log_probs.exp(), probs, atol=1e-6)
    entropy = [-sum(p * math.log(p) for p in row if p > 0) for row in probs]
    np.testing.assert_allclose(categorical.entropy(), entropy, atol=1e-5)
    picked = categorical.mode
    np.testing.assert_allclose(categorical.log_prob(picked), np.log(probs.max(-1)), atol=1e-6)
    uniform = torch.rand(500, 6, 4, generator=torch.Generator().manual_seed(0))
    sampled = categorical.sample(uniform)
    assert torch.from_numpy(mask)[torch.arange(6), sampled].all()


def test_categorical_samples_follow_the_probabilities():
    uniform = torch.rand(40_000, 3, generator=torch.Generator().manual_seed(0))
    uniform[0] = 0.0
    drawn = dist.MaskedCategorical(torch.tensor([0.2, 0.5, 0.3]).log()).sample(uniform)
    frequency = drawn.bincount(minlength=3) / len(drawn)
    assert torch.allclose(frequency, torch.tensor([0.2, 0.5, 0.3]), atol=0.01)


def test_masked_entropy_has_a_finite_gradient():
    logits = torch.zeros(3, requires_grad=True)
    dist.MaskedCategorical(logits, torch.tensor([True, False, True])).entropy().backward()
    assert logits.grad.isfinite().all()


@given(value=st.floats(-1, 1, width=32), num_bins=st.integers(1, 300))
@settings(max_examples=100, deadline=None)
def test_bins_round_trip_within_half_a_bin(value, num_bins):
    index = dist.to_bins(torch.tensor([value]), num_bins)
    assert 0 <= index.item() < num_bins
    assert abs(dist.from_bins(index, num_bins).item() - value) <= 1 / num_bins + 1e-6


def test_bins_by_hand():
    action = torch.tensor([-9.0, -1.0, -0.51, -0.5, 0.0, 1.0, 9.0])
    assert dist.to_bins(action, 4).tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert dist.from_bins(torch.arange(4), 4).tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_compiles_without_a_graph_break():
    @torch.compile(backend="eager", fullgraph=True)
    def sample(mean, log_std, noise):
        return dist.TanhGaussian(mean, log_std).rsample_with_log_prob(noise)

    for compiled, eager in zip(
        sample(M, S, E), dist.TanhGaussian(M, S).rsample_with_log_prob(E), strict=True
    ):
        assert torch.allclose(compiled, eager)
