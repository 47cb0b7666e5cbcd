"""Automatic domain randomisation (OpenAI et al. 2019, arXiv:1910.07113, section 5 and table 15).

Every parameter i has a lambda_i, 0 at the calibrated value, drawn uniformly from [low_i, high_i], at first
both 0. With probability `boundary_probability` an episode puts one randomly chosen lambda on one of its two
boundaries; how it ended goes into that boundary's buffer. A full buffer is averaged and emptied: the boundary
moves outwards by `delta` where the mean is at least `high_performance`, inwards where it is at most
`low_performance`.

The progress of it all is the entropy of the distribution, mean over parameters of log(high_i - low_i), in
nats per dimension.

Departures: 1) episodes on a boundary are training data too, as in DeXtreme (arXiv:2210.13702), so that
comparisons at equal environment steps count every step. 2) A range never leaves the calibrated value, and
never what is physically possible. 3) An episode that began before its boundary last moved is not counted. So
the first verdict after a move leans towards success, because successful episodes end sooner: 0.62 in place of
0.60 with buffers of 20.

An episode's performance is its success, 0 or 1, and where a task knows no success its return.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from embodied_rl.eval.play import has_success
from embodied_rl.sim2real.distributions import Known, mapping, matches, number
from embodied_rl.sim2real.randomization import Draw
from rl_core.config import choice, require

_MAPS = ("exp", "linear", "above")
_LOW, _HIGH = 0, 1


@dataclass(kw_only=True, slots=True)
class Config:
    """The reference's values; its performances are successes per episode, of which its cube has up to 50.

    `parameters` maps names or patterns to `{exp: w}` (the nominal value times e^(w lambda)), `{linear: w}`
    (plus w lambda) or `{above: w}` (plus w (e^lambda - 1), from 0 upwards only: for noise and delays).
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    boundary_probability: float = 0.5
    delta: float = 0.02
    buffer: int = 240
    low_performance: float = 10.0
    high_performance: float = 20.0
    max_lambda: float = 4.0

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 < self.boundary_probability <= 1, "adr.boundary_probability", self.boundary_probability,
                "in (0, 1]")  # fmt: skip
        require(self.buffer >= 1, "adr.buffer", self.buffer, "at least 1")
        for name in ("delta", "max_lambda"):
            require(0 < getattr(self, name) < math.inf, f"adr.{name}", getattr(self, name), "finite and > 0")
        require(self.low_performance < self.high_performance, "adr.low_performance", self.low_performance,
                f"less than adr.high_performance={self.high_performance:g}")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Dimension:
    """How one parameter follows from its lambda, and how far that may go."""

    name: str
    kind: str  # one of _MAPS
    scale: float
    nominal: float
    low: float
    high: float

    def value(self, lam: float) -> float:
        # Clipped, because what rounding adds at the very ends would be out of bounds.
        return min(max(self._free(lam), self.low), self.high)

    def _free(self, lam: float) -> float:
        if self.kind == "exp":
            return self.nominal * math.exp(self.scale * lam)
        if self.kind == "linear":
            return self.nominal + self.scale * lam
        return self.nominal + self.scale * math.expm1(lam)

    def inverse(self, value: float) -> float:
        if self.kind == "exp":
            ratio = value / self.nominal
            return math.log(ratio) / self.scale if ratio > 0 else -math.inf
        if self.kind == "linear":
            return (value - self.nominal) / self.scale
        return math.log1p((value - self.nominal) / self.scale)

    def ends(self, most: float) -> tuple[float, float]:
        """Least and greatest lambda: `most` either way, within what is physically possible."""
        low = max(self.low, self.nominal) if self.kind == "above" else self.low
        reached = sorted(
            math.copysign(math.inf, v) if math.isinf(v) else self.inverse(v) for v in (low, self.high)
        )
        return max(-most, reached[0]), min(most, reached[1])


class Adr:
    """The distribution and what moves it; a `Sampler`, and state of a checkpoint."""

    def __init__(self, cfg: Config, table: Mapping[str, Known]) -> None:
        """Raise ValueError for an unknown parameter (with the nearest) or map, and without any parameter."""
        self.cfg = cfg
        found: dict[str, _Dimension] = {}
        for pattern, spec in cfg.parameters.items():
            for name in matches(pattern, table, "adr.parameters"):
                found[name] = _dimension(name, spec, table[name])
        require(bool(found), "adr.parameters", dict(cfg.parameters), "at least one parameter")
        self._dims = tuple(found.values())
        self.names = tuple(found)
        self.bounds = np.zeros((len(found), 2))  # [P, 2] lambdas
        # Boundaries that can move: those at the calibrated end of a one-sided parameter cannot.
        self._ends = [dim.ends(cfg.max_lambda) for dim in self._dims]
        self._movable = [
            (i, side) for i, ends in enumerate(self._ends) for side in (_LOW, _HIGH) if ends[side] != 0.0
        ]
        self._buffers: dict[tuple[int, int], list[float]] = {place: [] for place in self._movable}
        self.episodes = 0
        self.history: list[list[Any]] = []  # [episodes, entropy, [[low, high] of each parameter]]
        self._note()

    @property
    def per_step(self) -> bool:
        """Nothing changes within an episode."""
        return False

    def episode(self, rng: np.random.Generator) -> Draw:
        """Draw all lambdas; maybe put one on a boundary."""
        lam = rng.uniform(self.bounds[:, _LOW], self.bounds[:, _HIGH])
        at, which = rng.random(), int(rng.integers(len(self._movable)))
        boundary = self._movable[which] if at < self.cfg.boundary_probability else None
        if boundary:
            lam[boundary[0]] = self.bounds[boundary]
        values = {d.name: d.value(float(x)) for d, x in zip(self._dims, lam, strict=True)}
        return Draw(values=values, latent=lam, boundary=boundary)

    def step(self, draw: Draw, rng: np.random.Generator, seconds: float) -> dict[str, float]:
        """Nothing changes within an episode."""
        return {}

    def finished(self, draw: Draw, performance: float) -> None:
        """Take note of an episode; move its boundary once enough have been seen there."""
        self.episodes += 1
        place = draw.boundary
        if place is None or draw.latent[place[0]] != self.bounds[place]:
            return
        buffer = self._buffers[place]
        buffer.append(float(performance))
        if len(buffer) < self.cfg.buffer:
            return
        mean = sum(buffer) / len(buffer)
        buffer.clear()
        outwards = (mean >= self.cfg.high_performance) - (mean <= self.cfg.low_performance)
        self._move(place, outwards)

    def _move(self, place: tuple[int, int], outwards: int) -> None:
        i, side = place
        # Rounded, so that steps out and back meet again.
        moved = round(float(self.bounds[place]) + (-1, 1)[side] * outwards * self.cfg.delta, 9)
        ends = (self._ends[i][_LOW], 0.0) if side == _LOW else (0.0, self._ends[i][_HIGH])
        new = min(max(moved, ends[0]), ends[1])
        if new != self.bounds[place]:
            self.bounds[place] = new
            self._note()

    def _note(self) -> None:
        self.history.append([self.episodes, self.entropy(), self.ranges().tolist()])

    def entropy(self) -> float:
        """Nats per dimension; a range narrower than `delta`, as all are at first, counts as that wide."""
        width = np.maximum(self.bounds[:, _HIGH] - self.bounds[:, _LOW], self.cfg.delta)
        return float(np.log(width).mean())

    def ranges(self) -> np.ndarray:
        """Present range of each parameter `[P, 2]`, in its unit."""
        return np.array([
            sorted(d.value(float(lam)) for lam in row)
            for d, row in zip(self._dims, self.bounds, strict=True)
        ])  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """What a training curve shows."""
        widened = float((self.bounds[:, _HIGH] > self.bounds[:, _LOW]).mean())
        return {"adr_entropy": self.entropy(), "adr_widened": widened}

    def state_dict(self) -> dict[str, Any]:
        """Everything that moves; plain JSON values."""
        return {
            "names": list(self.names), "bounds": self.bounds.tolist(), "episodes": self.episodes,
            "buffers": [list(self._buffers[place]) for place in self._movable],
            "history": [list(row) for row in self.history],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; raises ValueError for that of other parameters."""
        require(tuple(state["names"]) == self.names, "adr.parameters", list(self.names),
                f"those of the checkpoint, {state['names']}")  # fmt: skip
        self.bounds[:] = state["bounds"]
        self.episodes = int(state["episodes"])
        self._buffers = dict(zip(self._movable, [list(row) for row in state["buffers"]], strict=True))
        self.history = [list(row) for row in state["history"]]


def _dimension(name: str, spec: Mapping[str, Any], known: Known) -> _Dimension:
    field_ = f"adr.parameters.{name}"
    spec = mapping(field_, spec, "{exp: 1.0}")
    require(len(spec) == 1, field_, dict(spec), f"one of {{{'}, {'.join(f'{m}: scale' for m in _MAPS)}}}")
    ((kind, scale),) = spec.items()
    choice(f"map of {field_}", str(kind), _MAPS)
    scale = number(f"{field_}.{kind}", scale)
    require(scale > 0, f"{field_}.{kind}", scale, "finite and > 0")
    require(kind != "exp" or known.nominal != 0, f"{field_}.exp", scale,
            "another map: the nominal value is 0")  # fmt: skip
    return _Dimension(
        name=name, kind=kind, scale=scale, nominal=known.nominal, low=known.low, high=known.high
    )


class Curriculum(VectorWrapper):
    """A vector environment that carries its `Adr` along, so that checkpoints of a run hold its state.

    Raises ValueError where an episode's performance is its success and no success reaches the threshold.
    """

    def __init__(self, env: VectorEnv, adr: Adr) -> None:
        super().__init__(env)
        require(adr.cfg.high_performance <= 1 or not has_success(env), "adr.high_performance",
                adr.cfg.high_performance, "at most 1: performance is a rate of success here")  # fmt: skip
        self.adr = adr

    def state_dict(self) -> dict[str, Any]:
        """State of the distribution."""
        return self.adr.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.adr.load_state_dict(state)
