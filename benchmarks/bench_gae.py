"""GAE in one scan against the loop over time, and against Stable-Baselines3's RolloutBuffer, at [64, 1024].

python benchmarks/bench_gae.py
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor

from benchmarks.record import Row, compare, write
from rl_core.advantages import gae

NUM_ENVS, NUM_STEPS = 64, 1024
GAMMA, LAM = 0.99, 0.95


def gae_loop(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, ended: Tensor
) -> Tensor:
    """Advantages `[N, T]` as most code bases write them: one step of all environments at a time."""
    advantages, trace = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    going = 1.0 - ended.float()
    delta = rewards + GAMMA * next_values * ~terminated - values
    for t in reversed(range(rewards.shape[1])):
        trace = delta[:, t] + GAMMA * LAM * going[:, t] * trace
        advantages[:, t] = trace
    return advantages


def main() -> None:
    """Check that all three agree to 1e-5, then time them in turn on one thread."""
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, NUM_ENVS, NUM_STEPS, generator=rng)
    last_values = torch.randn(NUM_ENVS, 1, generator=rng)
    next_values = torch.cat([values[:, 1:], last_values], 1)
    ended = torch.rand(NUM_ENVS, NUM_STEPS, generator=rng) < 0.01
    steps = (rewards, values, next_values, ended, ended)

    box = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(NUM_STEPS, box, box, "cpu", LAM, GAMMA, NUM_ENVS)
    buffer.rewards, buffer.values = rewards.T.numpy().copy(), values.T.numpy().copy()
    buffer.episode_starts = np.roll(ended.T.numpy(), 1, axis=0).astype(np.float32)
    last_done = ended[:, -1].numpy()

    def ours() -> Tensor:
        return gae(*steps, gamma=GAMMA, lam=LAM)[0]

    def sb3() -> None:
        buffer.compute_returns_and_advantage(last_values, last_done)

    sb3()
    torch.testing.assert_close(ours(), gae_loop(*steps), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours(), torch.from_numpy(buffer.advantages).T, atol=1e-5, rtol=0)
    settings = {"shape": [NUM_ENVS, NUM_STEPS], "threads": 1, "dtype": "float32"}
    rows: list[Row] = [
        compare(
            "GAE [64, 1024]",
            ours,
            lambda: gae_loop(*steps),
            peer_name="loop over T",
            repeats=20,
            target=10,
            settings=settings,
        ),
        compare("GAE [64, 1024]", ours, sb3, peer_name="SB3 RolloutBuffer", repeats=20, settings=settings),
    ]
    write("gae", rows)


if __name__ == "__main__":
    main()
