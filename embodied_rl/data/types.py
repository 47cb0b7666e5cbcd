"""The two records that cross every boundary of the robot half: a batch, and the shape of a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor


@dataclass(kw_only=True, slots=True)
class Batch:
    """Transitions, `B` rows, ready for a temporal-difference update.

    `reward` is the discounted sum over the n steps of an n-step transition. `discount` is `gamma**n` where
    the successor `next_obs` bootstraps and 0 where the episode terminated on the way: the target of every
    algorithm is `reward + discount * V(next_obs)`, and a truncation never looks like a termination.
    """

    obs: Tensor  # [B, D] float32
    action: Tensor  # [B, A] float32 in [-1, 1]
    reward: Tensor  # [B] float32
    next_obs: Tensor  # [B, D] float32
    discount: Tensor  # [B] float32

    def map(self, fn: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `fn` to every tensor, for instance to move the batch to a device."""
        return Batch(**{f.name: fn(getattr(self, f.name)) for f in dataclasses.fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What a policy sees and does: observation fields in order, and the action box in environment units."""

    env_id: str
    obs_keys: tuple[str, ...]
    obs_dims: tuple[int, ...]
    action_low: np.ndarray  # [A]
    action_high: np.ndarray  # [A]
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # makes the environment again

    @property
    def obs_dim(self) -> int:
        """Length of the flat observation, the sum over the fields."""
        return sum(self.obs_dims)

    @property
    def action_dim(self) -> int:
        """Length of the action vector."""
        return len(self.action_low)

    @property
    def _half_range(self) -> np.ndarray:
        return np.asarray(0.5 * (self.action_high - self.action_low))

    def flatten(self, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Concatenate the observation fields `[N, d]` in the order of `obs_keys` to `[N, D]` float32."""
        missing = [key for key in self.obs_keys if key not in obs]
        if missing:
            raise ValueError(f"obs: fields {missing} are missing; the policy reads {list(self.obs_keys)}")
        parts = [np.asarray(obs[key], np.float32).reshape(len(obs[key]), -1) for key in self.obs_keys]
        return np.concatenate(parts, axis=1)

    def to_env_action(self, action: np.ndarray) -> np.ndarray:
        """Map `[N, A]` from [-1, 1] to environment units."""
        centre = 0.5 * (self.action_high + self.action_low)
        return np.asarray(centre + action * self._half_range)

    def from_env_action(self, action: np.ndarray) -> np.ndarray:
        """Map `[N, A]` from environment units to [-1, 1], without clipping; inverts `to_env_action`."""
        centre = 0.5 * (self.action_high + self.action_low)
        return np.asarray((action - centre) / self._half_range)

    def check(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Raise a ValueError that names the first field in which an environment differs from this spec.

        Observation fields that the environment has beyond ours do not matter: the policy does not read them.
        """
        other = Spec.from_spaces(observation_space, action_space, self.env_id)
        leaves = box_leaves(observation_space)
        theirs = {path or "observation": int(np.prod(box.shape)) for path, box in leaves}
        for key, size in zip(self.obs_keys, self.obs_dims, strict=True):
            if theirs.get(key) != size:
                raise ValueError(
                    f"observation field {key!r}: the data has size {size}, "
                    f"the environment {self.env_id} has {theirs.get(key, 'no such field')}"
                )
        if self.action_dim != other.action_dim:
            raise ValueError(
                f"action: the data has shape ({self.action_dim},), "
                f"the environment {self.env_id} has ({other.action_dim},)"
            )
        if not (
            np.allclose(self.action_low, other.action_low)
            and np.allclose(self.action_high, other.action_high)
        ):
            raise ValueError(
                f"action bounds: the data has [{self.action_low}, {self.action_high}], "
                f"the environment {self.env_id} has [{other.action_low}, {other.action_high}]"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        return {
            "env_id": self.env_id,
            "obs_keys": list(self.obs_keys),
            "obs_dims": list(self.obs_dims),
            "action_low": self.action_low.tolist(),
            "action_high": self.action_high.tolist(),
            "env_kwargs": dict(self.env_kwargs),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """Read what `to_json` wrote."""
        return cls(
            env_id=data["env_id"],
            obs_keys=tuple(data["obs_keys"]),
            obs_dims=tuple(data["obs_dims"]),
            action_low=np.asarray(data["action_low"], np.float32),
            action_high=np.asarray(data["action_high"], np.float32),
            env_kwargs=data["env_kwargs"],
        )

    @classmethod
    def from_spaces(
        cls,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        env_id: str,
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> Spec:
        """Read the layout from Gymnasium spaces of one environment.

        A Box is the one field `observation`; of a Dict every Box field but `achieved_goal` is used, nested
        ones as "a/b", in sorted order, so a goal-conditioned task becomes (desired_goal, observation).
        """
        if not isinstance(action_space, gym.spaces.Box):
            raise ValueError(f"action space {action_space}: only continuous (Box) actions are supported")
        if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
            raise ValueError(f"action space {action_space}: both bounds must be finite")
        if not (action_space.low < action_space.high).all():
            raise ValueError(f"action space {action_space}: low must be below high in every dimension")
        fields = box_fields(observation_space)
        return cls(
            env_id=env_id,
            obs_keys=tuple(fields),
            obs_dims=tuple(int(np.prod(space.shape)) for space in fields.values()),
            action_low=np.asarray(action_space.low, np.float32),
            action_high=np.asarray(action_space.high, np.float32),
            env_kwargs=env_kwargs or {},
        )


def box_fields(observation_space: gym.Space[Any]) -> Mapping[str, gym.spaces.Box]:
    """The fields a state policy reads: `{"observation": box}`, or a Dict's Boxes but `achieved_goal`.

    Fields of nested Dicts are called "a/b", as in `Episodes.observations`.
    """
    if isinstance(observation_space, gym.spaces.Box):
        return {"observation": observation_space}
    fields = dict(sorted(box_leaves(observation_space)))
    fields = {path: box for path, box in fields.items() if path.split("/")[0] != "achieved_goal"}
    if not fields:
        raise ValueError(f"observation space {observation_space}: expected a Box or a Dict of Box fields")
    return fields


def box_leaves(space: gym.Space[Any], path: str = "") -> Iterator[tuple[str, gym.spaces.Box]]:
    """Every Box in a nested Dict with its path below `path`; other fields (text, say) are left out."""
    if isinstance(space, gym.spaces.Box):
        yield path, space
    elif isinstance(space, gym.spaces.Dict):
        for key, inner in space.spaces.items():
            yield from box_leaves(inner, f"{path}/{key}" if path else key)


def as_fields(obs: Any) -> dict[str, np.ndarray]:
    """Name the fields of a batched observation as policies read them; `box_fields` for values."""
    if not isinstance(obs, Mapping):
        return {"observation": obs}
    fields: dict[str, np.ndarray] = {}
    for key, value in obs.items():
        if isinstance(value, Mapping):
            fields |= {f"{key}/{path}": part for path, part in as_fields(value).items()}
        else:
            fields[key] = value
    return fields
