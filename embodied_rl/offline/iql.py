"""Implicit Q-learning (Kostrikov et al. 2021, arXiv:2110.06169).

    L_V  = E[ |tau - 1(u < 0)| u^2 ],  u = min_i Qt_i(s, a) - V(s)                       (eq. 5)
    L_Q  = E[ sum_i (r + gamma V(s') - Q_i(s, a))^2 ]                                    (eq. 6)
    L_pi = -E[ min(exp(beta (min_i Qt_i(s, a) - V(s))), 100) log pi(a | s) ]             (eq. 7)

No action outside the dataset is ever evaluated.

Departures: all three losses are taken at the parameters before the step, in one backward pass, as CORL does
(the authors' code uses V after its step in eqs. 6 and 7: one step of staleness). `actor=deterministic`
replaces -log pi by the squared error, as CORL's `iql_deterministic`. Dropout is honoured with either actor.

Reference results (D4RL -v2, paper): halfcheetah-medium 47.4, hopper-medium 66.3, walker2d-medium 78.3;
locomotion uses expectile 0.7 and temperature 3, AntMaze 0.9 and 10, Adroit and kitchen 0.7 and 0.5 with
dropout 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embodied_rl.data.types import Batch, Spec
from embodied_rl.models.actors import ACTORS
from embodied_rl.models.critics import TwinCritic, ValueNet, polyak, target_copy
from embodied_rl.models.mlp import INITS, dropout_masks
from embodied_rl.models.optim import adam
from embodied_rl.offline.interfaces import Data, Evaluate
from rl_core.config import choice, require, require_widths
from rl_core.run import Run
from rl_core.schedules import cosine, set_lr


@dataclass(kw_only=True, slots=True)
class Config:
    """The paper's values for locomotion."""

    batch_size: int = 256
    lr: float = 3e-4  # of the critics and V
    actor_lr: float = 3e-4  # at the start
    actor_schedule: str = "cosine"  # cosine: to 0 over the run | constant
    tau: float = 0.005  # of the target critics
    expectile: float = 0.7  # tau in eq. 5; 0.5 is the mean, towards 1 the maximum over the data's actions
    temperature: float = 3.0  # beta in eq. 7; 0 is behaviour cloning
    max_weight: float = 100.0
    actor: str = "gaussian"  # gaussian | deterministic
    dropout: float = 0.0  # in the actor
    hidden: tuple[int, ...] = (256, 256)
    init: str = "orthogonal"  # orthogonal (the authors) | torch

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.batch_size >= 1, "algo.batch_size", self.batch_size, "at least 1")
        for name in ("lr", "actor_lr"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"algo.{name}", value, "finite and > 0")
        require(self.max_weight > 0, "algo.max_weight", self.max_weight, "> 0")
        require(0 < self.tau <= 1, "algo.tau", self.tau, "in (0, 1]")
        require(0 < self.expectile < 1, "algo.expectile", self.expectile, "in (0, 1)")
        require(0 <= self.temperature < math.inf, "algo.temperature", self.temperature, "finite and >= 0")
        require(0 <= self.dropout < 1, "algo.dropout", self.dropout, "in [0, 1)")
        require_widths("algo.hidden", self.hidden)
        choice("algo.actor_schedule", self.actor_schedule, ["cosine", "constant"])
        choice("algo.actor", self.actor, ["gaussian", "deterministic"])
        choice("algo.init", self.init, INITS)


class Agent(nn.Module):
    """Actor, twin critics and their target, V, and two optimizers (the actor's has a schedule)."""

    def __init__(self, cfg: Config, spec: Spec, generator: torch.Generator) -> None:
        super().__init__()
        dims, hidden = (spec.obs_dim, spec.action_dim), cfg.hidden
        self.actor = ACTORS[cfg.actor](*dims, hidden, init=cfg.init, generator=generator)
        self.critic = TwinCritic(*dims, hidden, init=cfg.init, generator=generator)
        self.target_critic = target_copy(self.critic)
        self.value = ValueNet(spec.obs_dim, hidden, init=cfg.init, generator=generator)
        self.optimizer = adam(([*self.critic.parameters(), *self.value.parameters()], cfg.lr))
        self.actor_optimizer = adam((self.actor.parameters(), cfg.actor_lr))


Noise = tuple[Tensor, ...]  # the actor's dropout masks [B, hidden_i]; empty without dropout


def draw_noise(cfg: Config, batch: Batch, generator: torch.Generator) -> Noise:
    """Draw what one update needs: dropout masks."""
    return dropout_masks(cfg.dropout, len(batch.obs), cfg.hidden, generator)


def update(agent: Agent, batch: Batch, noise: Noise, cfg: Config) -> dict[str, Tensor]:
    """One step on eqs. 5-7 and of the target; returns the losses and means before the step."""
    value = agent.value(batch.obs)
    q = agent.critic(batch.obs, batch.action)
    with torch.no_grad():
        target_q = agent.target_critic(batch.obs, batch.action).amin(0)
        target = batch.reward + batch.discount * agent.value(batch.next_obs)

    advantage = target_q - value
    value_loss = expectile_loss(advantage, cfg.expectile)
    q_loss = (q - target).square().mean(1).sum()
    weight = (cfg.temperature * advantage.detach()).exp().clamp(max=cfg.max_weight)
    actor_loss = (weight * agent.actor.imitation_loss(batch.obs, batch.action, noise)).mean()

    agent.zero_grad()
    (value_loss + q_loss + actor_loss).backward()  # disjoint parameters: one pass is three
    agent.optimizer.step()
    agent.actor_optimizer.step()
    polyak(agent.target_critic, agent.critic, cfg.tau)
    return {
        "value_loss": value_loss.detach(),
        "q_loss": q_loss.detach(),
        "actor_loss": actor_loss.detach(),
        "value": value.detach().mean(),
        "q": q.detach().mean(),
        "weight": weight.mean(),
    }


def expectile_loss(diff: Tensor, expectile: float) -> Tensor:
    """Mean of `|expectile - 1(diff < 0)| diff^2` over `[B]`; half the squared error at 0.5."""
    return (torch.where(diff < 0, 1.0 - expectile, expectile) * diff.square()).mean()


def train(cfg: Config, data: Data, run: Run, evaluate: Evaluate) -> Agent:
    """Train for `run.cfg.steps` updates on normalised batches of `data`."""
    agent = Agent(cfg, data.spec, run.rng)
    step_fn = run.accelerate(update)
    for step in run.steps(agent):
        if cfg.actor_schedule == "cosine":
            set_lr(agent.actor_optimizer, cosine(step - 1, 1.0, 0.0, run.cfg.steps))
        batch = data.sample(run.rng, cfg.batch_size)
        run.log(step, step_fn(agent, batch, draw_noise(cfg, batch, run.rng), cfg))
        if run.should_eval(step):
            run.log(step, evaluate(agent), group="eval")
    return agent
