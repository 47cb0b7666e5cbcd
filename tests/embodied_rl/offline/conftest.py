"""A continuous bandit whose data prefer the bad action, random batches, and short runs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from embodied_rl.data.types import Batch, Spec
from rl_core import run

OBS_DIM, ACTION_DIM = 3, 2


def _spec(obs_dim: int, action_dim: int) -> Spec:
    bound = np.ones(action_dim, np.float32)
    return Spec(
        env_id="Bandit-v0",
        obs_keys=("observation",),
        obs_dims=(obs_dim,),
        action_low=-bound,
        action_high=bound,
    )


class Rows:
    """Sampler over one batch held in memory; fails at call number `fail_at`, as a power cut would."""

    def __init__(self, rows: Batch, fail_at: int | None = None) -> None:
        self.rows, self.fail_at, self.calls = rows, fail_at, 0
        self.spec = _spec(rows.obs.shape[1], rows.action.shape[1])

    def sample(self, generator: torch.Generator, batch_size: int) -> Batch:
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("power cut")
        device = generator.device
        index = torch.randint(len(self.rows.reward), (batch_size,), generator=generator, device=device)
        return self.rows.map(lambda x: x[index])


def random_rows(num: int = 32) -> Batch:
    g = torch.Generator().manual_seed(7)
    return Batch(
        obs=torch.randn(num, OBS_DIM, generator=g),
        action=torch.rand(num, ACTION_DIM, generator=g) * 2 - 1,
        reward=torch.randn(num, generator=g),
        next_obs=torch.randn(num, OBS_DIM, generator=g),
        discount=0.99 * (torch.rand(num, generator=g) > 0.2),
    )


@pytest.fixture
def batch() -> Batch:
    return random_rows()


@pytest.fixture
def rows() -> type[Rows]:
    return Rows


@pytest.fixture
def spec() -> Spec:
    return _spec(OBS_DIM, ACTION_DIM)


@pytest.fixture
def bandit() -> Rows:
    """Actions near -0.5 (70 %, reward 0.02) and near 0.5 (30 %, reward 0.9); the mean action is -0.2."""
    g = torch.Generator().manual_seed(3)
    num = 2000
    centre = torch.where(torch.rand(num, 1, generator=g) < 0.3, 0.5, -0.5)
    action = (centre + 0.1 * torch.randn(num, 1, generator=g)).clamp(-1, 1)
    obs = torch.randn(num, 2, generator=g)
    reward = torch.exp(-((action.squeeze(1) - 0.5) ** 2) / 0.1)
    return Rows(Batch(obs=obs, action=action, reward=reward, next_obs=obs, discount=torch.zeros(num)))


@pytest.fixture
def train(tmp_path):
    """Train a module for a few steps: `train(module, cfg, data, steps=..., name=..., <run options>)`."""

    def go(module, cfg, data, *, steps, name="run", **options):
        settings = run.Config(
            dir=str(tmp_path / name), steps=steps, **{"device": "cpu", "tensorboard": False, **options}
        )
        with run.Run(settings, config=cfg) as this_run:
            return module.train(cfg, data, this_run, lambda agent: {"calls": float(agent.training)})

    return go


@pytest.fixture
def clone():
    """An agent with the same parameters, for a second implementation to update."""

    def go(module, cfg, spec, agent):
        twin = module.Agent(cfg, spec, torch.Generator().manual_seed(0))
        twin.load_state_dict(copy.deepcopy(agent.state_dict()))
        return twin

    return go
