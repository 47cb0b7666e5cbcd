"""Points on a line that are to go to a goal, and short runs on them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from embodied_rl.online import rollout
from rl_core import run


class Points(VectorEnv):
    """`num_envs` points that move by up to 0.5; the reward is 1 at the goal and less away from it.

    Truncated after `limit` steps, terminated beyond 1.5. `goal` is a field of its own; `observation` is the
    position, and in the first step of an episode the goal beside it, else 0.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs: int = 8, limit: int = 6, fail_at: int | None = None) -> None:
        self.num_envs, self._limit, self._fail_at, self._calls = num_envs, limit, fail_at, 0
        box = gym.spaces.Box
        self.single_observation_space = gym.spaces.Dict(
            {"goal": box(-1, 1, (1,)), "observation": box(-3, 3, (2,))}
        )
        self.single_action_space = box(-2, 2, (1,))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.transitions: list[dict[str, np.ndarray]] = []  # with the true successors

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self._rng = np.random.default_rng(seed)
        self._x, self._goal, self._age = (np.zeros(self.num_envs) for _ in range(3))
        self._begin(np.ones(self.num_envs, bool))
        return self._obs(), {"is_success": np.zeros(self.num_envs, bool)}

    def _begin(self, where: np.ndarray) -> None:
        self._x[where] = 0.0
        self._goal[where] = self._rng.choice([-0.8, 0.8], where.sum())
        self._age[where] = 0

    def _obs(self) -> dict[str, np.ndarray]:
        cue = np.where(self._age == 0, self._goal, 0.0)
        observation = np.column_stack([self._x, cue]).astype(np.float32)
        return {"goal": self._goal[:, None].astype(np.float32), "observation": observation}

    def step(self, actions: np.ndarray):
        self._calls += 1
        if self._calls == self._fail_at:
            raise RuntimeError("power cut")
        self._x = self._x + np.clip(actions[:, 0], -2, 2) / 4
        self._age = self._age + 1
        reward = 1.0 - np.abs(self._x - self._goal)
        terminated = np.abs(self._x) > 1.5
        truncated = ~terminated & (self._age >= self._limit)
        success, true_obs = np.abs(self._x - self._goal) < 0.2, self._obs()
        infos: dict[str, Any] = {"is_success": success}
        ended = terminated | truncated
        if ended.any():
            final = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(ended):
                final[i] = {key: value[i] for key, value in true_obs.items()}
            infos = {
                "is_success": success & ~ended,
                "final_obs": final,
                "final_info": {"is_success": success},
            }
            self._begin(ended)
        self.transitions.append({"reward": reward, "terminated": terminated, "ended": ended, **true_obs})
        return self._obs(), reward, terminated, truncated, infos


@pytest.fixture
def points() -> type[Points]:
    return Points


@pytest.fixture
def world():
    """A world of points: `world(env, obs_keys=..., critic_keys=..., horizon=...)`."""

    def make(env: VectorEnv | None = None, **options: Any) -> rollout.World:
        cfg = rollout.Config(**{"horizon": 12, **options})
        return rollout.world_of(env or Points(), cfg, "Points-v0")

    return make


@pytest.fixture
def train(tmp_path):
    """Train a module for a few steps: `train(module, cfg, world, steps=..., name=..., <run options>)`."""

    def go(module, cfg, world, *, steps, name="run", **options):
        settings = run.Config(
            dir=str(tmp_path / name),
            steps=steps,
            **{"device": "cpu", "tensorboard": False, "log_every": 1, **options},
        )
        with run.Run(settings, config=cfg) as this_run:
            return module.train(cfg, world, this_run, lambda agent: {})

    return go
