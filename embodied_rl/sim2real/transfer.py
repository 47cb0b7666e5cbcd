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

from embodied_rl.eval import figures, report
from embodied_rl.eval import rollout as rollouts
from embodied_rl.models.policy import ActorPolicy
from embodied_rl.online import ppo
from embodied_rl.online.rollout import FIXED, world_of
from embodied_rl.online.rollout import Config as RolloutConfig
from embodied_rl.sim2real import adr as adrs
from embodied_rl.sim2real import randomization, training
from embodied_rl.sim2real.figures import adr_figures
from embodied_rl.sim2real.identified import EPISODES, IDENTIFIED, identified
from embodied_rl.sim2real.models import make_randomized, parameters_of
from embodied_rl.sim2real.randomization import Randomization, Sampler
from embodied_rl.sim2real.realities import HELD_OUT, Reality, open_reality
from embodied_rl.sim2real.table import NOMINAL, Table, Trials
from envs.suites import DESK
from rl_core import run as runs
from rl_core.config import choice, require
from rl_core.progress import console

FILE = "transfer.json"
METHODS = ("nominal", "fixed", "adr", "sysid")
# Of a configuration, what changes no policy, and what one method does not train with.
_NO_POLICY = (
    "transfer.methods", "transfer.seeds", "transfer.episodes", "transfer.num_envs", "transfer.seed",
    "rollout.threads",
)  # fmt: skip
_NOT_OF: dict[str, tuple[str, ...]] = {
    "nominal": ("randomization", "adr", "transfer.motion_episodes"),
    "fixed": ("adr", "transfer.motion_episodes"),
    "adr": ("randomization", "transfer.motion_episodes"),
    "sysid": ("adr",),
}


@dataclass(kw_only=True, slots=True)
class Config:
    """What is compared, on what, how thoroughly."""

    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    episodes: int = 200  # of each policy on each desk
    num_envs: int = 50  # that evaluate side by side
    seed: int = 2_000_000  # of the first of those episodes
    motion_episodes: int = EPISODES  # of 6 s, that are identified of each reality
    shared_steps: int = 0  # of run.steps, on the nominal desk, with which every method begins

    def __post_init__(self) -> None:
        """Check words and ranges."""
        for method in self.methods:
            choice("transfer.methods", method, METHODS)
        require(bool(self.methods), "transfer.methods", self.methods, f"some of {', '.join(METHODS)}")
        for name in ("methods", "seeds"):
            value = getattr(self, name)
            require(len(set(value)) == len(value), f"transfer.{name}", value, "each once")
        require(
            bool(self.seeds) and min(self.seeds) >= 0, "transfer.seeds", self.seeds, "at least one, all >= 0"
        )
        require(self.seed >= 0, "transfer.seed", self.seed, "at least 0")
        require(self.shared_steps >= 0, "transfer.shared_steps", self.shared_steps, "at least 0")
        for name in ("episodes", "num_envs", "motion_episodes"):
            require(getattr(self, name) >= 1, f"transfer.{name}", getattr(self, name), "at least 1")


@dataclass(kw_only=True, slots=True)
class Training:
    """How every policy is trained."""

    algo: ppo.Config
    rollout: RolloutConfig
    run: runs.Config
    ranges: randomization.Config
    adr: adrs.Config
    env: dict[str, Any]  # arguments of the desk


def sampler_of(
    method: str, cfg: Config, how: Training, realities: Mapping[str, Reality], directory: Path
) -> Sampler:
    """Where a method's training episodes come from; `directory` is that of the whole comparison."""
    if method == "sysid":
        return identified(realities, how.ranges, cfg.motion_episodes, directory / "identified")
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
        runs.Run(run_cfg, config=record, may_change=may_change, fixed=FIXED) as run,
    ):
        agent = ppo.train(how.algo, world, run, lambda agent: dict(training.metrics(world)))
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
    may_change = (*_NO_POLICY, *_NOT_OF[method])
    sampler = sampler_of(method, cfg, how, realities, directory.parent)
    policy = train(sampler, how, seed, directory, record, may_change)
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
    may_change = (*_NO_POLICY, *_NOT_OF["nominal"])
    train(sampler_of("nominal", cfg, how, realities, directory), nominal, seed, start, record, may_change)
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
    if method == "sysid":
        settings |= {"motion_episodes": cfg.motion_episodes, "identified": IDENTIFIED}
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


def _check(cfg: Config, how: Training) -> None:
    """Find now what would else be found when earlier methods have been trained, hours later."""
    table = parameters_of(DESK)
    if "adr" in cfg.methods:
        adrs.Adr(how.adr, table)
    if {"fixed", "sysid"} & set(cfg.methods):
        ranges = Randomization.of(how.ranges, table)
        require(bool(ranges.names), "randomization", "none", "ranges for the methods fixed and sysid")
        require("sysid" not in cfg.methods or not ranges.per_step, "randomization.every", "step",
                "episode, which sysid needs")  # fmt: skip


def compare(
    cfg: Config, how: Training, directory: Path, record: Any, realities: Mapping[str, Reality] = HELD_OUT
) -> Table:
    """Train and try every method with every seed; `directory` gets a run each, the table and the report."""
    require(cfg.shared_steps < how.run.steps, "transfer.shared_steps", cfg.shared_steps,
            f"less than run.steps={how.run.steps}")  # fmt: skip
    _check(cfg, how)
    successes: dict[str, dict[int, Trials]] = {
        method: {
            seed: _one(method, seed, cfg, how, directory / f"{method}-seed{seed}", record, realities)
            for seed in cfg.seeds
        }
        for method in cfg.methods
    }
    table = Table(successes=successes, steps=how.run.steps * how.rollout.num_envs * how.rollout.horizon)
    (directory / FILE).write_text(json.dumps(table.to_json(), indent=1) + "\n")
    figures.write(directory, [table.figure()])
    report.write_report(directory)
    return table
