import dataclasses
import math

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from rl_core import ppo
from rl_core.advantages import gae
from rl_core.distributions import DiagonalGaussian, MaskedCategorical
from tests.reference import ppo as twin


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Bandit(nn.Module):
    """Four arms, the third pays best: rows are single steps `[n]`, as for robots."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(4))
        self.value = nn.Parameter(torch.zeros(()))

    def evaluate(self, rows: ppo.Rollout) -> ppo.Evaluation:
        arms = MaskedCategorical(self.logits.expand(len(rows), 4))
        log_prob = arms.log_prob(rows.inputs["arm"])
        return ppo.Evaluation(log_prob=log_prob, entropy=arms.entropy(), value=self.value.expand(len(rows)))

    @torch.no_grad()
    def rollout(self, rng: torch.Generator, num_rows: int = 256) -> ppo.Rollout:
        arms = MaskedCategorical(self.logits.expand(num_rows, 4))
        arm = arms.sample(torch.rand(num_rows, 4, generator=rng))
        reward = torch.tensor([0.0, 0.3, 1.0, 0.6])[arm] + 0.1 * torch.randn(num_rows, generator=rng)
        value = self.value.expand(num_rows).clone()
        return ppo.Rollout(
            inputs={"arm": arm},
            log_prob=arms.log_prob(arm),
            value=value,
            advantage=reward - value,
            returns=reward,
        )


class Writer(nn.Module):
    """Four tokens of a vocabulary of five, one logit each per place; token 0 ends: rows are responses `[n,
    4]`.
    """

    target = torch.tensor([3, 1, 2, 0])

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(4, 5))
        self.value = nn.Parameter(torch.zeros(4))

    def evaluate(self, rows: ppo.Rollout) -> ppo.Evaluation:
        tokens = MaskedCategorical(self.logits.expand(len(rows), 4, 5))
        log_prob = tokens.log_prob(rows.inputs["token"])
        return ppo.Evaluation(
            log_prob=log_prob, entropy=tokens.entropy(), value=self.value.expand(len(rows), 4)
        )

    @torch.no_grad()
    def rollout(self, rng: torch.Generator, num_rows: int = 128) -> ppo.Rollout:
        tokens = MaskedCategorical(self.logits.expand(num_rows, 4, 5))
        token = tokens.sample(torch.rand(num_rows, 4, 5, generator=rng))
        is_end = token == 0
        mask = is_end.cumsum(-1) - is_end.long() == 0  # up to the end token, itself included
        last = mask & (is_end | (torch.arange(4) == 3))
        score = ((token == self.target) & mask).float().mean(-1, keepdim=True)  # judged once, at the end
        value = self.value.expand(num_rows, 4)
        next_value = torch.cat([value[:, 1:], value[:, :1]], -1)
        terminated = ended = last  # a fourth token that is not the end is the limit of the task, not of time
        advantage, returns = gae(
            score * last, value, next_value, terminated, ended, gamma=1.0, lam=0.95, mask=mask
        )
        return ppo.Rollout(
            inputs={"token": token},
            log_prob=tokens.log_prob(token),
            value=value.clone(),
            advantage=advantage,
            returns=returns,
            mask=mask,
        )


def train(task, updates: int, config: ppo.Config, seed: int = 0, lr: float = 0.05):
    rng = generator(seed)
    optimizer = torch.optim.Adam(task.parameters(), lr=lr)
    return [ppo.ppo_update(task.evaluate, optimizer, task.rollout(rng), config, rng) for _ in range(updates)]


def test_solves_a_bandit():
    task = Bandit()
    train(task, 15, ppo.Config(epochs=4, entropy_coef=0.001))
    assert task.logits.softmax(-1)[2] > 0.95
    assert task.value.item() == pytest.approx(1.0, abs=0.15)


def test_solves_a_four_token_language():
    task = Writer()
    stats = train(task, 40, ppo.Config(epochs=4, minibatch_size=32))
    assert task.logits.argmax(-1).tolist() == task.target.tolist()
    assert task.logits.softmax(-1).amax(-1).prod() > 0.8
    assert stats[-1]["explained_variance"].isfinite()


def test_first_minibatch_by_hand():
    """At the old policy the ratio is 1: the policy loss is -mean(A) = 0 after whitening, the KL is 0."""
    task = Bandit()
    rows = task.rollout(generator())
    white = dataclasses.replace(
        rows, advantage=(rows.advantage - rows.advantage.mean()) / rows.advantage.std()
    )
    loss, stats = ppo.ppo_loss(task.evaluate, white, ppo.Config(value_coef=0.5, entropy_coef=0.1))
    value_loss = 0.5 * rows.returns.square().mean()
    assert stats["policy_loss"].item() == pytest.approx(0.0, abs=1e-6)
    assert stats["approx_kl"].item() == pytest.approx(0.0, abs=1e-6)
    assert loss.item() == pytest.approx((0.5 * value_loss - 0.1 * math.log(4)).item(), abs=1e-5)


@pytest.mark.parametrize("value_clip", [0.2, math.inf])
def test_loss_equals_the_twin(value_clip):
    rng = np.random.default_rng(0)
    names = ("log_prob", "entropy", "value", "old_log_prob", "old_value", "advantage", "returns")
    numbers = {name: rng.normal(scale=0.4, size=(6, 5)) for name in names}
    mask = rng.random((6, 5)) < 0.7
    config = ppo.Config(clip_high=0.3, value_clip=value_clip, value_coef=0.7, entropy_coef=0.05)
    tensors = {name: torch.from_numpy(x) for name, x in numbers.items()}
    now = ppo.Evaluation(**{name: tensors[name] for name in ("log_prob", "entropy", "value")})
    rows = ppo.Rollout(
        inputs={},
        log_prob=tensors["old_log_prob"],
        value=tensors["old_value"],
        advantage=tensors["advantage"],
        returns=tensors["returns"],
        mask=torch.from_numpy(mask),
    )
    loss, stats = ppo.ppo_loss(lambda _: now, rows, config)
    expected_loss, expected = twin.ppo_loss(**numbers, mask=mask, config=config)
    assert loss.item() == pytest.approx(expected_loss, abs=1e-9)
    assert {name: x.item() for name, x in stats.items()} == pytest.approx(expected, abs=1e-9)
    assert 0 < expected["clip_fraction"] < 1


def test_masked_tokens_change_nothing():
    numbers = []
    for filler in (0.0, 1e3):
        task = Writer()
        rows = task.rollout(generator())
        for name in ("log_prob", "value", "advantage", "returns"):
            setattr(rows, name, torch.where(rows.mask, getattr(rows, name), filler))
        optimizer = torch.optim.Adam(task.parameters(), lr=0.05)
        ppo.ppo_update(task.evaluate, optimizer, rows, ppo.Config(epochs=2), generator())
        numbers.append(task.logits.detach().clone())
    assert torch.equal(*numbers)


def test_stops_at_the_target_kl():
    config = ppo.Config(epochs=50, minibatch_size=256)
    free, bound = Bandit(), Bandit()
    (run_on,) = train(free, 1, config, lr=0.1)
    (stopped,) = train(bound, 1, dataclasses.replace(config, target_kl=0.01), lr=0.1)
    assert run_on["updates"] == 50
    assert 0 < stopped["updates"] < 50
    assert stopped["approx_kl"] > 0.01


def test_gradient_is_clipped():
    task = Bandit()
    optimizer = torch.optim.SGD(task.parameters(), lr=1.0)
    config = ppo.Config(epochs=1, minibatch_size=256, max_grad_norm=1e-3)
    stats = ppo.ppo_update(task.evaluate, optimizer, task.rollout(generator()), config, generator())
    moved = torch.cat([p.detach().reshape(-1) for p in task.parameters()]).norm()
    assert stats["grad_norm"] > 1e-3
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


def test_same_seed_same_numbers_and_rows_of_all_sizes():
    def final(seed):
        task = Bandit()
        stats = train(task, 3, ppo.Config(minibatch_size=100), seed)  # 256 rows: minibatches of 86, 85, 85
        assert stats[0]["updates"] == 30
        return task.logits.detach()

    assert torch.equal(final(1), final(1))
    assert not torch.equal(final(1), final(2))


def test_continuous_actions():
    """One step, Gaussian action, reward -(a - 0.7)^2: the mean finds 0.7."""
    mean, value, rng = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(())), generator()
    optimizer = torch.optim.Adam([mean, value], lr=0.02)
    log_std = torch.tensor([-1.0])

    def evaluate(rows):
        normal = DiagonalGaussian(mean.expand(len(rows), 1), log_std)
        log_prob = normal.log_prob(rows.inputs["action"])
        return ppo.Evaluation(log_prob=log_prob, entropy=normal.entropy(), value=value.expand(len(rows)))

    for _ in range(15):
        normal = DiagonalGaussian(mean.detach().expand(256, 1), log_std)
        action = normal.rsample(torch.randn(256, 1, generator=rng))
        reward = -(action[:, 0] - 0.7).square()
        old_value = value.detach().expand(256).clone()
        rollout = ppo.Rollout(
            inputs={"action": action},
            log_prob=normal.log_prob(action),
            value=old_value,
            advantage=reward - old_value,
            returns=reward,
        )
        ppo.ppo_update(evaluate, optimizer, rollout, ppo.Config(), rng)
    assert mean.item() == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("minibatch_size", 0),
        ("clip_low", 0.0),
        ("target_kl", -1.0),
        ("max_grad_norm", math.nan),
    ]
    + [("entropy_coef", -0.1), ("value_coef", math.nan)],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=rf"ppo.{field}={value}: must be >"):
        ppo.Config(**{field: value})


def test_hydra_can_override_it():
    """A frozen dataclass would be read-only there."""
    composed = OmegaConf.merge(OmegaConf.structured(ppo.Config), {"epochs": 3, "target_kl": 0.02})
    assert OmegaConf.to_object(composed) == ppo.Config(epochs=3, target_kl=0.02)


def test_an_empty_rollout_is_an_error():
    task = Bandit()
    nothing = task.rollout(generator())[torch.zeros(256, dtype=torch.bool)]
    with pytest.raises(ValueError, match="rollout: 0 rows"):
        ppo.ppo_update(task.evaluate, torch.optim.SGD(task.parameters()), nothing, ppo.Config(), generator())
