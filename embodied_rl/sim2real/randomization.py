"""Domain randomisation: parameters of a simulation drawn anew for every episode, or in every step.

`Randomization` turns a configuration into draws, `DeskRandomizer` gives each of a vector environment's desks
its own. What an episode draws is a function of its seed and its number since that seed alone, so it depends
neither on the number of simulations nor on the number of threads; `info["parameters"]` and the metadata of
recorded episodes hold it.

Sources of the presets in `configs/randomization/`: Andrychowicz et al. 2018 (Dactyl, arXiv:1808.00177).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embodied_rl.sim2real.distributions import Known, Rule, correlation_factor, rules
from envs.desk.episodes import Episodes, Outcome
from envs.desk.scene import CONTROL_STEPS, PHYSICS_STEP
from rl_core.config import require

_STREAM = 0x5EED  # apart from the generators that draw the episodes themselves
_KEPT = 20  # descriptions of unstable draws


@dataclass(kw_only=True, slots=True)
class Config:
    """What is drawn; see `embodied_rl.sim2real.distributions` for the form of a rule."""

    parameters: dict[str, Any] = field(default_factory=dict)  # name or pattern: rule
    correlations: dict[str, Any] = field(default_factory=dict)  # name: {name: between -1 and 1}
    redraws: int = 20  # unstable draws in a row after which the distribution is given up

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.redraws >= 1, "randomization.redraws", self.redraws, "at least 1")


@dataclass(kw_only=True, slots=True)
class Draw:
    """What one episode drew."""

    values: dict[str, float]
    latent: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    boundary: tuple[int, int] | None = None  # of automatic domain randomisation: parameter, side


class Sampler(Protocol):
    """Where draws come from: fixed distributions, or automatic domain randomisation."""

    @property
    def per_step(self) -> bool:
        """Whether `step` changes anything."""
        ...

    def episode(self, rng: np.random.Generator) -> Draw:
        """Draw the parameters of an episode."""
        ...

    def step(self, draw: Draw, rng: np.random.Generator, seconds: float) -> dict[str, float]:
        """Change in `draw`, and return, what is drawn anew in every step, `seconds` after the last one."""
        ...

    def finished(self, draw: Draw, performance: float) -> None:
        """Take note of how the episode with this draw went: 1 for success."""
        ...


class Randomization:
    """Fixed distributions of named parameters."""

    def __init__(self, rules: Sequence[Rule], correlations: Mapping[str, Any] | None = None) -> None:
        self.rules = tuple(rules)
        self._groups = tuple(dict.fromkeys(rule.group for rule in self.rules))
        self._factor = correlation_factor(self._groups, correlations or {})
        self._place = [self._groups.index(rule.group) for rule in self.rules]
        self._moving = [i for i, rule in enumerate(self.rules) if rule.every == "step"]

    @classmethod
    def of(cls, config: Config, table: Mapping[str, Known]) -> Randomization:
        """Check a configuration against the parameters that there are; see `distributions.rules`."""
        return cls(rules(config.parameters, table), config.correlations)

    @property
    def names(self) -> tuple[str, ...]:
        """Of what is drawn."""
        return tuple(rule.name for rule in self.rules)

    @property
    def per_step(self) -> bool:
        """Whether anything is drawn in every step."""
        return bool(self._moving)

    def episode(self, rng: np.random.Generator) -> Draw:
        """Draw every parameter; one standard normal number per group of rules."""
        latent = self._factor @ rng.standard_normal(len(self._groups))
        values = {
            rule.name: rule.quantile(latent[place])
            for rule, place in zip(self.rules, self._place, strict=True)
        }
        return Draw(values=values, latent=latent)

    def step(self, draw: Draw, rng: np.random.Generator, seconds: float) -> dict[str, float]:
        """Advance what changes in every step; the stationary distribution is the rule's own.

        z' = rho z + sqrt(1 - rho^2) e with rho = exp(-seconds / correlation): an Ornstein-Uhlenbeck process
        sampled exactly, for any time step.
        """
        fresh = self._factor @ rng.standard_normal(len(self._groups))
        moving = {self._place[i]: self.rules[i].correlation for i in self._moving}
        for place, correlation in moving.items():
            rho = math.exp(-seconds / correlation) if correlation else 0.0
            draw.latent[place] = rho * draw.latent[place] + math.sqrt(1 - rho * rho) * fresh[place]
        new = {self.rules[i].name: self.rules[i].quantile(draw.latent[self._place[i]]) for i in self._moving}
        draw.values |= new
        return new

    def finished(self, draw: Draw, performance: float) -> None:
        """Nothing is learnt from how an episode ended."""


def stream(seed: int, number: int) -> np.random.Generator:
    """Generator of the parameters of episode `number` since `seed`."""
    return np.random.default_rng([seed, number, _STREAM])


class DeskRandomizer:
    """Draws for every desk of a vector environment; `Episodes` calls it.

    `attach(env)` puts it in charge. `num_unstable` counts the episodes whose physics diverged; each of them
    ends with an `error` that names what was drawn, and the next episode draws again. After `redraws` of them
    in a row a ValueError refuses the distribution.
    """

    def __init__(self, sampler: Sampler, num_envs: int, redraws: int = Config().redraws) -> None:
        self.sampler = sampler
        self.num_unstable = 0
        self._redraws, self._in_a_row = redraws, 0
        self.unstable: list[dict[str, float]] = []  # the first few of those draws
        self._draws: list[Draw | None] = [None] * num_envs
        self._rngs = [np.random.default_rng(0)] * num_envs  # replaced when an episode begins
        self._values: dict[str, NDArray[np.float64]] = {}

    def begin(
        self, ids: NDArray[np.int64], seeds: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> Mapping[str, NDArray[np.float64]]:
        """Values `[N]`, new ones at `ids`; `seeds` and `numbers` of the episodes are `[len(ids)]`."""
        for sim, seed, number in zip(ids.tolist(), seeds.tolist(), numbers.tolist(), strict=True):
            self._rngs[sim] = stream(seed, number)
            self._draws[sim] = draw = self.sampler.episode(self._rngs[sim])
            self._store(sim, draw.values)
        return self._values

    def step(self) -> Mapping[str, NDArray[np.float64]]:
        """Values `[N]` for the step to come; empty where none are drawn step by step."""
        if not self.sampler.per_step:
            return {}
        new: dict[str, float] = {}
        for sim, draw in enumerate(self._draws):
            if draw is not None:
                new = self.sampler.step(draw, self._rngs[sim], CONTROL_STEPS * PHYSICS_STEP)
                self._store(sim, new)
        return {name: self._values[name] for name in new}

    def _store(self, sim: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name not in self._values:
                self._values[name] = np.full(len(self._draws), value)
            self._values[name][sim] = value

    def observe(self, outcome: Outcome) -> None:
        """Learn how episodes ended; names in `outcome.errors` what had been drawn where physics diverged."""
        for sim in np.flatnonzero(outcome.terminated | outcome.truncated).tolist():
            draw = self._draws[sim]
            if draw is None:
                continue
            if sim in outcome.errors:
                self._record(sim, draw, outcome.errors)
            else:
                self._in_a_row = 0
                self.sampler.finished(draw, float(outcome.success[sim]))

    def _record(self, sim: int, draw: Draw, errors: dict[int, str]) -> None:
        if "diverged" in errors[sim]:
            self.num_unstable += 1
            self.unstable = [*self.unstable, dict(draw.values)][:_KEPT]
            errors[sim] += f" with {describe(draw.values)}"
            self.sampler.finished(draw, 0.0)  # where half of the episodes diverge, half of them fail
            self._in_a_row += 1
            if self._in_a_row >= self._redraws:
                raise ValueError(
                    f"randomization: {self._in_a_row} episodes in a row made the physics diverge, the last "
                    f"one with {describe(draw.values)}; narrow the distributions"
                )

    def attach(self, episodes: Episodes) -> None:
        """Draw for all episodes that begin from now on."""
        require(len(self._draws) == episodes.num_envs, "num_envs", len(self._draws), f"{episodes.num_envs}")
        episodes.randomizer = self


def randomize_desk(env: Any, sampler: Sampler, redraws: int = Config().redraws) -> DeskRandomizer:
    """Put `sampler` in charge of a `DeskVectorEnv`'s or `DeskEnv`'s parameters from the next episode on."""
    episodes: Episodes = env.unwrapped.episodes
    randomizer = DeskRandomizer(sampler, episodes.num_envs, redraws)
    randomizer.attach(episodes)
    return randomizer


def describe(values: Mapping[str, float]) -> str:
    """`name=value` of every parameter, for messages."""
    return ", ".join(f"{name}={value:.4g}" for name, value in values.items())
