"""Who earned what: a response's score and its KL price as rewards of its tokens, and their advantages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_align.models.parallel import by_rows
from llm_align.models.value_head import ValueModel
from llm_align.online.reference import KL
from llm_align.online.rollout import Samples
from rl_core.advantages import gae
from rl_core.config import choice, require
from rl_core.reductions import whiten


@dataclass(kw_only=True, slots=True)
class Config:
    """How scores become token rewards and advantages."""

    gamma: float = 1.0
    lam: float = 0.95
    truncated: str = "score"  # score | bootstrap: what a response cut at its limit is worth
    missing_eos_penalty: float = 0.0  # taken from the score of one that was cut
    whiten_rewards: bool = False
    clip_score: float = math.inf

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("gamma", "lam"):
            require(0 <= getattr(self, name) <= 1, f"algo.credit.{name}", getattr(self, name), "in [0, 1]")
        choice("algo.credit.truncated", self.truncated, ["score", "bootstrap"])
        require(
            self.missing_eos_penalty >= 0, "algo.credit.missing_eos_penalty", self.missing_eos_penalty, ">= 0"
        )
        judged = self.truncated == "score" or not self.missing_eos_penalty
        cut = "0 with truncated=bootstrap: a response that was cut has no score there"
        require(judged, "algo.credit.missing_eos_penalty", self.missing_eos_penalty, cut)
        require(self.clip_score > 0, "algo.credit.clip_score", self.clip_score, "> 0")


def last_token(mask: Tensor) -> Tensor:
    """True at the last True of each row of `mask [B, L]`."""
    return mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)


def next_values(values: Tensor, mask: Tensor, final: Tensor) -> Tensor:
    """Value before the policy's next token, `[B, L]`, over an environment's words; at the last, `final [B]`.

    values, mask [B, L]; what stands outside the mask is meaningless.
    """
    length = mask.shape[1]
    place = torch.where(mask, torch.arange(length, device=mask.device), length)
    upcoming = place.flip(-1).cummin(-1).values.flip(-1)  # the first True at or after t
    upcoming = torch.cat([upcoming[:, 1:], torch.full_like(upcoming[:, :1], length)], 1)
    return torch.cat([values, final[:, None]], 1).gather(1, upcoming)


def token_rewards(
    samples: Samples, cfg: Config, kl: KL, kl_coef: float, ref_log_prob: Tensor | None
) -> Tensor:
    """Rewards `[B, L]`: the KL price at every token of the policy's, the score at its last one.

    With `truncated="bootstrap"` a cut response has no score: it was not finished, so it cannot be judged; the
    critic says what it was worth. With "score" the limit is the end of the task, and its score counts. What
    nothing judged earns 0 and does not move the scale of the others.
    """
    mask = samples.judged_mask
    score = samples.reward.nan_to_num(0.0).clamp(-cfg.clip_score, cfg.clip_score)
    score = score - cfg.missing_eos_penalty * ~samples.ended
    if cfg.truncated == "bootstrap":
        score = score * samples.ended
    rewards = score[:, None] * last_token(mask)
    if kl.in_reward:
        assert ref_log_prob is not None
        rewards = rewards - kl_coef * kl.per_token(samples.log_prob, ref_log_prob) * mask
    return whiten(rewards, mask, shift_mean=False) if cfg.whiten_rewards else rewards


@torch.no_grad()
def estimate(
    samples: Samples, critic: ValueModel, rewards: Tensor, cfg: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, advantages and returns, each `[B, L]`, of token rewards `[B, L]`."""
    mask = samples.responses.loss_mask
    values = by_rows(critic, samples.responses)
    ended = last_token(mask)
    bootstraps = ~samples.ended if cfg.truncated == "bootstrap" else torch.zeros_like(samples.ended)
    final = torch.zeros_like(samples.reward)
    if bootstraps.any():
        cut = samples.responses.select(bootstraps)
        final[bootstraps] = by_rows(lambda part: critic.scores(part)[:, None], cut)[:, 0]
    advantage, returns = gae(
        rewards,
        values,
        next_values(values, mask, final),
        terminated=ended & ~bootstraps[:, None],
        ended=ended,
        gamma=cfg.gamma,
        lam=cfg.lam,
        mask=mask,
    )
    return values, advantage, returns
