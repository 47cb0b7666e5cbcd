"""Windows of consecutive steps, for policies that see or predict more than one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied_rl.data.episodes import Episodes
from embodied_rl.data.rewards import returns_to_go
from embodied_rl.data.storage import RESIDENCY
from rl_core.config import choice, did_you_mean, require
from rl_core.progress import counting


@dataclass(kw_only=True, slots=True)
class Config:
    """What a window is."""

    length: int = 20
    gamma: float = 1.0  # of the return-to-go; 1 as in the decision transformer
    obs_keys: tuple[str, ...] = ()  # observation fields; empty: all
    residency: str = "device"  # device | memmap (larger than memory: windows are gathered from disk)

    def __post_init__(self) -> None:
        """Check ranges."""
        choice("residency", self.residency, RESIDENCY)
        require(self.length >= 1, "length", self.length, "at least 1")
        require(0.0 <= self.gamma <= 1.0, "gamma", self.gamma, "in [0, 1]")


@dataclass(kw_only=True, slots=True)
class Sequence:
    """`B` windows of `L` steps. After the end of the episode its last step is repeated with `mask` False."""

    obs: dict[str, Tensor]  # field -> [B, L, ...], as stored: images are uint8
    action: Tensor  # [B, L, A] float32 in [-1, 1]
    reward: Tensor  # [B, L] float32
    return_to_go: Tensor  # [B, L] float32
    mask: Tensor  # [B, L] bool
    timestep: Tensor  # [B, L] int64, steps since the episode began
    episode: Tensor  # [B] int64


class Sequences:
    """Draws windows from `episodes`; one may start at any step."""

    def __init__(self, episodes: Episodes, cfg: Config, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.spec = episodes.spec
        self._length = cfg.length
        known = list(episodes.observations)
        for key in cfg.obs_keys:
            if key not in known:
                raise ValueError(f"obs_keys: {key!r} is not among {known}{did_you_mean(key, known)}")
        stored = {key: episodes.observations[key] for key in cfg.obs_keys or known}
        stored["/action"] = episodes.actions
        self._stored: dict[str, np.ndarray] | dict[str, Tensor] = stored
        if cfg.residency == "device":
            self._stored = self._resident(stored)
        self._reward = self._to_device(np.array(episodes.rewards))
        self._return_to_go = self._to_device(returns_to_go(episodes, cfg.gamma))
        self._offsets = self._to_device(episodes.step_offsets)
        self._low = self._to_device(self.spec.action_low)
        self._half = self._to_device((self.spec.action_high - self.spec.action_low) / 2)

    def __len__(self) -> int:
        return len(self._reward)

    def sample(self, generator: torch.Generator, batch_size: int) -> Sequence:
        """Draw `batch_size` windows uniformly with replacement; `generator` lives on `self.device`."""
        return self.gather(torch.randint(len(self), (batch_size,), generator=generator, device=self.device))

    def gather(self, starts: Tensor) -> Sequence:
        """Return the windows that start at `starts` `[B]`, counted over the whole dataset."""
        episode = torch.searchsorted(self._offsets, starts, right=True) - 1
        steps = starts[:, None] + torch.arange(self._length, device=self.device)
        end = self._offsets[episode + 1][:, None]
        mask = steps < end
        steps = torch.minimum(steps, end - 1)
        rows = steps + episode[:, None]  # every earlier episode has one observation more than steps
        action = self._take("/action", steps).sub(self._low).div(self._half).sub(1.0).clamp(-1.0, 1.0)
        return Sequence(
            obs={key: self._take(key, rows) for key in self._stored if key != "/action"},
            action=action,
            reward=self._reward[steps],
            return_to_go=self._return_to_go[steps],
            mask=mask,
            timestep=steps - self._offsets[episode][:, None],
            episode=episode,
        )

    def _resident(self, stored: dict[str, np.ndarray]) -> dict[str, Tensor]:
        result = {}
        with counting("filling the device", len(stored)) as progress:
            for key, value in stored.items():
                result[key] = self._to_device(np.array(value))
                progress(len(result))
        return result

    def _take(self, key: str, index: Tensor) -> Tensor:
        value = self._stored[key]
        if isinstance(value, Tensor):
            return value[index]
        return self._to_device(value[index.cpu().numpy()])

    def _to_device(self, value: np.ndarray) -> Tensor:
        return torch.from_numpy(value).to(self.device)
