"""Group-relative policy optimisation: one loop, whose members are points on independent axes.

    L = reduce( surrogate(ratio(pi, pi_old), A) + beta KL(pi, ref) ),   A = advantage(rewards of the group)

    preset        paper             advantage    ratio              clip          reduction  besides
    grpo          arXiv:2402.03300  zscore       token              0.2           sequence   KL in the loss
    dr_grpo       arXiv:2503.20783  center       token              0.2           constant
    dapo          arXiv:2503.14476  zscore       token              0.2 / 0.28    token      refill, overlong
    gspo          arXiv:2507.18071  zscore       geometric          3e-4 / 4e-4   sequence
    gmpo          arXiv:2507.20673  zscore       clipped_geometric  0.4           sequence   surrogate none
    gfpo          arXiv:2508.09726  zscore       token              0.2           token      keep the shortest
    lite_ppo      arXiv:2508.08221  batch_scale  token              0.2           token
    rloo          arXiv:2402.14740  leave_one_out sequence          0.2           sequence   KL in the reward
    reinforce_pp  arXiv:2501.03262  batch        token              0.2           token      KL in the reward
    cispo         arXiv:2506.13585  zscore       token              0 .. 5        token      surrogate cispo
    sapo          arXiv:2511.20347  zscore       token              none          sequence   surrogate sapo
    vespo         arXiv:2602.10693  zscore       of the response    none          token      surrogate vespo
    luspo         arXiv:2602.05261  zscore       geometric          3e-4 / 4e-4   sum
    gdpo          arXiv:2601.05242  batch        token              0.2           sequence   objectives zscore

Departures: the sampler's log-probabilities are the old ones (no second pass). Rows of advantage 0, which have
no gradient unless there is a KL loss or an entropy bonus, are not run; they count in the denominators. The KL
in the reward is the whole response's, also for REINFORCE++, whose paper charges each token what follows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from llm_align.feedback.rewards import Rewards, overlong_penalty
from llm_align.models import optim
from llm_align.models.log_probs import log_probs
from llm_align.online import rollout
from llm_align.online.loop import Experience, Loop, Watching
from llm_align.online.reference import KL, minibatches
from llm_align.online.rollout import Samples, Task
from rl_core import distributed
from rl_core import policy_losses as losses
from rl_core.advantages import (
    group_center,
    group_center_batch_scale,
    group_zscore,
    leave_one_out,
    sum_of_zscores,
)
from rl_core.config import choice, require, require_default, require_read
from rl_core.reductions import constant_mean, masked_sum, sequence_mean, token_mean
from rl_core.run import Run
from rl_core.schedules import set_lr, warmup

ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {  # each [P, G] -> [P, G]; NaN is "not judged"
    "zscore": group_zscore,
    "center": group_center,
    "batch_scale": group_center_batch_scale,
    "leave_one_out": leave_one_out,
    "batch": lambda rewards: group_zscore(rewards.reshape(1, -1)).view_as(rewards),
}
RATIOS: dict[str, Callable[..., Tensor]] = {
    "token": losses.token_ratio,
    "sequence": losses.sequence_ratio,
    "geometric": losses.geometric_ratio,
    "geometric_token": losses.geometric_token_ratio,
    "clipped_geometric": losses.clipped_geometric_ratio,
}
# what each reads that not all do: vespo makes the whole response's ratio itself
_CLIPPED = ("ratio", "dual_clip", "clip_low", "clip_high")
SURROGATES = dict.fromkeys(("clip", "none", "cispo"), _CLIPPED) | {"sapo": _CLIPPED[:2], "vespo": ()}


@dataclass(kw_only=True, slots=True)
class Config:
    """The axes; the defaults are GRPO's without a KL term."""

    lr: float = 1e-6
    warmup: int = 0  # steps
    max_grad_norm: float = 1.0
    epochs: int = 1  # passes over a rollout
    minibatches: int = 1  # optimizer steps per pass
    micro_batch_size: int = 0  # responses a process runs at a time, 0: all of a minibatch; the same numbers
    objectives: str = "sum"  # of several rewards; zscore: each in its group before the weighted sum
    advantage: str = "zscore"
    ratio: str = "token"
    surrogate: str = "clip"  # clip | none | cispo (bounds on the ratio itself) | sapo | vespo
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = math.inf  # above 1: cap of the ratio where the advantage is negative
    reduction: str = "sequence"  # sequence | token | constant (the length limit) | sum (over a response)
    entropy_coef: float = 0.0
    kl: KL = field(default_factory=KL)
    refill: int = 0  # DAPO: at most so many more rollouts to replace groups of equal rewards
    overlong_buffer: int = 0  # DAPO: tokens before the limit over which the reward falls by 1
    drop_truncated: bool = False  # responses cut at the limit teach nothing (DAPO's overlong filtering)
    keep: int = 0  # GFPO: so many of each group count, 0 all
    keep_by: str = "length"  # length: the shortest | efficiency: most reward per token

    def __post_init__(self) -> None:
        """Check words and ranges."""
        choice("algo.objectives", self.objectives, ["sum", "zscore"])
        choice("algo.advantage", self.advantage, ADVANTAGES)
        choice("algo.ratio", self.ratio, RATIOS)
        choice("algo.surrogate", self.surrogate, SURROGATES)
        choice("algo.reduction", self.reduction, ["sequence", "token", "constant", "sum"])
        choice("algo.keep_by", self.keep_by, ["length", "efficiency"])
        for name in ("lr", "max_grad_norm"):
            require(getattr(self, name) > 0, f"algo.{name}", getattr(self, name), "> 0")
        for name in ("epochs", "minibatches"):
            require(getattr(self, name) >= 1, f"algo.{name}", getattr(self, name), "at least 1")
        not_negative = ("warmup", "micro_batch_size", "clip_low", "clip_high", "entropy_coef", "refill")
        for name in (*not_negative, "overlong_buffer", "keep"):
            require(getattr(self, name) >= 0, f"algo.{name}", getattr(self, name), ">= 0")
        require(self.dual_clip > 1, "algo.dual_clip", self.dual_clip, "> 1")
        twice = self.ratio == "clipped_geometric" and self.surrogate != "none"
        require(not twice, "algo.surrogate", self.surrogate, "none: clipped_geometric has clipped already")
        require_read(self, "surrogate", SURROGATES)
        if not self.keep:
            require_default(self, ["keep_by"], "algo.keep above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What was drawn, the rows of it that teach something, and what their loss is divided by."""

    samples: Samples
    advantage: Tensor  # [B]
    rows: Tensor  # [b] int64: the others have no gradient
    num_rows: float  # with the rows left out
    num_tokens: float
    ref_log_prob: Tensor | None  # [B, L]
    kl_coef: float
    rollout: rollout.Config


class Agent(nn.Module):
    """The policy and its optimizer. The policy stays in evaluation mode: dropout would move the ratio."""

    def __init__(self, cfg: Config, policy: Any) -> None:
        super().__init__()
        self.policy = policy.eval()
        self.optimizer = optim.plain_adamw((policy, cfg.lr))


def decoupled(experience: Experience, rewards: Rewards) -> Experience:
    """The same responses, whose reward is the weighted sum of each reward's z-scores in its group."""
    samples = experience.samples
    weights = {reward.name: reward.weight for reward in rewards.rewards if reward.weight}
    parts = torch.stack([samples.grouped(samples.parts[name]) for name in weights])
    total = sum_of_zscores(parts, torch.tensor([*weights.values()], device=parts.device)).flatten()
    return replace(experience, samples=replace(samples, reward=total))


def advantages(
    samples: Samples, cfg: Config, ref_log_prob: Tensor | None, kl_coef: float, drawn: rollout.Config
) -> Tensor:
    """Advantage `[B]` of each response within its group, after what shapes and filters the rewards."""
    reward, lengths = samples.reward, samples.responses.loss_mask.sum(1)
    if cfg.overlong_buffer:
        reward = reward + overlong_penalty(lengths, limit=drawn.limit, buffer=cfg.overlong_buffer)
    if cfg.kl.in_reward:
        assert ref_log_prob is not None
        kl = cfg.kl.per_token(samples.log_prob, ref_log_prob)
        reward = reward - kl_coef * masked_sum(kl, samples.responses.loss_mask, dim=-1)
    if cfg.drop_truncated:
        reward = reward.masked_fill(~samples.ended, math.nan)
    if cfg.keep:
        merit = -lengths.float() if cfg.keep_by == "length" else reward / lengths
        reward = _keep_best(samples.grouped(reward), samples.grouped(merit), cfg.keep).flatten()
    return ADVANTAGES[cfg.advantage](samples.grouped(reward)).flatten()


def _keep_best(reward: Tensor, merit: Tensor, count: int) -> Tensor:
    """Rewards `[P, G]`, NaN outside the `count` judged ones of each group with the highest merit."""
    order = merit.masked_fill(reward.isnan(), -math.inf).argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(-1)
    return reward.masked_fill(rank >= count, math.nan)


def policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, mask: Tensor, cfg: Config
) -> Tensor:
    """The elementwise loss `[B, L]` of the configured ratio and surrogate; advantage `[B]`."""
    spread = advantage[:, None].expand_as(log_prob)
    if cfg.surrogate == "vespo":
        return losses.vespo(log_prob, old_log_prob, spread, mask)
    clips = {"clip_low": cfg.clip_low, "clip_high": cfg.clip_high}
    if cfg.ratio == "clipped_geometric":
        ratio = losses.clipped_geometric_ratio(log_prob, old_log_prob, spread, mask, **clips)
    else:
        ratio = RATIOS[cfg.ratio](log_prob, old_log_prob, mask)
    if cfg.surrogate == "cispo":
        bounds = {"ratio_low": cfg.clip_low, "ratio_high": cfg.clip_high}
        loss = losses.cispo(ratio, log_prob, spread, **bounds)
    elif cfg.surrogate == "sapo":
        loss = losses.sapo(ratio, spread)
    elif cfg.surrogate == "clip":
        loss = losses.clipped_surrogate(ratio, spread, **clips)
    else:
        loss = losses.surrogate(ratio, spread)
    return losses.dual_clip(loss, spread, bound=cfg.dual_clip) if math.isfinite(cfg.dual_clip) else loss


def reduce(loss: Tensor, mask: Tensor, batch: Batch, cfg: Config) -> Tensor:
    """Elementwise loss `[b, L]` of some rows to their part of a minibatch's loss, a scalar."""
    share = 1.0 / cfg.minibatches
    if cfg.reduction == "token":
        return token_mean(loss, mask, num_tokens=batch.num_tokens * share)
    weight = len(loss) / (batch.num_rows * share)
    if cfg.reduction == "sequence":
        return sequence_mean(loss, mask) * weight
    length = batch.rollout.limit if cfg.reduction == "constant" else 1
    return constant_mean(loss, mask, length=length) * weight


def loss_of(policy: Any, batch: Batch, rows: Tensor, cfg: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of `rows` as their part of one minibatch's, and detached scalars to log."""
    responses = batch.samples.responses.select(rows)
    mask = responses.loss_mask
    temperature = batch.rollout.temperature
    now = log_probs(policy, responses, temperature=temperature, entropy=cfg.entropy_coef > 0)
    old = batch.samples.log_prob[rows, : mask.shape[1]]
    loss = policy_loss(now.log_prob, old, batch.advantage[rows], mask, cfg)
    if cfg.kl.in_loss:
        assert batch.ref_log_prob is not None
        ref = batch.ref_log_prob[rows, : mask.shape[1]]
        loss = loss + batch.kl_coef * cfg.kl.per_token(now.log_prob, ref)
    if now.entropy is not None:
        loss = loss - cfg.entropy_coef * now.entropy
    return reduce(loss, mask, batch, cfg), ratio_stats(now.log_prob.detach(), old, mask, cfg)


def ratio_stats(log_prob: Tensor, old_log_prob: Tensor, mask: Tensor, cfg: Config) -> dict[str, Tensor]:
    """`policy_losses.ratio_stats` of the ratio that is clipped, within the bounds that clip it."""
    low, high = cfg.clip_low, cfg.clip_high
    if cfg.surrogate == "cispo":
        low, high = 1.0 - low, high - 1.0
    elif cfg.ratio == "clipped_geometric":
        low, high = -math.expm1(-low), math.expm1(high)
    elif cfg.surrogate != "clip":
        low = high = math.inf
    whole = cfg.ratio not in ("token", "clipped_geometric")
    ratio = RATIOS[cfg.ratio](log_prob, old_log_prob, mask) if whole else None
    return losses.ratio_stats(log_prob, old_log_prob, mask, clip_low=low, clip_high=high, ratio=ratio)


def update(agent: Agent, batch: Batch, cfg: Config, generator: torch.Generator) -> dict[str, Tensor]:
    """`epochs` x `minibatches` optimizer steps on one batch; returns the means of their numbers.

    A batch without rows (all rewards equal) takes no step: `updates` is 0.
    """
    history: list[dict[str, Tensor]] = []
    piece_size = cfg.micro_batch_size * distributed.size()
    for _ in range(cfg.epochs if len(batch.rows) else 0):
        prompt_index = batch.samples.responses.prompt_index[batch.rows]
        for places in minibatches(prompt_index, cfg.minibatches, generator):
            agent.optimizer.zero_grad(set_to_none=True)
            parts = []
            tokens = batch.samples.responses.loss_mask[batch.rows[places]].sum()
            for piece in batch.rows[places].split(piece_size or len(places)):
                rows, weight = distributed.share(piece)
                loss, stats = loss_of(agent.policy, batch, rows, cfg)
                (weight * loss).backward()
                part = weight * batch.samples.responses.loss_mask[rows].sum() / tokens
                stats = {name: x if name.endswith("_max") else part * x for name, x in stats.items()}
                parts.append(stats | {"loss": weight * loss.detach()})
            norm = distributed.clip_and_step(agent.optimizer, cfg.max_grad_norm)
            history.append(distributed.combine(_whole(parts)) | {"grad_norm": norm})
    return _mean(history) | {"updates": torch.tensor(float(len(history)))}


def _whole(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Numbers of a minibatch from those of its parts: the largest where the name says so, else the sum."""
    stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    return {name: x.amax() if name.endswith("_max") else x.sum() for name, x in stacked.items()}


def _mean(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name] for row in rows]).mean() for name in (rows[0] if rows else {})}


def enough(cfg: Config, prompts: int) -> Callable[[list[Samples]], bool]:
    """Whether rollouts suffice: as many groups as `prompts` differ in reward, or `refill` allows no more."""

    def suffices(drawn: list[Samples]) -> bool:
        differing = sum(int((group_center(s.grouped(s.reward)) != 0).any(1).sum()) for s in drawn)
        return len(drawn) > cfg.refill or differing >= prompts

    return suffices


def collect(cfg: Config, experience: Experience, drawn: rollout.Config) -> Batch:
    """Find what teaches, and what the losses of what teaches are divided by."""
    samples = experience.samples
    advantage = advantages(samples, cfg, experience.ref_log_prob, experience.kl_coef, drawn)
    counted = torch.ones_like(advantage, dtype=torch.bool)
    if cfg.refill:  # dynamic sampling: the batch is the groups that differ, as many as were asked for
        groups = samples.grouped(advantage != 0).any(1)
        groups &= groups.cumsum(0) <= drawn.prompts
        counted = groups.repeat_interleave(samples.group_size)
    moves = advantage != 0
    if cfg.kl.in_loss or cfg.entropy_coef:
        moves |= ~samples.reward.isnan()
    return Batch(
        samples=samples,
        advantage=advantage,
        rows=(moves & counted).nonzero()[:, 0],
        num_rows=float(counted.sum()),
        num_tokens=float(samples.responses.loss_mask[counted].sum()),
        ref_log_prob=experience.ref_log_prob,
        kl_coef=experience.kl_coef,
        rollout=drawn,
    )


def check_groups(cfg: Config, drawn: rollout.Config) -> None:
    """Raise ValueError for rollouts from which these settings could not learn, or would ignore one."""
    within = cfg.advantage != "batch" or cfg.objectives == "zscore"
    rollout.require_compared(drawn, f"algo.advantage={cfg.advantage}", within=within)
    fewest = 2 if within else 1
    accepted = f"0 (all) or {fewest} to rollout.group_size={drawn.group_size}"
    require(cfg.keep == 0 or fewest <= cfg.keep <= drawn.group_size, "algo.keep", cfg.keep, accepted)
    limit = f"at most the {drawn.limit} tokens that a response may have"
    require(cfg.overlong_buffer <= drawn.limit, "algo.overlong_buffer", cfg.overlong_buffer, limit)


def train(cfg: Config, task: Task, policy: Any, run: Run, **watching: Unpack[Watching]) -> Agent:
    """Train `policy` for `run.cfg.steps` rollouts on the task's prompts."""
    check_groups(cfg, task.config)
    loop = Loop(task, policy, run, cfg.kl, **watching)
    agent = Agent(cfg, loop.policy)
    step_fn = run.accelerate(update)
    for step in loop.steps(agent):
        set_lr(agent.optimizer, warmup(step, cfg.warmup))
        experience = loop.draw(enough(cfg, task.config.prompts))
        if cfg.objectives == "zscore":
            experience = decoupled(experience, task.rewards)
        batch = collect(cfg, experience, task.config)
        stats = step_fn(agent, batch, cfg, run.rng)
        run.log(step, stats | {"used_rows": torch.tensor(len(batch.rows) / len(batch.samples))})
    return agent
