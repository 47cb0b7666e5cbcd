"""The .npz file both libraries train from, and its sampler for ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from embodied_rl.data.types import Batch, Spec


def export_minari(dataset_id: str, file: Path) -> Path:
    """Write a Minari dataset as `observations [sum(T+1), D]`, `lengths [E]`, other arrays `[sum(T), ...]`."""
    import minari

    episodes = list(minari.load_dataset(dataset_id).iterate_episodes())
    np.savez(
        file,
        observations=np.concatenate([e.observations for e in episodes]).astype(np.float32),
        actions=np.concatenate([e.actions for e in episodes]).astype(np.float32),
        rewards=np.concatenate([e.rewards for e in episodes]).astype(np.float32),
        terminations=np.concatenate([e.terminations for e in episodes]),
        lengths=np.array([len(e.rewards) for e in episodes]),
    )
    return file


class Transitions:
    """Transitions of an exported file in memory, sampled uniformly; actions must lie in [-1, 1]."""

    def __init__(self, file: Path, *, gamma: float = 0.99, env_id: str = "Hopper-v5") -> None:
        data = np.load(file)
        steps = np.arange(len(data["rewards"]))
        row = torch.from_numpy(steps + np.repeat(np.arange(len(data["lengths"])), data["lengths"]))
        observations = torch.from_numpy(data["observations"])
        discount = gamma * (1.0 - data["terminations"].astype(np.float32))
        self.all = Batch(
            obs=observations[row],
            action=torch.from_numpy(data["actions"]),
            reward=torch.from_numpy(data["rewards"]),
            next_obs=observations[row + 1],
            discount=torch.from_numpy(discount),
        )
        bound = np.ones(data["actions"].shape[1], np.float32)
        self.spec = Spec(
            env_id=env_id,
            obs_keys=("observation",),
            obs_dims=(observations.shape[1],),
            action_low=-bound,
            action_high=bound,
        )

    def sample(self, generator: torch.Generator, batch_size: int) -> Batch:
        """Draw `batch_size` transitions with replacement."""
        rows = torch.randint(len(self.all.reward), (batch_size,), generator=generator)

        def pick(x: Tensor) -> Tensor:
            return x.index_select(0, rows)

        return self.all.map(pick)
