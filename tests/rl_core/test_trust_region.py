import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rl_core import trust_region
from rl_core.distributions import MaskedCategorical
from rl_core.kl import categorical_kl
from rl_core.policy_losses import surrogate, token_ratio
from tests.reference import trust_region as twin


@given(size=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_conjugate_gradient_equals_the_direct_solution(size, seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    matrix, target = root @ root.T + np.eye(size), rng.normal(size=size)
    m = torch.from_numpy(matrix)
    x = trust_region.conjugate_gradient(lambda v: m @ v, torch.from_numpy(target), iterations=2 * size)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, target), atol=1e-5)


def test_conjugate_gradient_of_nothing_is_nothing():
    zero = torch.zeros(3)
    assert torch.equal(trust_region.conjugate_gradient(lambda v: v, zero, iterations=5), zero)


def test_fisher_of_a_softmax_by_hand():
    """The Fisher matrix of softmax logits is diag(p) - p p^T."""
    logits = nn.Parameter(torch.tensor([0.1, -0.4, 0.7], dtype=torch.float64))
    log_probs = logits.log_softmax(-1)
    product = trust_region.fisher_vector_product(
        categorical_kl(log_probs.detach(), log_probs), [logits], 0.25
    )
    p = log_probs.detach().exp()
    v = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    assert torch.allclose(product(v), p * v - p * (p @ v) + 0.25 * v)


@pytest.mark.parametrize(
    ("max_kl", "accept_ratio", "scale"),
    [(0.5, 0.1, 1.0), (0.01, 0.1, 0.5), (2.0, 0.8, 0.5), (0.5, 5.0, 0.0)],
    ids=["whole step", "halved for the KL", "halved for the improvement", "refused"],
)
def test_step_equals_the_twin(max_kl, accept_ratio, scale):
    """A softmax policy, linear in its features."""
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(40, 3)), 0.3 * rng.normal(size=(4, 3))
    arms, advantage = rng.integers(0, 4, 40), rng.normal(size=40)
    settings = {"max_kl": max_kl, "accept_ratio": accept_ratio, "damping": 1e-3, "cg_iterations": 50}
    config = trust_region.Config(**settings)
    expected, expected_scale = twin.trpo_step(weights, features, arms, advantage, config)

    policy, x = nn.Parameter(torch.from_numpy(weights.copy())), torch.from_numpy(features)
    old = (x @ policy.T).log_softmax(-1).detach()
    taken = torch.from_numpy(arms)[:, None]

    def objective():
        log_prob = (x @ policy.T).log_softmax(-1).gather(1, taken)[:, 0]
        ratio = token_ratio(log_prob, old.gather(1, taken)[:, 0])
        return -surrogate(ratio, torch.from_numpy(advantage)).mean()

    def kl():
        return categorical_kl(old, (x @ policy.T).log_softmax(-1)).mean()

    stats = trust_region.trpo_step([policy], objective, kl, config)
    np.testing.assert_allclose(policy.detach(), expected, rtol=1e-4, atol=1e-5)
    assert stats["step_scale"].item() == expected_scale == scale


class Bandit:
    """States with their own best arm; the policy is a small network."""

    def __init__(self, rng: torch.Generator) -> None:
        self.obs = torch.randn(200, 3, generator=rng)
        self.net = nn.Linear(3, 4)
        with torch.no_grad():
            for p in self.net.parameters():
                p.copy_(0.1 * torch.randn(p.shape, generator=rng))
        self.pay = torch.randn(200, 4, generator=rng) + 2 * self.obs @ torch.randn(3, 4, generator=rng)
        self.rng = rng

    def log_probs(self):
        return self.net(self.obs).log_softmax(-1)

    def expected_pay(self) -> float:
        return (self.log_probs().exp() * self.pay).sum(-1).mean().item()

    def step(self, config: trust_region.Config):
        old = self.log_probs().detach()
        arms = MaskedCategorical(old).sample(torch.rand(200, 4, generator=self.rng))
        pay = self.pay.gather(-1, arms[:, None])[:, 0]

        def objective():
            taken = self.log_probs().gather(-1, arms[:, None])[:, 0]
            ratio = token_ratio(taken, old.gather(-1, arms[:, None])[:, 0])
            return -surrogate(ratio, pay - pay.mean()).mean()

        def kl():
            return categorical_kl(old, self.log_probs()).mean()

        return trust_region.trpo_step(list(self.net.parameters()), objective, kl, config), kl().item()


def test_improves_a_bandit_within_its_kl():
    bandit = Bandit(torch.Generator().manual_seed(0))
    before = bandit.expected_pay()
    for _ in range(20):
        stats, true_kl = bandit.step(trust_region.Config(max_kl=0.02))
        assert true_kl <= 0.02
        assert stats["kl"].item() == pytest.approx(true_kl, abs=1e-6)
        assert stats["improvement"] > 0
    assert bandit.expected_pay() > before + 1.0


def test_a_step_that_cannot_improve_changes_nothing():
    bandit = Bandit(torch.Generator().manual_seed(0))
    bandit.pay = torch.ones_like(bandit.pay)
    before = [p.clone() for p in bandit.net.parameters()]
    stats, _ = bandit.step(trust_region.Config())
    assert stats["step_scale"] == 0
    assert all(torch.equal(p, q) for p, q in zip(bandit.net.parameters(), before, strict=True))


def test_a_step_into_nan_is_taken_back():
    weight = nn.Parameter(torch.zeros(1))
    stats = trust_region.trpo_step(
        [weight],
        lambda: (weight + torch.where(weight > 0, torch.nan, 0.0)).sum(),
        lambda: weight.square().sum(),
        trust_region.Config(),
    )
    assert stats["step_scale"] == 0
    assert weight.item() == 0.0


@pytest.mark.parametrize(
    ("field", "value"), [("max_kl", 0.0), ("cg_iterations", 0), ("damping", -1.0), ("accept_ratio", -0.1)]
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f"trust_region.{field}={value}: must be >"):
        trust_region.Config(**{field: value})
