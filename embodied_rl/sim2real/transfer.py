"""The transfer test: train in four ways at equal environment steps, try on desks that training never saw.

nominal: the simulator as it is. fixed: parameters drawn from fixed ranges. adr: automatic domain
randomisation. sysid: 60 s of motion are recorded in every reality and identified; an episode draws one
reality's fit (with its covariance), and from the fixed ranges what was not identified.

The first `shared_steps` iterations are the same for all: a policy of the nominal desk, from which each method
goes on. Wide ranges from the first step teach nothing, because no gripper ever closes on a block by chance.

Every policy is a run of its own below one directory. What is finished is kept and what was interrupted goes
on when the same call is made again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embodied_rl.data import collect
from embodied_rl.eval import figures, report
from embodied_rl.eval import rollout as rollouts
from embodied_rl.models.policy import ActorPolicy
from embodied_rl.online import ppo
from embodied_rl.online.rollout import Config as RolloutConfig
from embodied_rl.online.rollout import world_of
from embodied_rl.sim2real import adr as adrs
from embodied_rl.sim2real import randomization
from embodied_rl.sim2real.belief import Belief
from embodied_rl.sim2real.excitation import Excitation
from embodied_rl.sim2real.figures import adr_figures
from embodied_rl.sim2real.models import make_randomized, parameters_of
from embodied_rl.sim2real.randomization import Draw, Randomization, Sampler
from embodied_rl.sim2real.realities import HELD_OUT, Reality, open_reality
from embodied_rl.sim2real.replay import Motion
from embodied_rl.sim2real.sysid import identify
from embodied_rl.sim2real.table import NOMINAL, Table
from envs.suites import DESK
from rl_core import run as runs
from rl_core.config import choice, require
from rl_core.progress import console

FILE = "transfer.json"
METHODS = ("nominal", "fixed", "adr", "sysid")
IDENTIFIED = ("link_mass", "arm_frictionloss", "arm_damping", "arm_gain", "latency", "sensor_delay")
_EPISODES, _STEPS = 10, 60  # of the motion that is identified: 60 s
# Of a configuration, what decides how policies are tried, and what a method does not train with.
_TRIED = ("transfer.methods", "transfer.seeds", "transfer.episodes", "transfer.num_envs", "transfer.seed")
_NOT_OF: dict[str, tuple[str, ...]] = {
    "nominal": ("randomization", "adr"), "fixed": ("adr",), "adr": ("randomization",), "sysid": ("adr",)
}  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Config:
    """What is compared, on what, how thoroughly."""

    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    episodes: int = 200  # of each policy on each desk
    num_envs: int = 50  # that evaluate side by side
    seed: int = 2_000_000  # of the first of those episodes
    motion_episodes: int = _EPISODES
    shared_steps: int = 0  # of run.steps, on the nominal desk, with which every method begins

    def __post_init__(self) -> None:
        """Check words and ranges."""
        for method in self.methods:
            choice("transfer.methods", method, METHODS)
        require(bool(self.methods), "transfer.methods", self.methods, f"some of {', '.join(METHODS)}")
        require(bool(self.seeds), "transfer.seeds", self.seeds, "at least one seed")
        require(self.shared_steps >= 0, "transfer.shared_steps", self.shared_steps, "at least 0")
        for name in ("episodes", "num_envs", "motion_episodes"):
            require(getattr(self, name) >= 1, f"transfer.{name}", getattr(self, name), "at least 1")


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


def identified(realities: Mapping[str, Reality], ranges: randomization.Config, episodes: int) -> Mixture:
    """A sampler of desks like the realities, as far as their motion tells."""
    table, samplers = parameters_of(DESK), []
    for reality in realities.values():
        fit = identify(recorded(reality, episodes), IDENTIFIED, contacts=False)
        belief = Belief.of(fit).randomization()
        both = randomization.Config(
            parameters={**ranges.parameters, **belief.parameters}, correlations=belief.correlations
        )
        samplers.append(Randomization.of(both, table))
    return Mixture(samplers)


@dataclass(kw_only=True, slots=True)
class Training:
    """How every policy is trained."""

    algo: ppo.Config
    rollout: RolloutConfig
    run: runs.Config
    ranges: randomization.Config
    adr: adrs.Config
    env: dict[str, Any]  # arguments of the desk


def sampler_of(method: str, cfg: Config, how: Training, realities: Mapping[str, Reality]) -> Sampler:
    """Where a method's training episodes come from; checks configurations against the desk."""
    if method == "sysid":
        return identified(realities, how.ranges, cfg.motion_episodes)
    table = parameters_of(DESK)
    if method == "adr":
        return adrs.Adr(how.adr, table)
    return Randomization.of(how.ranges if method == "fixed" else randomization.Config(), table)


def train(
    sampler: Sampler, how: Training, seed: int, directory: Path, record: Any, may_change: Sequence[str] = ()
) -> ActorPolicy:
    """Train one policy, or go on with it, in `directory`, whose `config.yaml` holds `record`.

    `may_change` names keys of the record that decide nothing about this policy. Raises ValueError where the
    directory holds a policy that was trained in another way.
    """
    kwargs = how.env
    env = make_randomized(DESK, how.rollout.num_envs, sampler, threads=how.rollout.threads or None, **kwargs)
    adr = sampler if isinstance(sampler, adrs.Adr) else None
    if adr:
        env = adrs.Curriculum(env, adr)
    resume = any((directory / "checkpoints").glob("step_*"))
    run_cfg = dataclasses.replace(how.run, dir=str(directory), seed=seed, resume=resume)
    with (
        world_of(env, how.rollout, DESK, kwargs) as world,
        runs.Run(run_cfg, config=record, may_change=may_change) as run,
    ):
        agent = ppo.train(how.algo, world, run, lambda agent: dict(adr.metrics()) if adr else {})
        policy = ActorPolicy(agent.actor, world.spec, agent.normalizer(), seed=seed)
        policy.save(directory / "policy")
    if adr:
        figures.write(directory, adr_figures(adr))
        report.write_report(directory)
    return policy


def _one(
    method: str, seed: int, cfg: Config, how: Training, directory: Path, record: Any,
    realities: Mapping[str, Reality],
) -> dict[str, list[bool]]:  # fmt: skip
    """Successes of one policy; what an earlier call trained and tried is kept where it is the same."""
    done, asked = directory / FILE, _settings(method, cfg, how, realities)
    if done.exists():
        kept = json.loads(done.read_text())
        if kept.get("settings") == asked:
            found: dict[str, list[bool]] = kept["successes"]
            return found
    console.print(f"{method}, seed {seed}")
    how = _after_start(cfg, how, seed, directory.parent, record, realities)
    may_change = (*_TRIED, *_NOT_OF[method])
    policy = train(sampler_of(method, cfg, how, realities), how, seed, directory, record, may_change)
    found = evaluate(policy, cfg, realities, how.env)
    temporary = done.with_suffix(".tmp")
    temporary.write_text(json.dumps({"settings": asked, "successes": found}))
    temporary.replace(done)
    return found


def _after_start(
    cfg: Config, how: Training, seed: int, directory: Path, record: Any, realities: Mapping[str, Reality]
) -> Training:
    """How to go on from the policy that all methods share; what is left of its training is done here."""
    if not cfg.shared_steps:
        return how
    start = directory / f"start-seed{seed}"
    nominal = dataclasses.replace(how, run=dataclasses.replace(how.run, steps=cfg.shared_steps))
    may_change = (*_TRIED, *_NOT_OF["nominal"])
    train(sampler_of("nominal", cfg, how, realities), nominal, seed, start, record, may_change)
    return dataclasses.replace(
        how,
        algo=dataclasses.replace(how.algo, start_from=str(start)),
        run=dataclasses.replace(how.run, steps=how.run.steps - cfg.shared_steps),
    )


def _settings(method: str, cfg: Config, how: Training, realities: Mapping[str, Reality]) -> dict[str, Any]:
    """Everything that decides successes, as JSON has it."""
    parts: dict[str, Any] = {
        "algo": how.algo,
        "rollout": how.rollout,
        "randomization": how.ranges,
        "adr": how.adr,
    }
    settings: dict[str, Any] = {
        name: asdict(part) for name, part in parts.items() if name not in _NOT_OF[method]
    }
    settings |= {"shared_steps": cfg.shared_steps}
    settings |= {"env": how.env, "steps": how.run.steps, "episodes": cfg.episodes, "seed": cfg.seed}
    settings["realities"] = {name: asdict(reality) for name, reality in realities.items()}
    del settings["rollout"]["threads"]
    result: dict[str, Any] = json.loads(json.dumps(settings))
    return result


def evaluate(
    policy: ActorPolicy, cfg: Config, realities: Mapping[str, Reality], env_kwargs: Mapping[str, Any]
) -> dict[str, list[bool]]:
    """Success of every episode on the nominal desk and on each reality, the same seeds everywhere."""
    found = {}
    for name, reality in {NOMINAL: None, **realities}.items():
        env = open_reality(reality, min(cfg.num_envs, cfg.episodes), **env_kwargs)
        result = rollouts.evaluate(policy, env, episodes=cfg.episodes, seed=cfg.seed)
        found[name] = [bool(success) for success in result.successes]
        env.close()
    return found


def compare(
    cfg: Config, how: Training, directory: Path, record: Any, realities: Mapping[str, Reality] = HELD_OUT
) -> Table:
    """Train and try every method with every seed; `directory` gets a run each, the table and the report."""
    require(cfg.shared_steps < how.run.steps, "transfer.shared_steps", cfg.shared_steps,
            f"less than run.steps={how.run.steps}")  # fmt: skip
    successes: dict[str, dict[str, list[bool]]] = {}
    for method in cfg.methods:
        for seed in cfg.seeds:
            found = _one(method, seed, cfg, how, directory / f"{method}-seed{seed}", record, realities)
            row = successes.setdefault(method, {desk: [] for desk in found})
            for desk, trials in found.items():
                row[desk] += trials
    table = Table(
        successes=successes, steps=how.run.steps * how.rollout.num_envs * how.rollout.horizon
    )  # fmt: skip
    (directory / FILE).write_text(json.dumps(table.to_json(), indent=1) + "\n")
    figures.write(directory, [table.figure()])
    report.write_report(directory)
    return table
