"""Transitions of a dataset, moved to the device once and sampled there."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from embodied_rl.data import rewards
from embodied_rl.data.episodes import Episodes
from embodied_rl.data.statistics import mean_std
from embodied_rl.data.storage import RESIDENCY, Rows, Transform
from embodied_rl.data.types import Batch, Spec
from embodied_rl.models.policy import Normalizer
from rl_core.config import choice, did_you_mean, require


@dataclass(kw_only=True, slots=True)
class Config:
    """Which dataset, and what a transition of it is."""

    id: str = MISSING  # namespace/name-v0, as Minari calls it
    root: str = ""  # folder of the datasets; empty: MINARI_DATASETS_PATH, else Minari's own
    download: bool = False  # fetch it with Minari when it is not on this machine
    cache_root: str = ""  # where the flat copy of the dataset goes; empty: beside it
    residency: str = "device"  # device | memmap (larger than memory: batches are gathered from disk)
    obs_keys: tuple[str, ...] = ()  # observation fields, nested ones as "a/b"; empty: all vectors
    normalize_obs: bool = False
    gamma: float = 0.99
    n_step: int = 1
    reward: str = "none"  # none | return_scale | antmaze_shift
    reward_scale: float = 1.0  # after the transform: reward * reward_scale + reward_bias
    reward_bias: float = 0.0
    action_clip: float = 1.0 - 1e-5  # a squashed policy gives the border of [-1, 1] no density (IQL)

    def __post_init__(self) -> None:
        """Check words and ranges."""
        choice("data.residency", self.residency, RESIDENCY)
        choice("data.reward", self.reward, rewards.TRANSFORMS)
        require(0.0 <= self.gamma <= 1.0, "data.gamma", self.gamma, "in [0, 1]")
        require(self.n_step >= 1, "data.n_step", self.n_step, "at least 1")
        for name in ("reward_scale", "reward_bias"):
            require(math.isfinite(getattr(self, name)), f"data.{name}", getattr(self, name), "finite")
        require(0.0 < self.action_clip <= 1.0, "data.action_clip", self.action_clip, "in (0, 1]")


class Transitions:
    """Draws batches of transitions from `episodes`.

    A step's successor is the observation row below, also after the last step, so nothing is stored twice: on
    the device lie `S + E` observations and, per step, the action and 16 bytes (row of the observation, number
    of steps to the successor, summed reward, discount).
    """

    def __init__(self, episodes: Episodes, cfg: Config, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.spec = select_fields(episodes, cfg.obs_keys)
        fields = [episodes.observations[key] for key in self.spec.obs_keys]
        self.normalizer = _fit_normalizer(fields, self.spec, cfg.normalize_obs).to(self.device)
        storage = RESIDENCY[cfg.residency]
        self._obs: Rows = storage(fields, _normalize_with(self.normalizer), self.device)
        self._actions: Rows = storage(
            [episodes.actions], _unit_actions(self.spec, cfg.action_clip, self.device), self.device
        )
        affine = rewards.affine(cfg.reward, episodes)
        reward = (episodes.rewards * affine.scale + affine.bias) * cfg.reward_scale + cfg.reward_bias
        steps = rewards.n_step(reward, episodes.terminations, episodes.lengths, cfg.n_step, cfg.gamma)
        self._reward = torch.from_numpy(steps.reward).to(self.device)
        self._discount = torch.from_numpy(steps.discount).to(self.device)
        self._row = torch.from_numpy(episodes.obs_rows().astype(np.int32)).to(self.device)
        self._num_steps = torch.from_numpy(steps.num_steps).to(self.device)

    def __len__(self) -> int:
        return len(self._reward)

    def sample(self, generator: torch.Generator, batch_size: int) -> Batch:
        """Draw `batch_size` transitions uniformly with replacement; `generator` lives on `self.device`."""
        return self.gather(torch.randint(len(self), (batch_size,), generator=generator, device=self.device))

    def gather(self, steps: Tensor) -> Batch:
        """Return the transitions that start at `steps` `[B]`, counted over the whole dataset."""
        row = self._row[steps]
        return Batch(
            obs=self._obs.take(row),
            action=self._actions.take(steps),
            reward=self._reward[steps],
            next_obs=self._obs.take(row + self._num_steps[steps]),
            discount=self._discount[steps],
        )


def select_fields(episodes: Episodes, keys: tuple[str, ...]) -> Spec:
    """The dataset's spec, restricted to the observation fields `keys` if any are given.

    Raises ValueError for a field that is not there, and for images, which are no part of a flat observation.
    """
    spec = episodes.spec
    if keys:
        for key in keys:
            if key not in episodes.observations:
                known = list(episodes.observations)
                raise ValueError(
                    f"data.obs_keys: {key!r} is not in {episodes.dataset_id}, which has {known}"
                    f"{did_you_mean(key, known)}"
                )
        dims = tuple(int(np.prod(episodes.observations[key].shape[1:])) for key in keys)
        spec = dataclasses.replace(spec, obs_keys=tuple(keys), obs_dims=dims)
    images = [key for key in spec.obs_keys if episodes.observations[key].dtype == np.uint8]
    if images:
        others = [key for key in episodes.observations if key not in images]
        raise ValueError(
            f"observation fields {images} of {episodes.dataset_id} are images, and transitions hold vectors; "
            f"choose others with data.obs_keys={others}, or read images through sequences.Sequences"
        )
    return spec


def _fit_normalizer(fields: list[np.ndarray], spec: Spec, normalize: bool) -> Normalizer:
    if not normalize:
        return Normalizer.identity(spec.obs_dim)
    mean, std = zip(*(mean_std(field) for field in fields), strict=True)
    return Normalizer(torch.from_numpy(np.concatenate(mean)), torch.from_numpy(np.concatenate(std)))


def _normalize_with(normalizer: Normalizer) -> Transform:
    return lambda rows: rows.sub_(normalizer.mean).div_(normalizer.std)


def _unit_actions(spec: Spec, clip: float, device: torch.device) -> Transform:
    """From environment units to [-1, 1], clipped: recorded actions may lie outside the action space."""
    low = torch.from_numpy(spec.action_low).to(device)
    half = torch.from_numpy((spec.action_high - spec.action_low) / 2).to(device)
    return lambda rows: rows.sub_(low).div_(half).sub_(1.0).clamp_(-clip, clip)
