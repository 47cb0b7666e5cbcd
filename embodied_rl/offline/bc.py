"""Behaviour cloning (Pomerleau 1988): supervised learning of the data's actions.

    L = E[ (pi(s) - a)^2 ]   or   L = -E[ log pi(a | s) ]

`actor` chooses: `deterministic` the squared error, `gaussian` and `squashed` the log-likelihood. Cloning the
best episodes only ("10 % BC", Chen et al. 2021) is a filter of the dataset, not another loss.

Departures: none. Reference results (D4RL -v2, -v1 for door; CORL): halfcheetah-medium 42.4, hopper-medium
53.5, door-expert 105, door-human 2.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embodied_rl.data.types import Batch, Spec
from embodied_rl.models.actors import ACTORS
from embodied_rl.models.mlp import dropout_masks
from embodied_rl.models.optim import adam
from embodied_rl.offline.interfaces import Data, Evaluate
from rl_core.config import choice, require, require_widths
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """CORL's values."""

    batch_size: int = 256
    lr: float = 3e-4
    actor: str = "deterministic"  # deterministic | gaussian | squashed
    dropout: float = 0.0
    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.batch_size >= 1, "algo.batch_size", self.batch_size, "at least 1")
        require(0 < self.lr < math.inf, "algo.lr", self.lr, "finite and > 0")
        require(0 <= self.dropout < 1, "algo.dropout", self.dropout, "in [0, 1)")
        require_widths("algo.hidden", self.hidden)
        choice("algo.actor", self.actor, ACTORS)


class Agent(nn.Module):
    """An actor and its optimizer."""

    def __init__(self, cfg: Config, spec: Spec, generator: torch.Generator) -> None:
        super().__init__()
        self.actor = ACTORS[cfg.actor](spec.obs_dim, spec.action_dim, cfg.hidden, generator=generator)
        self.optimizer = adam((self.actor.parameters(), cfg.lr))


Noise = tuple[Tensor, ...]  # dropout masks [B, hidden_i]; empty without dropout


def draw_noise(cfg: Config, batch: Batch, generator: torch.Generator) -> Noise:
    """Draw what one update needs: dropout masks."""
    return dropout_masks(cfg.dropout, len(batch.obs), cfg.hidden, generator)


def update(agent: Agent, batch: Batch, noise: Noise, cfg: Config) -> dict[str, Tensor]:
    """One step; returns the loss before it."""
    del cfg
    loss = agent.actor.imitation_loss(batch.obs, batch.action, noise).mean()
    agent.zero_grad()
    loss.backward()
    agent.optimizer.step()
    return {"actor_loss": loss.detach()}


def train(cfg: Config, data: Data, run: Run, evaluate: Evaluate) -> Agent:
    """Train for `run.cfg.steps` updates on normalised batches of `data`."""
    agent = Agent(cfg, data.spec, run.rng)
    step_fn = run.accelerate(update)
    for step in run.steps(agent):
        batch = data.sample(run.rng, cfg.batch_size)
        run.log(step, step_fn(agent, batch, draw_noise(cfg, batch, run.rng), cfg))
        if run.should_eval(step):
            run.log(step, evaluate(agent), group="eval")
    return agent
