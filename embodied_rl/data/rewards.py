"""Reward transforms of the offline literature, n-step sums and returns-to-go over flat episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from embodied_rl.data.episodes import Episodes
from rl_core.advantages import discounted_returns

TRANSFORMS = ("none", "return_scale", "antmaze_shift")
_CHUNK_STEPS = 2**18


@dataclass(frozen=True, kw_only=True, slots=True)
class Affine:
    """`reward * scale + bias`, which is what every transform comes to."""

    scale: float = 1.0
    bias: float = 0.0


def affine(transform: str, episodes: Episodes) -> Affine:
    """The transform of that name, fitted to a dataset.

    `return_scale` makes the gap between the best and the worst return 1000 (IQL on locomotion, Kostrikov et
    al. 2021); `antmaze_shift` subtracts 1, so that a sparse success reward becomes a cost per step.
    """
    if transform == "return_scale":
        gap = float(episodes.returns.max() - episodes.returns.min())
        if gap == 0.0:
            raise ValueError(
                f"data.reward='return_scale': all episodes of {episodes.dataset_id} have the same "
                f"return, nothing to scale by; use 'none' with reward_scale"
            )
        return Affine(scale=1000.0 / gap)
    return Affine(bias=-1.0) if transform == "antmaze_shift" else Affine()


@dataclass(frozen=True, kw_only=True, slots=True)
class NStep:
    """n-step transitions of `S` steps."""

    reward: np.ndarray  # [S] float32, discounted sum
    discount: np.ndarray  # [S] float32, gamma**k, 0 where the episode terminated within the k steps
    num_steps: np.ndarray  # [S] int32, k: n, or fewer where the episode ends


def n_step(reward: np.ndarray, terminated: np.ndarray, lengths: np.ndarray, n: int, gamma: float) -> NStep:
    """Sum rewards `[S]` over the next `n` steps, stopping at a termination and at the end of the episode.

    n=1 returns the rewards and `gamma * (1 - terminated)`. A truncated end keeps its discount: its true final
    observation is in the dataset.
    """
    size = len(reward)
    ends = np.repeat(np.cumsum(lengths).astype(np.int32), lengths)  # [S], first step of the next episode
    result = NStep(
        reward=np.empty(size, np.float32),
        discount=np.empty(size, np.float32),
        num_steps=np.empty(size, np.int32),
    )
    offsets = np.arange(n)
    powers = gamma ** np.arange(n + 1, dtype=np.float64)
    chunk = max(1, _CHUNK_STEPS // n)
    for start in range(0, size, chunk):
        part = slice(start, min(start + chunk, size))
        steps = np.arange(part.start, part.stop)[:, None] + offsets  # [C, n]
        inside = steps < ends[part, None]
        steps = np.minimum(steps, ends[part, None] - 1)
        stops = terminated[steps] & inside
        # A step counts if it is in the episode and no earlier step of the window terminated.
        counts = inside & (np.cumsum(stops, axis=1) - stops == 0)
        result.reward[part] = (reward[steps] * counts * powers[:-1]).sum(axis=1)
        result.num_steps[part] = counts.sum(axis=1)
        result.discount[part] = powers[result.num_steps[part]] * ~(stops & counts).any(axis=1)
    return result


def returns_to_go(episodes: Episodes, gamma: float = 1.0) -> np.ndarray:
    """Discounted sum of the rewards from each step to the end of its episode, `[S]` float32."""
    ended = np.zeros(episodes.num_steps, bool)
    ended[episodes.step_offsets[1:] - 1] = True
    # In float64: over flat episodes the scan's partial sums reach across thousands of steps.
    rewards = torch.from_numpy(episodes.rewards.astype(np.float64))
    return discounted_returns(rewards, torch.from_numpy(ended), gamma=gamma).numpy().astype(np.float32)
