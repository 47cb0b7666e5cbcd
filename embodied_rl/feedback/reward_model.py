"""An ensemble of reward functions of observation and action, learnt from comparisons of segments.

    P(1 better than 2) = sigmoid(sum_t r(o1_t, a1_t) - sum_t r(o2_t, a2_t))           (Christiano 2017, eq. 1)
    loss = -mu log P - (1 - mu) log(1 - P),   mu = 1, 0 or 1/2                         (eq. 2)

The members are stacked like twin critics: one batched forward. Each sees its own bootstrap of the comparisons
(drawn once, when one is judged), and those that it never sees are its validation set: 1/e of them, as in the
paper, which regularises by them: the decay of the weights grows where their loss is above 1.5 times that of
the comparisons seen, and shrinks where it is below 1.1 times that. The reward is the mean of the members,
each normalised to mean 0 and deviation 1 over the pool.

Departures: 1) targets are smoothed by `label_noise` / 2, in place of a chance of `label_noise` of a random
answer within P. 2) Decoupled weight decay, one for all members, in place of an l2 loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embodied_rl.feedback.judgements import Judgements
from embodied_rl.feedback.segments import Segments
from embodied_rl.models.critics import TwinCritic
from rl_core.config import require, require_widths
from rl_core.normalizers import RunningMeanStd
from rl_core.preferences import bradley_terry_loss

_RATIOS = (1.1, 1.5)  # of the losses of comparisons not seen and seen, between which the decay stays
_MOST = 0.05  # share that the decay may take off the weights in one step


@dataclass(kw_only=True, slots=True)
class Config:
    """Size and training of the ensemble; members and `label_noise` are the paper's."""

    members: int = 3
    hidden: tuple[int, ...] = (64, 64)
    lr: float = 1e-3
    weight_decay: float = 1.0  # at first; a step takes lr x this share off the weights
    label_noise: float = 0.1  # share of answers taken to be given at random
    updates: int = 50  # whenever new comparisons are there
    batch_size: int = 64  # comparisons

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("members", "updates", "batch_size"):
            require(
                getattr(self, name) >= 1, f"algo.feedback.reward.{name}", getattr(self, name), "at least 1"
            )
        require(0 < self.lr < math.inf, "algo.feedback.reward.lr", self.lr, "finite and > 0")
        shrink, name = self.lr * self.weight_decay, "algo.feedback.reward.weight_decay"
        require(0 <= shrink <= _MOST, name, self.weight_decay, f">= 0 and at most {_MOST} / lr")
        require(0 <= self.label_noise < 1, "algo.feedback.reward.label_noise", self.label_noise, "in [0, 1)")
        require_widths("algo.feedback.reward.hidden", self.hidden)


class Agent(nn.Module):
    """The ensemble, the scales of what goes in and comes out, the optimizer."""

    mean: Tensor
    std: Tensor

    def __init__(self, cfg: Config, obs_dim: int, action_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        num, device = cfg.members, generator.device
        self.ensemble = TwinCritic(obs_dim, action_dim, cfg.hidden, num=num, generator=generator)
        self.obs_stats = RunningMeanStd((obs_dim,)).to(device)
        self.register_buffer("mean", torch.zeros(num, 1, device=device))
        self.register_buffer("std", torch.ones(num, 1, device=device))
        self.optimizer = torch.optim.AdamW(
            self.ensemble.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True
        )

    def members(self, obs: Tensor, action: Tensor) -> Tensor:
        """Rewards of every member, not normalised, `[M, ...]` for `obs [..., D]`, `action [..., A]`."""
        flat = self.ensemble(self.obs_stats(obs).flatten(0, -2), action.flatten(0, -2))
        return flat.view(-1, *obs.shape[:-1])

    def logits(self, pairs: Segments) -> Tensor:
        """How much better each member finds the first of pairs `[Q, 2]`: `[M, Q]`."""
        first, second = self.members(pairs.obs, pairs.action).sum(-1).unbind(2)
        return first - second

    @torch.no_grad()
    def disagreement(self, pairs: Segments) -> Tensor:
        """Variance over the members of P(first better) in pairs `[Q, 2]`: `[Q]`."""
        return self.logits(pairs).sigmoid().var(0, correction=0)

    @torch.no_grad()
    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """The reward to learn from, `[...]`: the mean of the normalised members."""
        found = self.members(obs, action).flatten(1)
        return ((found - self.mean) / self.std).mean(0).view(obs.shape[:-1])

    @torch.no_grad()
    def normalize(self, segments: Segments) -> None:
        """Give every member mean 0 and deviation 1 over the steps of these segments."""
        found = self.members(segments.obs, segments.action).flatten(1)
        self.mean.copy_(found.mean(1, keepdim=True))
        self.std.copy_(found.std(1, keepdim=True).clamp_min(1e-6))


def preference_loss(logits: Tensor, preference: Tensor, weight: Tensor, label_noise: float) -> Tensor:
    """Cross-entropy of logits `[M, Q]` with preferences `[Q]`, weighted by `[M, Q]`, summed over members.

    A member's loss is the mean over the comparisons that it sees, as often as it sees them.
    """
    loss = cross_entropy(logits, preference, label_noise)
    return ((weight * loss).sum(1) / weight.sum(1).clamp_min(1.0)).sum()


def cross_entropy(logits: Tensor, preference: Tensor, label_noise: float) -> Tensor:
    """Loss of each member's logits `[M, Q]` on each of the preferences `[Q]`: `[M, Q]`."""
    target = (1.0 - label_noise) * preference + 0.5 * label_noise
    zero = torch.zeros_like(logits)
    return target * bradley_terry_loss(logits, zero) + (1.0 - target) * bradley_terry_loss(zero, logits)


def update(
    agent: Agent, pairs: Segments, preference: Tensor, weight: Tensor, cfg: Config
) -> dict[str, Tensor]:
    """One optimizer step on pairs `[Q, 2]`; returns the loss before it, a mean over members."""
    loss = preference_loss(agent.logits(pairs), preference, weight, cfg.label_noise)
    agent.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    agent.optimizer.step()
    return {"loss": loss.detach() / cfg.members}


def fit(
    agent: Agent, judged: Judgements, pool: Segments, cfg: Config, generator: torch.Generator
) -> dict[str, float]:
    """Train on all comparisons for `cfg.updates` steps, normalise over the pool; what `evaluate` returns."""
    agent.obs_stats.update(pool.obs)
    for _ in range(cfg.updates):
        size = (min(cfg.batch_size, len(judged)),)
        index = torch.randint(len(judged), size, generator=generator, device=generator.device)
        rows = judged.pairs[index], judged.preference[index], judged.counts[index].T
        update(agent, *rows, cfg)
    agent.normalize(pool)
    stats = evaluate(agent, judged, cfg)
    (group,) = agent.optimizer.param_groups
    group["weight_decay"] = adapted_decay(group["weight_decay"], stats, _MOST / cfg.lr)
    return stats | {"weight_decay": group["weight_decay"]}


def adapted_decay(decay: float, losses: Mapping[str, float], most: float) -> float:
    """Twice the decay, up to `most`, where members overfit, half of it where they could fit more closely."""
    low, high = _RATIOS
    if losses["loss_unseen"] > high * losses["loss"]:
        return min(2.0 * decay, most)
    return 0.5 * decay if losses["loss_unseen"] < low * losses["loss"] else decay


@torch.no_grad()
def evaluate(agent: Agent, judged: Judgements, cfg: Config) -> dict[str, float]:
    """Loss on comparisons that members have and have not seen, and how often they agree with the teacher.

    For the accuracy each comparison is judged by the members whose bootstrap left it out; those that all have
    seen, and ties, do not count. Without any left there is no `accuracy`.
    """
    logits, unseen = agent.logits(judged.pairs), judged.counts.T == 0
    loss = cross_entropy(logits, judged.preference, cfg.label_noise)
    stats = {"loss": float(loss[~unseen].mean()), "loss_unseen": float(loss[unseen].mean())}
    counts = unseen.any(0) & (judged.preference != 0.5)
    if not counts.any():
        return stats
    held_out = torch.where(unseen, logits, 0.0).sum(0)[counts]
    right = (held_out > 0) == (judged.preference[counts] > 0.5)
    return stats | {"accuracy": float(right.float().mean()), "held_out": float(counts.sum())}


@torch.no_grad()
def agreement(agent: Agent, segments: Segments) -> float:
    """Correlation of learnt and true returns over segments `[S]`; 0 where either does not vary."""
    learnt = agent(segments.obs, segments.action).sum(-1)
    both = torch.stack([learnt, segments.returns()]).double()
    both = both - both.mean(1, keepdim=True)
    product = both.norm(dim=1).prod()
    return float((both[0] * both[1]).sum() / product.clamp_min(1e-12))
