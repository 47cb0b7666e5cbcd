"""PPO for control (Schulman et al. 2017, arXiv:1707.06347) over vector environments.

Every iteration takes `horizon` steps in each of N environments, estimates advantages with GAE and calls
`rl_core.ppo.ppo_update`, the function that also aligns language models. A terminated episode has no value
after its end; a truncated one has that of its last observation.

Departures: 1) observations are normalised with the statistics of all earlier rollouts, which stand still
during a rollout and its update, so that old and new log-probabilities see the same inputs; the first update
sees observations as they are, clipped to +-10. 2) Rewards are
divided by the spread of discounted returns (as VecNormalize does). 3) The actor's mean is squashed by tanh
and actions are clipped to the box by the environment's side, while the density stays the Gaussian's.
4) `lr_schedule=adaptive` moves the learning rate by a factor of 1.5 to hold the KL of an update near
`desired_kl` (Rudin et al. 2021, arXiv:2109.11978). 5) With a memory the rows of the update are whole rollouts
of one environment, `[N, T]`, and `ppo.minibatch_size` counts those. 6) Adam's eps is 1e-8, the optimizer's
own; Stable-Baselines3 and CleanRL take 1e-5.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embodied_rl.data.types import Spec
from embodied_rl.models.actors import GaussianActor
from embodied_rl.models.critics import ValueNet
from embodied_rl.models.memory import CELLS, Memory, RecurrentActor
from embodied_rl.models.optim import adam
from embodied_rl.models.policy import Normalizer
from embodied_rl.offline.interfaces import Evaluate
from embodied_rl.online.rollout import Collector, Steps, World, begin_where_due, require_whole_episodes
from rl_core import checkpoint, ppo
from rl_core.advantages import gae
from rl_core.config import choice, require, require_widths
from rl_core.normalizers import RewardScaler, RunningMeanStd
from rl_core.run import Run
from rl_core.schedules import linear, set_lr

LR_SCHEDULES = ("constant", "linear", "adaptive")
_LR_RANGE = (1e-5, 1e-2)  # of the adaptive schedule
_LR_FACTOR = 1.5
_GATES = {3: "gru", 4: "lstm"}
_OUT_GAIN = 0.01  # of the actor's last layer: the first policy hardly depends on the observation


@dataclass(kw_only=True, slots=True)
class Config:
    """The paper's values for continuous control, but for wider networks."""

    lr: float = 3e-4
    lr_schedule: str = "constant"  # constant | linear (to 0 over the run) | adaptive (holds desired_kl)
    desired_kl: float = 0.01  # nats per step and update, for the adaptive schedule
    gamma: float = 0.99
    lam: float = 0.95
    ppo: ppo.Config = field(default_factory=ppo.Config)
    hidden: tuple[int, ...] = (256, 256)
    critic_hidden: tuple[int, ...] = ()  # empty: as `hidden`
    memory: str = "none"  # none | gru | lstm, one each for actor and critic
    memory_size: int = 128
    log_std_init: float = 0.0  # of the actions in units of [-1, 1]
    normalize_obs: bool = True
    normalize_returns: bool = True
    start_from: str = ""  # directory of an earlier run, with whose networks this one begins

    def __post_init__(self) -> None:
        """Check words and ranges."""
        require(0 < self.lr < math.inf, "algo.lr", self.lr, "finite and > 0")
        require(0 < self.desired_kl < math.inf, "algo.desired_kl", self.desired_kl, "finite and > 0")
        for name in ("gamma", "lam"):
            require(0 <= getattr(self, name) <= 1, f"algo.{name}", getattr(self, name), "in [0, 1]")
        require(-5 <= self.log_std_init <= 2, "algo.log_std_init", self.log_std_init, "in [-5, 2]")
        require(self.memory_size >= 1, "algo.memory_size", self.memory_size, "at least 1")
        require_widths("algo.hidden", self.hidden)
        if self.critic_hidden:
            require_widths("algo.critic_hidden", self.critic_hidden)
        choice("algo.lr_schedule", self.lr_schedule, LR_SCHEDULES)
        low, high = _LR_RANGE
        within = self.lr_schedule != "adaptive" or low <= self.lr <= high
        require(within, "algo.lr", self.lr, f"in [{low:g}, {high:g}] with algo.lr_schedule=adaptive")
        choice("algo.memory", self.memory, ("none", *CELLS))


class Critic(nn.Module):
    """V of an observation, or with a memory of all of an episode so far."""

    def __init__(self, cfg: Config, obs_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        hidden = cfg.critic_hidden or cfg.hidden
        size = cfg.memory_size
        self.memory = None if cfg.memory == "none" else Memory(cfg.memory, obs_dim, size, generator=generator)
        in_dim = size if self.memory else obs_dim
        self.value = ValueNet(in_dim, hidden, init="orthogonal", generator=generator)
        self.state_dim = self.memory.state_dim if self.memory else 0

    def forward(self, obs: Tensor, state: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Values `[N, T]` of `obs [N, T, D]`, and what is remembered after each of them, `[N, T, S]`."""
        if self.memory is None:
            return self.value(obs), state.new_zeros(*obs.shape[:-1], 0)
        states = self.memory(obs, state, first)
        return self.value(states[..., : self.memory.size]), states

    def after(self, obs: Tensor, state: Tensor) -> Tensor:
        """Values `[K]` of the observations `[K, D]` that follow upon the states `[K, S]`."""
        if self.memory is None:
            return self.value(obs)
        return self.value(self.memory.step(obs, state)[:, : self.memory.size])


class Agent(nn.Module):
    """Actor, critic, both normalisers and the optimizer; `D` is the policy's part of an observation.

    `privileged` is the number of features that stand after it and that only the critic reads.
    """

    def __init__(
        self, cfg: Config, spec: Spec, num_envs: int, generator: torch.Generator, *, privileged: int = 0
    ) -> None:
        super().__init__()
        self.obs_dim = spec.obs_dim
        self.actor = _actor(cfg, spec, generator)
        self.actor.log_std.data.fill_(cfg.log_std_init)
        self.critic = Critic(cfg, spec.obs_dim + privileged, generator)
        clip = 10.0 if cfg.normalize_obs else math.inf
        self.obs_stats = RunningMeanStd((spec.obs_dim + privileged,), clip=clip).to(generator.device)
        self.reward_scaler = RewardScaler(num_envs, gamma=cfg.gamma).to(generator.device)
        self.optimizer = adam(([*self.actor.parameters(), *self.critic.parameters()], cfg.lr))
        # The critic's memory between two rollouts; new episodes begin at every checkpoint, so it needs none.
        self.critic_state = torch.zeros(num_envs, self.critic.state_dim, device=generator.device)

    def normalizer(self) -> Normalizer:
        """What the policy is saved with: the present statistics of the observation, as they are used here."""
        stats, part = self.obs_stats, slice(self.obs_dim)
        std = (stats.var[part] + stats.eps).sqrt()
        clip = stats.clip if math.isfinite(stats.clip) else None
        return Normalizer(stats.mean[part].clone(), std, clip=clip)


def _actor(cfg: Config, spec: Spec, generator: torch.Generator) -> GaussianActor | RecurrentActor:
    dims = (spec.obs_dim, spec.action_dim, cfg.hidden)
    if cfg.memory == "none":
        return GaussianActor(*dims, init="orthogonal", out_gain=_OUT_GAIN, generator=generator)
    return RecurrentActor(
        *dims, kind=cfg.memory, size=cfg.memory_size, out_gain=_OUT_GAIN, generator=generator
    )


def collect(agent: Agent, collector: Collector, generator: torch.Generator) -> Steps:
    """One rollout with samples of the policy."""
    noise = torch.randn(collector.noise_shape, generator=generator, device=generator.device)
    std = agent.actor.log_std.detach().clamp(-5.0, 2.0).exp()
    normalizer, actor = agent.normalizer(), agent.actor

    def act(obs: Tensor, state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        mean, state = actor.step(normalizer(obs[:, : agent.obs_dim]), state, deterministic=True)
        return mean + std * noise[t], state

    return collector.collect(act)


def evaluate(agent: Agent, rows: ppo.Rollout) -> ppo.Evaluation:
    """What the present networks say of rows of a rollout, `[b]`, or with a memory `[b, T]`."""
    inputs = rows.inputs
    obs = inputs["obs"]
    if isinstance(agent.actor, RecurrentActor):
        policy = agent.actor(obs[..., : agent.obs_dim], inputs["state"], inputs["first"])
        value, _ = agent.critic(obs, inputs["critic_state"], inputs["first"])
    else:
        policy, value = agent.actor(obs[..., : agent.obs_dim]), agent.critic.value(obs)
    return ppo.Evaluation(log_prob=policy.log_prob(inputs["action"]), entropy=policy.entropy(), value=value)


@torch.no_grad()
def to_rollout(agent: Agent, steps: Steps, cfg: Config) -> ppo.Rollout:
    """Advantages and returns of a rollout, in rows of the update: steps, or with a memory environments.

    Moves the statistics of the returns and the critic's memory on.
    """
    obs = agent.obs_stats(steps.obs)
    value, states = agent.critic(obs, agent.critic_state, steps.first)
    next_value = value.roll(-1, dims=1)
    next_value[:, -1] = agent.critic.after(agent.obs_stats(steps.next_obs), states[:, -1])
    env, t = steps.cut.unbind(1)
    next_value[env, t] = agent.critic.after(agent.obs_stats(steps.cut_obs), states[env, t])
    reward = scaled_rewards(agent.reward_scaler, steps) if cfg.normalize_returns else steps.reward
    advantage, returns = gae(
        reward, value, next_value, steps.terminated, steps.ended, gamma=cfg.gamma, lam=cfg.lam
    )
    inputs = {"obs": obs, "action": steps.action}
    if cfg.memory != "none":
        inputs |= {"state": steps.state, "critic_state": agent.critic_state, "first": steps.first}
        agent.critic_state = states[:, -1]
    rollout = ppo.Rollout(inputs=inputs, log_prob=value, value=value, advantage=advantage, returns=returns)
    if cfg.memory == "none":
        rollout = _flat(rollout)
    return dataclasses.replace(rollout, log_prob=evaluate(agent, rollout).log_prob)


def _flat(rollout: ppo.Rollout) -> ppo.Rollout:
    """Rows of environments `[N, T]` as rows of steps `[N * T]`."""
    return ppo.Rollout(
        inputs={name: x.flatten(0, 1) for name, x in rollout.inputs.items()},
        log_prob=rollout.log_prob.flatten(),
        value=rollout.value.flatten(),
        advantage=rollout.advantage.flatten(),
        returns=rollout.returns.flatten(),
    )


def scaled_rewards(scaler: RewardScaler, steps: Steps) -> Tensor:
    """Rewards `[N, T]` over the spread of the returns, these included."""
    for reward, ended in zip(steps.reward.unbind(1), steps.ended.unbind(1), strict=True):
        scaler.update(reward, ended)
    scaled: Tensor = scaler(steps.reward)
    return scaled


def update(agent: Agent, steps: Steps, cfg: Config, generator: torch.Generator) -> dict[str, Tensor]:
    """Improve the networks on one rollout and take its observations into the statistics."""
    stats = ppo.ppo_update(
        lambda rows: evaluate(agent, rows), agent.optimizer, to_rollout(agent, steps, cfg), cfg.ppo, generator
    )
    if cfg.normalize_obs:
        agent.obs_stats.update(steps.obs)
    (group,) = agent.optimizer.param_groups
    if cfg.lr_schedule == "adaptive":
        group["lr"] = adapted_lr(float(group["lr"]), float(stats["approx_kl"]), cfg.desired_kl)
    std = agent.actor.log_std.detach().exp().mean()
    return stats | {"lr": torch.tensor(float(group["lr"])), "std": std}


def adapted_lr(lr: float, kl: float, desired_kl: float) -> float:
    """A smaller learning rate after a KL above twice the desired one, a larger one below half of it."""
    low, high = _LR_RANGE
    if kl > 2.0 * desired_kl:
        return max(low, lr / _LR_FACTOR)
    return min(high, lr * _LR_FACTOR) if kl < 0.5 * desired_kl else lr


def take_over(agent: Agent, directory: Path) -> None:
    """Give an agent the networks and statistics of the newest checkpoint of another PPO run.

    Raises ValueError where there is none, or where its networks have other sizes.
    """
    state = checkpoint.read_latest(directory / "checkpoints", agent.obs_stats.mean.device).get("agent", {})
    require("obs_stats.mean" in state, "algo.start_from", str(directory), "a run of algo=ppo")
    here, there = _sizes(agent.state_dict()), _sizes(state)
    differing = [
        f"{name} is {there[name]} there, {here[name]} here" for name in here if here[name] != there[name]
    ]
    if differing:
        raise ValueError(
            f"algo.start_from={str(directory)!r}: its networks have other sizes ({'; '.join(differing)})"
        )
    state["reward_scaler.returns"] = agent.reward_scaler.returns  # of episodes that the other run was in
    agent.load_state_dict(state)


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What decides the shapes of an agent's networks, read off its state."""

    def hidden(part: str) -> list[int]:
        biases = [name for name in state if name.startswith(part) and ".layers." in name and "bias" in name]
        return [len(state[name]) for name in biases][:-1]

    cell = state.get("actor.memory.cell.weight_hh")  # [gates * size, size]
    first = next(x for name, x in state.items() if name.startswith("actor.") and x.dim() == 2)
    return {
        "algo.memory": "none" if cell is None else f"{_GATES[len(cell) // cell.shape[1]]} of {cell.shape[1]}",
        "algo.hidden": hidden("actor."),
        "algo.critic_hidden": hidden("critic."),
        "the policy's observation": first.shape[1],
        "the critic's observation": len(state["obs_stats.mean"]),
        "the action": next(len(x) for name, x in state.items() if name.endswith("log_std")),
    }


def check(world: World, run: Run) -> None:
    """Raise a ValueError for settings of a run that PPO would ignore, or never see whole episodes with."""
    faster = [name for name in ("compile", "cuda_graphs") if getattr(run.cfg, name)]
    require(not faster, "run", faster, "without these: PPO's update stops where the KL says so")
    require(run.cfg.precision == "float32", "run.precision", run.cfg.precision, "float32 for PPO")
    require_whole_episodes(world, run.cfg)


def before_rollout(agent: Agent, collector: Collector, cfg: Config, run: Run, step: int) -> None:
    """Begin new episodes where they are due, and follow a linear schedule."""
    if begin_where_due(collector, run, step):
        agent.reward_scaler.returns.zero_()
    if cfg.lr_schedule == "linear":
        set_lr(agent.optimizer, linear(step - 1, 1.0, 0.0, run.cfg.steps))


def train(cfg: Config, world: World, run: Run, evaluate: Evaluate) -> Agent:
    """Train for `run.cfg.steps` iterations of `world.horizon` steps in each of its environments.

    New episodes begin after every `run.checkpoint_every` iterations (`rollout.begin_where_due`).
    """
    check(world, run)
    privileged = world.critic_spec.obs_dim - world.spec.obs_dim
    agent = Agent(cfg, world.spec, world.env.num_envs, run.rng, privileged=privileged)
    if cfg.start_from:
        take_over(agent, Path(cfg.start_from))
    collector = Collector(world, run.device, state_dim=agent.actor.state_dim)
    for step in run.steps(agent, **world.stateful):
        before_rollout(agent, collector, cfg, run, step)
        run.log(step, update(agent, collect(agent, collector, run.rng), cfg, run.rng))
        run.log(step, collector.finished(), group="rollout")
        if run.should_eval(step):
            run.log(step, evaluate(agent), group="eval")
    return agent
