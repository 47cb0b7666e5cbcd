"""Best-of-n and rejection-sampling fine-tuning (expert iteration): imitate one's own best responses.

Each step draws a group per prompt, keeps its `keep` best responses that reach `min_reward`, and takes
supervised steps on them (RAFT, arXiv:2304.06767; Llama 2, arXiv:2307.09288, section 3.2.3; with a
verifiable reward and `min_reward=1`, STaR's filter, arXiv:2203.14465).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from llm_align.models import optim
from llm_align.models.log_probs import log_probs
from llm_align.online.loop import Loop, Watching
from llm_align.online.reference import KL, minibatches
from llm_align.online.rollout import Samples, Task
from rl_core import distributed
from rl_core.config import require
from rl_core.reductions import token_mean
from rl_core.run import Run
from rl_core.schedules import set_lr, warmup


@dataclass(kw_only=True, slots=True)
class Config:
    """One supervised pass over the best response to each prompt."""

    lr: float = 1e-5
    warmup: int = 0  # steps
    max_grad_norm: float = 1.0
    keep: int = 1  # best responses of a group
    min_reward: float = -math.inf
    epochs: int = 1  # passes over what was kept
    minibatches: int = 1  # optimizer steps per pass

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("lr", "max_grad_norm"):
            require(getattr(self, name) > 0, f"algo.{name}", getattr(self, name), "> 0")
        for name in ("keep", "epochs", "minibatches"):
            require(getattr(self, name) >= 1, f"algo.{name}", getattr(self, name), "at least 1")
        require(self.warmup >= 0, "algo.warmup", self.warmup, ">= 0")


class Agent(nn.Module):
    """The policy and its optimizer."""

    def __init__(self, cfg: Config, policy: Any) -> None:
        super().__init__()
        self.policy = policy.eval()
        self.optimizer = optim.plain_adamw((policy, cfg.lr))


def best(samples: Samples, keep: int = 1, min_reward: float = -math.inf) -> Tensor:
    """Rows of each group's `keep` best responses, without unjudged ones and those below `min_reward`."""
    reward = samples.grouped(samples.reward.nan_to_num(-math.inf))
    top = reward.argsort(dim=-1, descending=True, stable=True)[:, :keep]
    rows = (top + samples.group_size * torch.arange(len(top), device=top.device)[:, None]).flatten()
    chosen = samples.reward[rows]
    return rows[~chosen.isnan() & (chosen >= min_reward)]


def update(agent: Agent, kept: Samples, cfg: Config, generator: torch.Generator) -> dict[str, Tensor]:
    """Supervised steps on the kept responses; returns the mean negative log-likelihood per token."""
    history = []
    for _ in range(cfg.epochs):
        for rows in minibatches(kept.responses.prompt_index, cfg.minibatches, generator):
            own, weight = distributed.share(rows)
            responses, tokens = kept.responses.select(own), kept.responses.loss_mask[rows].sum()
            loss = -token_mean(log_probs(agent.policy, responses).log_prob, responses.loss_mask, tokens)
            agent.optimizer.zero_grad(set_to_none=True)
            (weight * loss).backward()
            norm = distributed.clip_and_step(agent.optimizer, cfg.max_grad_norm)
            history.append(torch.stack([distributed.total(weight * loss.detach()), norm]))
    loss, norm = torch.stack(history).mean(0)
    return {"loss": loss, "grad_norm": norm}


def train(cfg: Config, task: Task, policy: Any, run: Run, **watching: Unpack[Watching]) -> Agent:
    """Train `policy` for `run.cfg.steps` rounds of sampling, choosing and imitating."""
    size = task.config.group_size
    chosen = cfg.keep < size or (cfg.keep == size and math.isfinite(cfg.min_reward))
    accepted = f"less than rollout.group_size={size}, or equal to it with algo.min_reward: else all are kept"
    require(chosen, "algo.keep", cfg.keep, accepted)
    loop = Loop(task, policy, run, KL(), **watching)
    agent = Agent(cfg, loop.policy)
    step_fn = run.accelerate(update)
    for step in loop.steps(agent):
        set_lr(agent.optimizer, warmup(step, cfg.warmup))
        samples = loop.draw().samples
        rows = best(samples, cfg.keep, cfg.min_reward)
        stats = step_fn(agent, samples.select(rows), cfg, run.rng) if len(rows) else {}
        run.log(step, stats | {"kept": len(rows) / len(samples)})
    return agent
