"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905) over vector environments.

    L_Q     = sum_i (Q_i(s, a) - y)^2,  y = r + gamma (min_i Qt_i(s', a') - alpha log pi(a' | s'))  (eq. 5)
    L_pi    = alpha log pi(a | s) - min_i Q_i(s, a),  a ~ pi(. | s)                                  (eq. 9)
    L_alpha = -log alpha (log pi(a | s) + H),  H = -A for actions of A components                    (eq. 18)

An iteration takes `rollout.horizon` steps in every environment and then `updates_per_step` updates for each
of them. The networks are those of the offline algorithms.

Departures: 1) log alpha in place of alpha in eq. 18, as in the authors' code. 2) All losses are taken at the
parameters before the step, in one backward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embodied_rl.data.types import Batch, Spec
from embodied_rl.models.actors import SquashedGaussianActor
from embodied_rl.models.critics import TwinCritic, polyak, target_copy
from embodied_rl.models.optim import adam
from embodied_rl.models.policy import Normalizer
from embodied_rl.offline.interfaces import Evaluate
from embodied_rl.online.replay import Replay
from embodied_rl.online.rollout import Act, Collector, World, begin_where_due, require_whole_episodes
from rl_core.config import require, require_default, require_widths
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """The paper's values."""

    batch_size: int = 256
    lr: float = 3e-4
    gamma: float = 0.99
    tau: float = 0.005
    alpha_init: float = 1.0
    alpha: float | None = None  # fixed; none: learnt by eq. 18, from alpha_init
    target_entropy: float | None = None  # H in eq. 18, nats; none: -A
    hidden: tuple[int, ...] = (256, 256)
    capacity: int = 1_000_000  # transitions kept
    random_steps: int = 10_000  # environment steps with uniform actions before the first update
    updates_per_step: float = 1.0  # updates for every step of one environment

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("batch_size", "capacity", "random_steps"):
            require(getattr(self, name) >= 1, f"algo.{name}", getattr(self, name), "at least 1")
        for name in ("lr", "alpha_init", "updates_per_step"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"algo.{name}", value, "finite and > 0")
        alpha, entropy = self.alpha, self.target_entropy
        require(alpha is None or 0 < alpha < math.inf, "algo.alpha", alpha, "finite and > 0, or null")
        require(entropy is None or math.isfinite(entropy), "algo.target_entropy", entropy, "finite, or null")
        if alpha is not None:
            require_default(
                self, ("alpha_init", "target_entropy"), "an alpha that is learnt (algo.alpha=null)"
            )
        require(0 <= self.gamma <= 1, "algo.gamma", self.gamma, "in [0, 1]")
        require(0 < self.tau <= 1, "algo.tau", self.tau, "in (0, 1]")
        require_widths("algo.hidden", self.hidden)


class Agent(nn.Module):
    """Actor, twin critics with their target, log alpha (also where it is fixed), one optimizer for all."""

    def __init__(self, cfg: Config, spec: Spec, generator: torch.Generator) -> None:
        super().__init__()
        dims, device = (spec.obs_dim, spec.action_dim, cfg.hidden), generator.device
        self.actor = SquashedGaussianActor(*dims, generator=generator)
        self.critic = TwinCritic(*dims, generator=generator)
        self.target_critic = target_copy(self.critic)
        alpha = cfg.alpha_init if cfg.alpha is None else cfg.alpha
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha), device=device))
        self.log_alpha.requires_grad_(cfg.alpha is None)
        trained = [*self.actor.parameters(), *self.critic.parameters(), self.log_alpha]
        self.optimizer = adam((trained, cfg.lr))
        self._identity = Normalizer.identity(spec.obs_dim).to(device)

    def normalizer(self) -> Normalizer:
        """Observations are taken as they are."""
        return self._identity


Noise = tuple[Tensor, Tensor]  # standard normal [B, A] for the policy's action and for the target's


def draw_noise(batch: Batch, generator: torch.Generator) -> Noise:
    """Draw the random numbers of one update."""
    shape = (2, *batch.action.shape)
    first, second = torch.randn(shape, generator=generator, device=generator.device).unbind()
    return first, second


def update(agent: Agent, batch: Batch, noise: Noise, cfg: Config) -> dict[str, Tensor]:
    """One step of every network and of the target; returns the losses and means before the step."""
    action, log_prob = agent.actor(batch.obs).rsample_with_log_prob(noise[0])
    alpha = agent.log_alpha.detach().exp()
    target_entropy = -batch.action.shape[1] if cfg.target_entropy is None else cfg.target_entropy
    alpha_loss = -(agent.log_alpha * (log_prob.detach() + target_entropy)).mean()
    actor_loss = (alpha * log_prob - agent.critic(batch.obs, action, frozen=True).amin(0)).mean()

    with torch.no_grad():
        next_action, next_log_prob = agent.actor(batch.next_obs).rsample_with_log_prob(noise[1])
        next_q = agent.target_critic(batch.next_obs, next_action).amin(0)
        target = batch.reward + batch.discount * (next_q - alpha * next_log_prob)
    q = agent.critic(batch.obs, batch.action)
    q_loss = (q - target).square().mean(1).sum()

    agent.zero_grad()
    (q_loss + actor_loss + alpha_loss).backward()
    agent.optimizer.step()
    polyak(agent.target_critic, agent.critic, cfg.tau)
    return {
        "q_loss": q_loss.detach(),
        "actor_loss": actor_loss.detach(),
        "q": q.detach().mean(),
        "entropy": -log_prob.detach().mean(),
        "alpha": alpha,
    }


def train(cfg: Config, world: World, run: Run, evaluate: Evaluate) -> Agent:
    """Train for `run.cfg.steps` iterations, each a rollout and its updates.

    New episodes begin after every `run.checkpoint_every` iterations (`rollout.begin_where_due`).
    """
    privileged = world.critic_spec.obs_keys[len(world.spec.obs_keys) :]
    require(
        not privileged, "rollout.critic_keys", privileged, "empty: SAC's critic reads what its actor reads"
    )
    require_whole_episodes(world, run.cfg)
    agent = Agent(cfg, world.spec, run.rng)
    replay = Replay(world, cfg.capacity, run.device, gamma=cfg.gamma)
    collector = Collector(world, run.device)
    step_fn = run.accelerate(update)
    for step in run.steps(agent, replay=replay, **world.stateful):
        begin_where_due(collector, run, step)
        explore = (step - 1) * world.num_steps < cfg.random_steps
        replay.add(collector.collect(uniform(collector, run) if explore else sample(agent, run)))
        run.log(step, collector.finished(), group="rollout")
        for _ in range(0 if explore else max(1, round(cfg.updates_per_step * world.num_steps))):
            batch = replay.sample(run.rng, cfg.batch_size)
            run.log(step, step_fn(agent, batch, draw_noise(batch, run.rng), cfg))
        if run.should_eval(step):
            run.log(step, evaluate(agent), group="eval")
    return agent


def uniform(collector: Collector, run: Run) -> Act:
    """Actions without regard to the observation, uniform in the box."""
    actions = torch.rand(collector.noise_shape, generator=run.rng, device=run.device) * 2.0 - 1.0
    return lambda obs, state, t: (actions[t], state)


def sample(agent: Agent, run: Run) -> Act:
    """Actions drawn from the policy."""
    return lambda obs, state, t: agent.actor.step(obs, state, deterministic=False, generator=run.rng)
