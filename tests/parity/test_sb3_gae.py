"""GAE equals Stable-Baselines3's RolloutBuffer."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl_core.advantages import gae

buffers = pytest.importorskip("stable_baselines3.common.buffers")


@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_gae_equals_the_rollout_buffer(gamma, lam):
    rng = np.random.default_rng(0)
    num_steps, num_envs = 64, 5
    buffer = buffers.RolloutBuffer(
        num_steps, spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,)), "cpu", lam, gamma, num_envs
    )
    rewards, values, starts = (
        rng.normal(size=(num_steps, num_envs)).astype(np.float32),
        torch.from_numpy(rng.normal(size=(num_steps, num_envs)).astype(np.float32)),
        rng.random((num_steps, num_envs)) < 0.1,
    )
    blank, last_values = (
        np.zeros((num_envs, 1)),
        torch.from_numpy(rng.normal(size=num_envs).astype(np.float32)),
    )
    for reward, value, start in zip(rewards, values, starts, strict=True):
        buffer.add(blank, blank, reward, start, value, torch.zeros(num_envs))
    last_done = rng.random(num_envs) < 0.5
    buffer.compute_returns_and_advantage(last_values, last_done)

    ended = torch.from_numpy(np.concatenate([starts[1:], last_done[None]]).T)
    next_values = torch.cat([values[1:], last_values[None]]).T
    advantages, returns = gae(
        torch.from_numpy(rewards).T, values.T, next_values, ended, ended, gamma=gamma, lam=lam
    )
    np.testing.assert_allclose(advantages.T, buffer.advantages, atol=1e-5)
    np.testing.assert_allclose(returns.T, buffer.returns, atol=1e-5)
