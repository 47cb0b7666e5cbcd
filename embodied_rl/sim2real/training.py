"""Training where every episode draws the simulator's parameters: the world, and what was drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from embodied_rl.eval import figures
from embodied_rl.eval.figures import Inline, spans
from embodied_rl.eval.statistics import Interval
from embodied_rl.online import rollout
from embodied_rl.online.rollout import World
from embodied_rl.sim2real import adr as adrs
from embodied_rl.sim2real import privileged, randomization
from embodied_rl.sim2real.distributions import Known
from embodied_rl.sim2real.figures import adr_figures
from embodied_rl.sim2real.models import make_randomized, num_unstable, parameters_of
from embodied_rl.sim2real.privileged import Privileged
from embodied_rl.sim2real.randomization import Randomization
from envs.config import Config as EnvConfig
from envs.suites import DESK
from rl_core.config import require


def open_world(env: EnvConfig, cfg: rollout.Config, ranges: randomization.Config, adr: adrs.Config) -> World:
    """Open a world as `online.rollout.open_world` does, its parameters drawn from `ranges` or by `adr`.

    With `parameters` among `cfg.critic_keys` the critic reads what was drawn, and the policy does not.

    Raises ValueError where both have parameters, and for automatic randomisation in several processes.
    """
    if not ranges.parameters and not adr.parameters:
        return rollout.open_world(env, cfg)
    require(not (ranges.parameters and adr.parameters), "adr.parameters", sorted(adr.parameters),
            "empty (adr=none) where randomization has parameters, or the other way round")  # fmt: skip
    table = parameters_of(env.id or DESK, **env.arguments())

    def make(env_id: str, num_envs: int, **kwargs: Any) -> VectorEnv:
        sampler = adrs.Adr(adr, table) if adr.parameters else Randomization.of(ranges, table)
        made = make_randomized(env_id, num_envs, sampler, redraws=ranges.redraws, **kwargs)
        if privileged.FIELD in cfg.critic_keys:
            made = Privileged(made, sampler.names)
        return adrs.Curriculum(made, sampler) if isinstance(sampler, adrs.Adr) else Drawn(made, table)

    return rollout.open_world(env, cfg, make)


def metrics(world: World) -> dict[str, float]:
    """What a training curve shows of what was drawn: unstable draws, and how far ranges have grown."""
    if isinstance(world.env, adrs.Curriculum):
        return {**world.env.adr.metrics(), "unstable_draws": float(num_unstable(world.env))}
    return {"unstable_draws": float(num_unstable(world.env))} if isinstance(world.env, Drawn) else {}


class Drawn(VectorWrapper):
    """Keeps least, mean and greatest of every parameter over the episodes that begin, also in checkpoints."""

    def __init__(self, env: VectorEnv, table: Mapping[str, Known]) -> None:
        super().__init__(env)
        self._table = table
        self.episodes = 0
        self.values: dict[str, list[float]] = {}  # least, sum, greatest

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin episodes, and note what they drew."""
        obs, infos = self.env.reset(seed=seed, options=options)
        self._note(infos["parameters"], np.ones(self.num_envs, np.bool_))
        return obs, infos

    def step(self, actions: Any) -> Any:
        """Step, and note what the episodes drew that began."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        begun = terminated | truncated
        if begun.any():
            self._note(infos["parameters"], begun)
        return obs, reward, terminated, truncated, infos

    def _note(self, parameters: Any, begun: NDArray[np.bool_]) -> None:
        if not isinstance(parameters, dict):  # the desk has an array of dicts, Gymnasium a dict of arrays
            parameters = {name: np.array([row[name] for row in parameters]) for name in parameters[0]}
        for name, values in parameters.items():
            if not name.startswith("_"):
                new = values[begun]
                least, total, greatest = self.values.get(name, [np.inf, 0.0, -np.inf])
                found = min(least, new.min()), total + new.sum(), max(greatest, new.max())
                self.values[name] = [float(x) for x in found]
        self.episodes += int(begun.sum())

    def figure(self) -> Inline:
        """What was drawn, over the nominal values."""
        rows = {}
        for name, (least, total, greatest) in self.values.items():
            unit = self._table[name].nominal or 1.0
            ends = sorted((least / unit, greatest / unit))
            rows[name] = Interval(value=total / self.episodes / unit, low=ends[0], high=ends[1])
        caption = (
            f"least, mean and greatest value that {self.episodes:,} episodes began with, over the nominal "
            f"one (where that is 0: the value itself); unstable draws: {num_unstable(self.env)}"
        )
        return spans("Parameters drawn", rows, label="ratio", caption=caption)

    def state_dict(self) -> dict[str, Any]:
        """Everything that moves; plain JSON values."""
        return {"episodes": self.episodes, "values": {name: list(row) for name, row in self.values.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.episodes = int(state["episodes"])
        self.values = {name: list(row) for name, row in state["values"].items()}


def draw(world: World, directory: Path) -> None:
    """Write what was drawn, or how the ranges grew, where the report of a run directory finds it."""
    if isinstance(world.env, adrs.Curriculum):
        figures.write(directory, adr_figures(world.env.adr), of="adr")
    elif isinstance(world.env, Drawn):
        figures.write(directory, [world.env.figure()], of="randomization")
