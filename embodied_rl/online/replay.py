"""Transitions of the online run, resident on the device, alone or mixed with those of a dataset."""

from __future__ import annotations

from typing import Any

import torch

from embodied_rl.data.types import Batch
from embodied_rl.offline.interfaces import Data
from embodied_rl.online.rollout import Steps, World
from rl_core.config import require


class Replay:
    """The last `capacity` transitions; its state (what is filled of it) goes into the checkpoint.

    The oldest rollout goes first; one that is forgotten in part goes environment by environment. Raises
    ValueError for less room than one rollout needs.
    """

    def __init__(self, world: World, capacity: int, device: torch.device, *, gamma: float) -> None:
        # Rows that one call of `add` gives the same place would be written in no order that is defined.
        require(
            capacity >= world.num_steps,
            "algo.capacity",
            capacity,
            f"at least {world.num_steps}, the steps of a rollout (rollout.num_envs x rollout.horizon)",
        )
        spec = world.spec
        self.spec, self._gamma, self._device = spec, gamma, device
        self._capacity, self._added = capacity, 0
        self._rows = Batch(
            obs=torch.zeros(capacity, spec.obs_dim, device=device),
            action=torch.zeros(capacity, spec.action_dim, device=device),
            reward=torch.zeros(capacity, device=device),
            next_obs=torch.zeros(capacity, spec.obs_dim, device=device),
            discount=torch.zeros(capacity, device=device),
        )

    def __len__(self) -> int:
        return min(self._added, self._capacity)

    def add(self, steps: Steps) -> None:
        """Take in a rollout: the successor of a truncated step is the observation its episode ended in."""
        next_obs = torch.cat([steps.obs[:, 1:], steps.next_obs[:, None]], dim=1)
        next_obs[steps.cut[:, 0], steps.cut[:, 1]] = steps.cut_obs
        new = Batch(
            obs=steps.obs,
            action=steps.action.clamp(-1.0, 1.0),
            reward=steps.reward,
            next_obs=next_obs,
            discount=self._gamma * (~steps.terminated).float(),
        ).map(lambda x: x.flatten(0, 1))
        at = (self._added + torch.arange(len(new.reward), device=self._device)) % self._capacity
        for name in Batch.__slots__:
            getattr(self._rows, name)[at] = getattr(new, name)
        self._added += len(new.reward)

    def sample(self, generator: torch.Generator, batch_size: int) -> Batch:
        """Draw transitions uniformly with replacement."""
        index = torch.randint(len(self), (batch_size,), generator=generator, device=self._device)
        return self._rows.map(lambda x: x[index])

    def state_dict(self) -> dict[str, Any]:
        """The transitions that are there, and how many were added in all."""
        rows = {name: getattr(self._rows, name)[: len(self)] for name in Batch.__slots__}
        return {"added": self._added, "rows": rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._added = state_dict["added"]
        for name, rows in state_dict["rows"].items():
            getattr(self._rows, name)[: len(self)] = rows


class Mixed:
    """Batches of which `offline_fraction` comes from a dataset and the rest from the replay.

    Ball et al. 2023 (RLPD, arXiv:2302.02948) draw half of each; 0 forgets the dataset.
    """

    def __init__(self, offline: Data, replay: Replay, offline_fraction: float) -> None:
        self.spec, self._offline, self._replay = replay.spec, offline, replay
        self._fraction = offline_fraction

    def sample(self, generator: torch.Generator, batch_size: int) -> Batch:
        """Draw from both, the dataset's rows first."""
        old = round(self._fraction * batch_size)
        parts = [self._offline.sample(generator, old)] if old else []
        parts += [self._replay.sample(generator, batch_size - old)] if old < batch_size else []
        return Batch(**{name: torch.cat([getattr(p, name) for p in parts]) for name in Batch.__slots__})
