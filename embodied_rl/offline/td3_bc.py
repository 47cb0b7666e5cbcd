"""TD3+BC, a minimalist approach to offline RL (Fujimoto and Gu 2021, arXiv:2106.06860).

    L_Q  = sum_i (r + gamma min_i Qt_i(s', a') - Q_i(s, a))^2,  a' = clip(pit(s') + clip(noise))   (TD3)
    L_pi = -lambda Q_1(s, pi(s)) + (pi(s) - a)^2,  lambda = alpha / mean |Q_1(s, pi(s))|           (eqs. 3, 5)

The actor and the targets move every `policy_delay` steps. The paper normalises observations: `data`'s part.

Departures: none. Reference results (D4RL -v2, CORL): halfcheetah-medium 48.1, hopper-medium 60.4,
walker2d-medium 82.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_rl.data.types import Batch, Spec
from embodied_rl.models.actors import DeterministicActor
from embodied_rl.models.critics import TwinCritic, polyak, target_copy
from embodied_rl.models.optim import adam
from embodied_rl.offline.interfaces import Data, Evaluate
from rl_core.config import require, require_widths
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """The paper's values."""

    batch_size: int = 256
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    tau: float = 0.005
    policy_noise: float = 0.2  # standard deviation of the target action's noise, in units of [-1, 1]
    noise_clip: float = 0.5
    policy_delay: int = 2
    alpha: float = 2.5  # weight of Q against imitation; 0 is behaviour cloning
    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("batch_size", "policy_delay"):
            require(getattr(self, name) >= 1, f"algo.{name}", getattr(self, name), "at least 1")
        for name in ("actor_lr", "critic_lr"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"algo.{name}", value, "finite and > 0")
        for name in ("policy_noise", "noise_clip", "alpha"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"algo.{name}", value, "finite and >= 0")
        require(0 < self.tau <= 1, "algo.tau", self.tau, "in (0, 1]")
        require_widths("algo.hidden", self.hidden)


class Agent(nn.Module):
    """Actor and twin critics, a target of each, and an optimizer of each."""

    def __init__(self, cfg: Config, spec: Spec, generator: torch.Generator) -> None:
        super().__init__()
        dims = (spec.obs_dim, spec.action_dim, cfg.hidden)
        self.actor = DeterministicActor(*dims, generator=generator)
        self.critic = TwinCritic(*dims, generator=generator)
        self.target_actor = target_copy(self.actor)
        self.target_critic = target_copy(self.critic)
        self.actor_optimizer = adam((self.actor.parameters(), cfg.actor_lr))
        self.optimizer = adam((self.critic.parameters(), cfg.critic_lr))


def draw_noise(cfg: Config, batch: Batch, generator: torch.Generator) -> Tensor:
    """Draw the clipped noise `[B, A]` on the target action."""
    normal = torch.randn(batch.action.shape, generator=generator, device=generator.device)
    return (normal * cfg.policy_noise).clamp(-cfg.noise_clip, cfg.noise_clip)


def update(agent: Agent, batch: Batch, noise: Tensor, cfg: Config) -> dict[str, Tensor]:
    """One step of the critics, every step; returns the loss and mean before it."""
    del cfg
    with torch.no_grad():
        next_action = (agent.target_actor(batch.next_obs) + noise).clamp(-1.0, 1.0)
        next_q = agent.target_critic(batch.next_obs, next_action).amin(0)
        target = batch.reward + batch.discount * next_q
    q = agent.critic(batch.obs, batch.action)
    q_loss = (q - target).square().mean(1).sum()
    agent.critic.zero_grad()
    q_loss.backward()
    agent.optimizer.step()
    return {"q_loss": q_loss.detach(), "q": q.detach().mean()}


def update_actor(agent: Agent, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    """One step of the actor and of both targets, every `policy_delay` steps."""
    action = agent.actor(batch.obs)
    q = agent.critic(batch.obs, action, frozen=True)[0]
    imitation = F.mse_loss(action, batch.action)
    actor_loss = imitation - cfg.alpha * q.mean() / q.detach().abs().mean()
    agent.actor.zero_grad()
    actor_loss.backward()
    agent.actor_optimizer.step()
    polyak(agent.target_critic, agent.critic, cfg.tau)
    polyak(agent.target_actor, agent.actor, cfg.tau)
    return {"actor_loss": actor_loss.detach(), "imitation": imitation.detach()}


def train(cfg: Config, data: Data, run: Run, evaluate: Evaluate) -> Agent:
    """Train for `run.cfg.steps` updates on normalised batches of `data`."""
    agent = Agent(cfg, data.spec, run.rng)
    critic_step, actor_step = run.accelerate(update), run.accelerate(update_actor)
    for step in run.steps(agent):
        batch = data.sample(run.rng, cfg.batch_size)
        run.log(step, critic_step(agent, batch, draw_noise(cfg, batch, run.rng), cfg))
        if step % cfg.policy_delay == 0:
            run.log(step, actor_step(agent, batch, cfg))
        if run.should_eval(step):
            run.log(step, evaluate(agent), group="eval")
    return agent
