"""Choosing the next token: greedy, temperature, top-k and top-p, with the log-probability of the choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rl_core.config import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How responses are drawn.

    `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 keep every token. A response ends with the first of
    `stop_ids` (which is part of it) or, truncated, after `max_new_tokens`.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(self.max_new_tokens > 0, "max_new_tokens", self.max_new_tokens, "> 0")
        require(self.temperature >= 0, "temperature", self.temperature, ">= 0 (0 is greedy)")
        require(self.top_k >= 0, "top_k", self.top_k, ">= 0 (0 keeps every token)")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")


def choose(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Choose one token per row of `logits [B, V]` with one number of `uniform [B]` in [0, 1) each.

    Returns tokens `[B]` and log-probabilities `[B]` float32 under the tempered distribution *before* top-k
    and top-p: the quantity that `log_probs` computes, so that a policy ratio starts at exactly 1 (greedy:
    at temperature 1). With top-k or top-p the tokens come from a truncated, renormalised distribution.
    """
    logits = logits.float()
    if sampling.temperature == 0:
        best, tokens = logits.max(-1)
        return tokens, best - logits.logsumexp(-1)
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    if sampling.top_k == 0 and sampling.top_p == 1:
        tokens, total = _invert(weights, uniform)
        chosen = weights.gather(-1, tokens[:, None])[:, 0]
    else:
        total = weights.sum(-1)
        kept, index = _truncate(weights, sampling, total)
        place, _ = _invert(kept, uniform)
        tokens = index.gather(-1, place[:, None])[:, 0]
        chosen = kept.gather(-1, place[:, None])[:, 0]
    return tokens, chosen.log() - total.log()


def _invert(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from unnormalised `weights [B, K]` by inverting their cumulative sum; also return totals `[B]`.

    One uniform number per row: cheaper than one exponential per token, and a row's draw does not depend on
    which other rows are left.
    """
    cumulative = weights.cumsum(-1)
    total = cumulative[:, -1]
    # the factor keeps the threshold under the total after rounding: a token of weight 0 is never drawn
    threshold = uniform * total * (1 - 2**-20)
    return torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0], total


def _truncate(weights: Tensor, sampling: Sampling, total: Tensor) -> tuple[Tensor, Tensor]:
    """The weights that top-k, then top-p keep (others 0), in falling order, and their token ids."""
    count = min(sampling.top_k or weights.shape[-1], weights.shape[-1])
    kept, index = weights.topk(count, -1) if sampling.top_k else weights.sort(-1, descending=True)
    if sampling.top_p == 1:
        return kept, index
    mass = kept.sum(-1, keepdim=True) if sampling.top_k else total[:, None]
    before = kept.cumsum(-1) - kept
    return kept.masked_fill(before >= sampling.top_p * mass, 0.0), index
