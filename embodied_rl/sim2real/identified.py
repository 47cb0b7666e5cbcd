"""Desks like the realities, as far as their motion tells: what the transfer test's fourth method draws from.

Of each reality 60 s of motion are recorded and identified; an episode draws one reality's fit, with its
covariance, and from the fixed ranges what was not identified.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from embodied_rl.data import collect
from embodied_rl.data.recorder import Recorder, Target
from embodied_rl.eval import figures, report
from embodied_rl.sim2real import randomization
from embodied_rl.sim2real.belief import Belief, Fit
from embodied_rl.sim2real.excitation import Excitation
from embodied_rl.sim2real.figures import fit_figures
from embodied_rl.sim2real.models import parameters_of
from embodied_rl.sim2real.randomization import Draw, Randomization, Sampler
from embodied_rl.sim2real.realities import Reality, open_reality
from embodied_rl.sim2real.replay import Motion
from embodied_rl.sim2real.sysid import identify
from envs.suites import DESK
from rl_core.config import require, to_yaml

IDENTIFIED = ("link_mass", "arm_frictionloss", "arm_damping", "arm_gain", "latency", "sensor_delay")
EPISODES, _STEPS = 10, 60  # of the motion: 60 s


class Mixture:
    """Draws from one of several samplers, each episode from another."""

    per_step = False

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        require(not any(s.per_step for s in samplers), "randomization.every", "step", "episode in a mixture")
        self._samplers = list(samplers)

    def episode(self, rng: np.random.Generator) -> Draw:
        """Draw which sampler, then from it."""
        return self._samplers[int(rng.integers(len(self._samplers)))].episode(rng)

    def step(self, draw: Draw, rng: np.random.Generator, seconds: float) -> dict[str, float]:
        """Nothing changes within an episode."""
        return {}

    def finished(self, draw: Draw, performance: float) -> None:
        """Nothing is learnt from how an episode ended."""


def recorded(reality: Reality | None, episodes: int, seed: int = 0) -> Motion:
    """Shake the arm of a reality, 6 s an episode, with what its sensors see."""
    env = open_reality(reality, episodes, max_episode_steps=_STEPS, terminate_on_success=False)
    rows = list(collect.episodes_of(Excitation(seed), env, episodes=episodes, seed=seed))
    env.close()
    return Motion(
        observations=np.stack([r["observations"]["observation"] for r in rows]).astype(np.float64),
        actions=np.stack([r["actions"] for r in rows]).astype(np.float64),
        running=np.ones((len(rows), _STEPS), np.bool_),
    )


def record(target: Target, parameters: Mapping[str, float], seed: int) -> None:
    """The same of a desk with these parameters, 60 s into a Minari dataset."""
    reality = Reality(parameters=parameters)
    env = open_reality(reality, EPISODES, max_episode_steps=_STEPS, terminate_on_success=False)
    with Recorder(target.id, collect.info_of(env), target.root or None, overwrite=target.overwrite) as out:
        collect.record(Excitation(seed), env, out, episodes=EPISODES, seed=seed)


def identified(
    realities: Mapping[str, Reality], ranges: randomization.Config, episodes: int, directory: Path
) -> Mixture:
    """A sampler of desks like the realities, as far as their motion tells; `directory` keeps the fits."""
    table, samplers = parameters_of(DESK), []
    for name, reality in realities.items():
        belief = _belief(reality, episodes, directory / name).randomization()
        # Last, because a pattern of the ranges must not draw again what is known.
        rest = {name: rule for name, rule in ranges.parameters.items() if name not in belief.parameters}
        both = randomization.Config(
            parameters={**rest, **belief.parameters},
            correlations={**ranges.correlations, **belief.correlations},
        )
        samplers.append(Randomization.of(both, table))
    return Mixture(samplers)


def _belief(reality: Reality, episodes: int, directory: Path) -> Belief:
    """What motion of a reality tells; read from `directory` where an earlier call found it."""
    settings = {"reality": asdict(reality), "episodes": episodes, "parameters": list(IDENTIFIED)}
    asked, of = json.dumps(settings, indent=1), directory / "settings.json"
    if of.is_file() and of.read_text() == asked:
        return Belief.load(directory)
    motion = recorded(reality, episodes)
    fit = identify(motion, IDENTIFIED, contacts=False)
    keep(directory, motion, fit, Belief.of(fit), contacts=False)
    of.write_text(asked)
    return Belief.load(directory)


def keep(
    directory: Path, motion: Motion, fit: Fit, belief: Belief, *, contacts: bool,
    start: Mapping[str, float] | None = None,
) -> Path:  # fmt: skip
    """Write a fit, its pictures and the belief after it, also as a randomisation; return the report page."""
    begun = dict(start or {})
    belief.save(directory)
    (directory / "randomization.yaml").write_text(to_yaml(belief.randomization()))
    (directory / "fit.json").write_text(json.dumps(fit.to_json() | {"start": begun}, indent=1) + "\n")
    figures.write(directory, fit_figures(motion, fit, contacts=contacts, start=begun))
    return report.write_report(directory)
