"""Continue an offline run online: the same networks and losses, on the dataset and on what is seen now.

Every batch has `offline_fraction` of its rows from the dataset (Ball et al. 2023, arXiv:2302.02948, take
half). Evaluation stands at step 0, before the first online action, and at steps 1, 2, 4, 8 ... up to the
first regular one: a policy that gets worse before it gets better (Nakamoto et al. 2023, arXiv:2303.05479)
shows that in its curve.

Observations are normalised and rewards transformed as the offline run did; learning rates return from the
end of a schedule to the configured ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from embodied_rl.data import minari_io, rewards, transitions
from embodied_rl.data.episodes import Episodes
from embodied_rl.models.actors import DeterministicActor
from embodied_rl.models.policy import Normalizer
from embodied_rl.models.sources import placed
from embodied_rl.offline import cql, iql, td3_bc
from embodied_rl.offline.interfaces import Evaluate
from embodied_rl.online import rollout
from embodied_rl.online.replay import Mixed, Replay
from embodied_rl.online.rollout import Act, Collector, Steps, World, begin_where_due, require_whole_episodes
from envs.config import Config as EnvConfig
from envs.suites import DESK
from rl_core import checkpoint
from rl_core.config import choice, require
from rl_core.run import Run
from rl_core.schedules import set_lr

OFFLINE = (iql, cql, td3_bc)
# Of their configurations, what the trained networks are made of, and what only offline training reads.
_SETTLED = {
    "actor", "actor_schedule", "hidden", "critic_hidden", "init", "actor_init", "critic_init", "out_gain",
    "log_std_multiplier", "log_std_offset", "log_lagrange_init",
}  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Config:
    """Which run to continue, and what is different from now on."""

    offline_run: str = MISSING  # directory of a train_offline run
    offline_fraction: float = 0.5  # of every batch
    capacity: int = 1_000_000  # online transitions kept
    updates_per_step: float = 1.0  # updates for every step of one environment
    exploration: float = 0.1  # standard deviation added to the actions of a deterministic actor
    change: dict[str, Any] = field(default_factory=dict)  # of the offline algorithm: {conservative_weight: 1}

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.offline_fraction <= 1, "algo.offline_fraction", self.offline_fraction, "in [0, 1]")
        require(self.capacity >= 1, "algo.capacity", self.capacity, "at least 1")
        require(0 <= self.exploration < math.inf, "algo.exploration", self.exploration, "finite and >= 0")
        value = self.updates_per_step
        require(0 < value < math.inf, "algo.updates_per_step", value, "finite and > 0")


@dataclass(kw_only=True, slots=True)
class Offline:
    """What an offline run left: its algorithm and configuration, its data, its agent."""

    algorithm: ModuleType
    cfg: Any
    data: transitions.Transitions
    reward: rewards.Affine  # what it made of rewards
    gamma: float
    agent: Any


def place(cfg: Config, env: EnvConfig, seen: rollout.Config) -> EnvConfig:
    """Where to go on: in the environment of the dataset, unless `env` names another one or another task.

    Raises ValueError for a choice of observation fields, which the offline run has made.
    """
    reason = "empty with algo=finetune, which goes on with the fields of the offline run"
    for name in ("obs_keys", "critic_keys"):
        require(not getattr(seen, name), f"rollout.{name}", getattr(seen, name), reason)
    _, _, data_cfg = _saved(cfg)
    # The desk stands in configs/train_online.yaml: alone it is nobody's word against a dataset's.
    unnamed = env.id == DESK and not env.task
    spec = placed(_episodes(data_cfg).spec, dataclasses.replace(env, id="") if unnamed else env)
    kwargs = dict(spec.env_kwargs)
    task = kwargs.pop("task", "") if isinstance(kwargs.get("task"), str) else ""
    return EnvConfig(id=spec.env_id or DESK, task=task, kwargs=kwargs)


def open_run(cfg: Config, device: torch.device) -> Offline:
    """Read a run of `train_offline`: configuration, dataset, and the agent of the newest checkpoint.

    Raises ValueError for a directory that holds none, for an algorithm that has no critic (BC), and for
    n-step returns, which online transitions lack.
    """
    algorithm, saved, data_cfg = _saved(cfg)
    own = _changed(algorithm.Config, saved, cfg.change)
    require(data_cfg.n_step == 1, "data.n_step", data_cfg.n_step, "1 in a run that is continued online")
    episodes = _episodes(data_cfg)
    data = transitions.Transitions(episodes, data_cfg, device)
    agent = algorithm.Agent(own, data.spec, torch.Generator(device))
    state = checkpoint.read_latest(Path(cfg.offline_run) / "checkpoints", device)
    for name, part in checkpoint.parts("agent", agent).items():
        _load(part, state[name], cfg)
    fitted = rewards.affine(data_cfg.reward, episodes)
    scale = data_cfg.reward_scale
    affine = rewards.Affine(scale=fitted.scale * scale, bias=fitted.bias * scale + data_cfg.reward_bias)
    return Offline(algorithm=algorithm, cfg=own, data=data, reward=affine, gamma=data_cfg.gamma, agent=agent)


def _saved(cfg: Config) -> tuple[ModuleType, dict[str, Any], transitions.Config]:
    """What the offline run's `config.yaml` says: its algorithm, the fields of its configuration, its data."""
    file = Path(cfg.offline_run) / "config.yaml"
    if not file.is_file():
        raise ValueError(f"algo.offline_run={cfg.offline_run!r}: holds no run (no config.yaml)")
    saved: Any = OmegaConf.to_container(OmegaConf.load(file))
    own = saved.get("algo") or {}
    for algorithm in OFFLINE:
        if {f.name for f in dataclasses.fields(algorithm.Config)} == own.keys():
            return algorithm, own, transitions.Config(**_tuples(saved["data"]))
    known = ", ".join(module.__name__.rpartition(".")[2] for module in OFFLINE)
    raise ValueError(f"algo.offline_run={cfg.offline_run!r}: must be a run of one of {known}")


def _episodes(cfg: transitions.Config) -> Episodes:
    return minari_io.load(cfg.id, root=cfg.root or None, cache_root=cfg.cache_root or None)


def _changed(kind: type, saved: Mapping[str, Any], change: Mapping[str, Any]) -> Any:
    """The configuration `saved` of this kind with the values of `change`, typed as on a command line."""
    tree: Any = OmegaConf.merge(OmegaConf.structured(kind), saved)
    names = [f.name for f in dataclasses.fields(kind) if f.name not in _SETTLED]
    for name, value in change.items():
        require(
            name not in _SETTLED, f"algo.change.{name}", value, "left out: offline training has settled it"
        )
        choice("algo.change", name, names)
        try:
            tree[name] = value
        except OmegaConfBaseException as error:
            raise ValueError(f"algo.change.{name}={value!r}: {str(error).splitlines()[0]}") from error
    values: Any = OmegaConf.to_container(tree)
    return kind(**_tuples(values))


def _load(part: checkpoint.Stateful, state: dict[str, Any], cfg: Config) -> None:
    """Take over the state of a part; learning rates become those of the configuration, also a changed one."""
    rates = [float(group["lr"]) for group in getattr(part, "param_groups", ())]
    try:
        part.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"algo.offline_run={cfg.offline_run!r}: its networks have other sizes than its config.yaml and "
            "dataset say; one of the two has changed since"
        ) from error
    if isinstance(part, torch.optim.Optimizer):
        for group, rate in zip(part.param_groups, rates, strict=True):
            group["initial_lr"] = rate
        set_lr(part, 1.0)  # the checkpoint has what a schedule ended with


def _tuples(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}


def train(cfg: Config, world: World, run: Run, evaluate: Evaluate) -> Any:
    """Train for `run.cfg.steps` iterations, each a rollout and its updates; returns the offline agent.

    From now on `world` is seen as the dataset saw it. New episodes begin after every `run.checkpoint_every`
    iterations (`rollout.begin_where_due`).
    """
    require_whole_episodes(world, run.cfg)
    offline = open_run(cfg, run.device)
    agent, normalizer = offline.agent, offline.data.normalizer
    agent.normalizer = lambda: normalizer
    offline.data.spec.check(world.env.single_observation_space, world.env.single_action_space)
    world.spec = world.critic_spec = dataclasses.replace(
        offline.data.spec, env_id=world.spec.env_id, env_kwargs=world.spec.env_kwargs
    )
    replay = Replay(world, cfg.capacity, run.device, gamma=offline.gamma)
    mixed = Mixed(offline.data, replay, cfg.offline_fraction)
    collector = Collector(world, run.device)
    updates = max(1, round(cfg.updates_per_step * world.num_steps))
    step_fns = run.accelerate(offline.algorithm.update), run.accelerate(td3_bc.update_actor)
    for step in run.steps(agent, replay=replay, **world.stateful):
        if step == 1:
            _look(run, 0, evaluate(agent))
        begin_where_due(collector, run, step)
        steps = collector.collect(_act(agent, normalizer, cfg, run.rng))
        replay.add(_as_offline(steps, normalizer, offline.reward))
        run.log(step, collector.finished(), group="rollout")
        for number in range(updates):
            batch = mixed.sample(run.rng, offline.cfg.batch_size)
            noise = offline.algorithm.draw_noise(offline.cfg, batch, run.rng)
            run.log(step, step_fns[0](agent, batch, noise, offline.cfg))
            if offline.algorithm is td3_bc and number % offline.cfg.policy_delay == 0:
                run.log(step, step_fns[1](agent, batch, offline.cfg))
        if run.should_eval(step) or (step < run.cfg.eval_every and step.bit_count() == 1):
            _look(run, step, evaluate(agent))
    return agent


def _look(run: Run, step: int, values: Mapping[str, Tensor | float]) -> None:
    """Log an evaluation as a row of its own."""
    run.log(step, values, group="eval")
    run.metrics.flush()


def _act(agent: Any, normalizer: Normalizer, cfg: Config, generator: torch.Generator) -> Act:
    """Samples of the policy, with noise where it has none of its own."""
    noise = cfg.exploration if isinstance(agent.actor, DeterministicActor) else 0.0

    def act(obs: Tensor, state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        action = agent.actor.act(normalizer(obs), deterministic=False, generator=generator)
        if noise:
            action = action + noise * torch.randn(action.shape, generator=generator, device=action.device)
        return action, state

    return act


def _as_offline(steps: Steps, normalizer: Normalizer, reward: rewards.Affine) -> Steps:
    return dataclasses.replace(
        steps,
        obs=normalizer(steps.obs),
        next_obs=normalizer(steps.next_obs),
        cut_obs=normalizer(steps.cut_obs),
        reward=steps.reward * reward.scale + reward.bias,
    )
