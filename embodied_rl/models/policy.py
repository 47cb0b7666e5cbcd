"""The policy every script shares: observations of the environment in, actions in its units out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embodied_rl.data.types import Spec
from embodied_rl.models.actors import ACTORS, Actor
from embodied_rl.models.memory import RecurrentActor
from rl_core.config import choice


class Policy(Protocol):
    """Acts in `N` environments at once."""

    def reset(self, batch: int) -> None:
        """Forget what was remembered of earlier episodes; `batch` episodes start."""

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = True) -> np.ndarray:
        """Return actions `[N, A]` in environment units for observation fields `[N, d]`."""
        ...


class Normalizer(nn.Module):
    """Shift and scale of observations, `(obs - mean) / std`, saved with the policy trained on them.

    With `clip` the result is kept within +-clip.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, clip: float | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())
        self.clip = clip

    @classmethod
    def identity(cls, obs_dim: int) -> Normalizer:
        """Leave observations as they are."""
        return cls(torch.zeros(obs_dim), torch.ones(obs_dim))

    def forward(self, obs: Tensor) -> Tensor:
        """Normalise `[..., D]`."""
        normal = (obs - self.mean) / self.std
        return normal if self.clip is None else normal.clamp(-self.clip, self.clip)


# The word in config.json.
_BY_CLASS_NAME = {actor.__name__: actor for actor in (*ACTORS.values(), RecurrentActor)}


class ActorPolicy:
    """A trained actor with its normaliser and the task it was trained for; satisfies `Policy`."""

    def __init__(self, actor: Actor, spec: Spec, normalizer: Normalizer, seed: int = 0) -> None:
        self.actor = actor
        self.spec = spec
        self.normalizer = normalizer
        self._device = normalizer.mean.device
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._state = torch.zeros(0, 0)

    def reset(self, batch: int) -> None:
        """Forget what a recurrent actor remembers; the others see the present observation only."""
        self._state = torch.zeros(batch, self.actor.state_dim, device=self._device)

    @torch.inference_mode()
    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = True) -> np.ndarray:
        """Return actions `[N, A]` in environment units."""
        flat = torch.as_tensor(self.spec.flatten(obs), device=self._device)
        action, self._state = self.actor.step(
            self.normalizer(flat), self._state, deterministic, self._generator
        )
        return self.spec.to_env_action(action.float().cpu().numpy())

    def save(self, directory: Path) -> None:
        """Write `config.json` (the task and what rebuilds the actor) and `model.safetensors`."""
        directory.mkdir(parents=True, exist_ok=True)
        config = {
            "spec": self.spec.to_json(),
            "actor": type(self.actor).__name__,
            "architecture": self.actor.architecture,
            "obs_clip": self.normalizer.clip,
        }
        (directory / "config.json").write_text(json.dumps(config, indent=2))
        parts = nn.ModuleDict({"actor": self.actor, "normalizer": self.normalizer})
        tensors = {name: value.cpu().contiguous() for name, value in parts.state_dict().items()}
        save_file(tensors, directory / "model.safetensors")

    @classmethod
    def load(cls, directory: Path, device: torch.device | str = "cpu", seed: int = 0) -> ActorPolicy:
        """Read what `save` wrote.

        Raises ValueError for a directory that holds no policy, or one of an unknown actor class.
        """
        file = directory / "config.json"
        if not file.is_file():
            raise ValueError(f"{directory}: holds no policy (no config.json)")
        config = json.loads(file.read_text())
        choice("actor", config["actor"], _BY_CLASS_NAME)
        spec = Spec.from_json(config["spec"])
        actor = _BY_CLASS_NAME[config["actor"]](**config["architecture"])
        normalizer = Normalizer.identity(spec.obs_dim)
        normalizer.clip = config.get("obs_clip")  # absent in policies of offline runs before there was one
        parts = nn.ModuleDict({"actor": actor, "normalizer": normalizer})
        parts.load_state_dict(load_file(directory / "model.safetensors"))
        parts.to(device)
        return cls(actor, spec, normalizer, seed)
