"""Episodes in flat arrays: what a dataset is once it has been read, whichever file format it came from."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_rl.data.types import Spec

CHUNK_BYTES = 32 * 2**20  # how much of an array passes through memory at a time


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """`E` episodes of `S` steps in all, one after the other; normally memory-mapped and read-only.

    An episode of `T` steps owns `T` rows of every per-step array and `T + 1` rows of every observation field:
    the observation after its last action is there, so no separate array of next observations is needed.
    """

    dataset_id: str
    observations: dict[str, np.ndarray]  # field -> [S + E, ...]; nested fields are called "a/b"
    actions: np.ndarray  # [S, A] float32, in environment units
    rewards: np.ndarray  # [S] float32
    terminations: np.ndarray  # [S] bool
    truncations: np.ndarray  # [S] bool
    lengths: np.ndarray  # [E] int64, steps
    observation_space: gym.Space[Any]
    action_space: gym.spaces.Box
    metadata: dict[str, Any]  # of the dataset, as Minari's metadata.json holds it

    @property
    def num_episodes(self) -> int:
        """How many episodes there are, `E`."""
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        """How many transitions there are, `S`."""
        return len(self.rewards)

    @cached_property
    def step_offsets(self) -> np.ndarray:
        """First step of each episode, and the end: `[E + 1]` int64."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def obs_offsets(self) -> np.ndarray:
        """First observation row of each episode, and the end: `[E + 1]` int64."""
        return self.step_offsets + np.arange(self.num_episodes + 1)

    @cached_property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each episode, `[E]` float64."""
        return np.add.reduceat(self.rewards, self.step_offsets[:-1], dtype=np.float64)

    @property
    def env_id(self) -> str:
        """Id of the environment that policies are evaluated in; empty when the dataset names none."""
        return self._env_spec.get("id", "")

    @property
    def spec(self) -> Spec:
        """The task as a policy sees it; `env_kwargs` make the dataset's evaluation environment again."""
        kwargs = {
            key: value for key, value in self._env_spec.get("kwargs", {}).items() if key != "render_mode"
        }
        limit = self._env_spec.get("max_episode_steps")
        if limit is not None:
            kwargs["max_episode_steps"] = limit
        return Spec.from_spaces(self.observation_space, self.action_space, self.env_id, kwargs)

    @cached_property
    def _env_spec(self) -> dict[str, Any]:
        """Gymnasium's description of the environment: the one for evaluation, else that of the recording."""
        text = self.metadata.get("eval_env_spec") or self.metadata.get("env_spec")
        return json.loads(text) if text else {}

    def obs_rows(self) -> np.ndarray:
        """Row of the observation before each step, `[S]` int32; the next row is the one after it."""
        rows = np.repeat(np.arange(self.num_episodes, dtype=np.int32), self.lengths)
        rows += np.arange(self.num_steps, dtype=np.int32)
        return rows

    def episode(self, index: int) -> dict[str, Any]:
        """Episode `index` as views, under the names of Minari's EpisodeData."""
        steps = slice(self.step_offsets[index], self.step_offsets[index + 1])
        rows = slice(self.obs_offsets[index], self.obs_offsets[index + 1])
        return {
            "observations": {key: value[rows] for key, value in self.observations.items()},
            "actions": self.actions[steps],
            "rewards": self.rewards[steps],
            "terminations": self.terminations[steps],
            "truncations": self.truncations[steps],
        }


def chunks(array: np.ndarray, num_bytes: int = CHUNK_BYTES) -> Iterator[tuple[slice, np.ndarray]]:
    """Walk over the rows of `array` in pieces of about `num_bytes`.

    A memory-mapped array is mapped anew for each piece: pages of a mapping that lives on count as memory of
    the process, and reading through a dataset once would hold all of it.
    """
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    size = max(1, num_bytes // row_bytes)
    for start in range(0, len(array), size):
        rows = slice(start, min(start + size, len(array)))
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
            shape = (rows.stop - rows.start, *array.shape[1:])
            offset = array.offset + start * row_bytes
            yield rows, np.memmap(array.filename, array.dtype, "r", offset, shape)
        else:
            yield rows, array[rows]
