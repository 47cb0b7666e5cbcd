"""Short pieces of rollouts that a teacher can compare, and the pool that questions are drawn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embodied_rl.online.rollout import Steps
from rl_core.config import require


@dataclass(kw_only=True, slots=True)
class Segments:
    """Pieces of `L` steps, none of them across the end of an episode; `[S]` of them, or `[Q, 2]` in pairs."""

    obs: Tensor  # [S, L, D] all that the policy and the critic observe
    action: Tensor  # [S, L, A] as executed, in [-1, 1]
    reward: Tensor  # [S, L] what the environment paid: only a scripted teacher and the figures look at it
    place: Tensor  # [S, 3] int64 iteration, environment and first step of the rollout, which name a segment

    def __len__(self) -> int:
        return len(self.reward)

    def __getitem__(self, index: Tensor | slice) -> Segments:
        """The segments at an index of any shape; `[Q, 2]` makes pairs."""
        return self.map(lambda x: x[index])

    def map(self, fn: Callable[[Tensor], Tensor]) -> Segments:
        """Apply `fn` to every tensor."""
        return Segments(**{name: fn(x) for name, x in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def returns(self) -> Tensor:
        """Undiscounted sums of the environment's rewards, `[S]` or `[Q, 2]`."""
        return self.reward.sum(-1)

    def names(self) -> list[str]:
        """One word for each of `[S]` segments: the name of its clip, and of the item in a comparison."""
        return [segment_name(*place) for place in self.place.tolist()]


def segment_name(iteration: int, env: int, start: int) -> str:
    """What the segment of this place is called."""
    return f"{iteration:06d}-{env:03d}-{start:04d}"


def join(parts: list[Segments]) -> Segments:
    """All segments of several lots, one after another."""
    names = [field.name for field in dataclasses.fields(Segments)]
    return Segments(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def starts(ended: Tensor, length: int) -> Tensor:
    """Where a whole segment of `length` steps begins in `ended [N, T]`: `[K, 2]` rows and steps.

    A segment may end with its episode, but not go on into the next.
    """
    num, horizon = ended.shape
    _check_length(length, horizon)
    before = torch.zeros(num, horizon + 1, dtype=torch.int64, device=ended.device)
    before[:, 1:] = ended.cumsum(1)  # episodes that ended before step t
    last = horizon - length + 1
    whole = before[:, length - 1 : length - 1 + last] == before[:, :last]
    return whole.nonzero()


def disjoint(
    count: int, length: int, *, num_envs: int, horizon: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random places of `count` segments of a rollout, fewer where no more fit: `[K, 2]` rows and steps.

    No two share a step, and the environments get equally many, or one more.
    """
    _check_length(length, horizon)
    each = np.full(num_envs, count // num_envs)
    each[rng.permutation(num_envs)[: count % num_envs]] += 1
    places = []
    for env, num in enumerate(np.minimum(each, horizon // length)):
        gaps = np.sort(rng.integers(horizon - num * length + 1, size=num))
        places += [(env, start) for start in gaps + length * np.arange(num)]
    return np.array(places, np.int64).reshape(-1, 2)


def _check_length(length: int, horizon: int) -> None:
    require(length <= horizon, "algo.feedback.segment", length, f"at most rollout.horizon={horizon}")


def cut(steps: Steps, places: Tensor, length: int, iteration: int) -> Segments:
    """The segments of a rollout that begin at `places [S, 2]`, rows and steps; copied out of it."""
    env, start = places.unbind(1)
    time = start[:, None] + torch.arange(length, device=places.device)
    row = env[:, None]
    return Segments(
        obs=steps.obs[row, time],
        action=steps.action[row, time].clamp(-1.0, 1.0),
        reward=steps.reward[row, time],
        place=torch.cat([torch.full_like(row, iteration), places], dim=1),
    )


def sample(steps: Steps, count: int, length: int, iteration: int, generator: torch.Generator) -> Segments:
    """`count` segments of a rollout at random places; fewer, maybe none, where there are not so many."""
    places = starts(steps.ended, length)
    chosen = torch.randperm(len(places), generator=generator, device=places.device)[:count]
    return cut(steps, places[chosen], length, iteration)


class Pool:
    """The last `capacity` segments; its state goes into the checkpoint."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._segments: Segments | None = None

    def __len__(self) -> int:
        return 0 if self._segments is None else len(self._segments)

    @property
    def segments(self) -> Segments:
        """All of them, oldest first."""
        assert self._segments is not None, "add() first"
        return self._segments

    def add(self, new: Segments) -> None:
        """Take in segments; the oldest go."""
        both = new if self._segments is None else join([self._segments, new])
        self._segments = both[slice(max(0, len(both) - self._capacity), None)]

    def pairs(self, count: int, generator: torch.Generator, known: Tensor | None = None) -> Tensor:
        """At most `count` different pairs of different segments, `[K, 2]` int64, in random order.

        `known [Q, 2, 3]` are the places of pairs that are not to be drawn.
        """
        device = generator.device
        every = torch.triu_indices(len(self), len(self), offset=1, device=device)
        order = torch.randperm(every.shape[1], generator=generator, device=device)
        if known is None or not len(known):
            return every[:, order[:count]].T
        drawn = every[:, order[: count + len(known)]].T  # no more than the known ones can fall out
        return drawn[self._new(drawn, known)][:count]

    def _new(self, pairs: Tensor, known: Tensor) -> Tensor:
        """Which of `pairs [K, 2]` are none of the `known [Q, 2, 3]`, in either order: `[K]` bool."""
        places = [tuple(place) for place in self.segments.place.tolist()]
        old = {frozenset(tuple(place) for place in pair) for pair in known.tolist()}
        new = [frozenset((places[i], places[j])) not in old for i, j in pairs.tolist()]
        return torch.tensor(new, dtype=torch.bool, device=pairs.device)

    def state_dict(self) -> dict[str, Any]:
        """The segments that are there."""
        return {"segments": None if self._segments is None else self._segments.tensors()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        found = state_dict["segments"]
        self._segments = None if found is None else Segments(**found)
