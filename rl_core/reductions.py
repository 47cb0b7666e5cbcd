"""Masked statistics, and the one place that decides how elementwise losses become a scalar.

Masks are bool, True counts. What stands under False never enters a result, NaN included; a gradient flows
cleanly through finite numbers only. An all-False mask gives 0, never NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

WHITEN_EPS = 1e-8


def masked_sum(x: Tensor, mask: Tensor | None = None, dim: int | None = None) -> Tensor:
    """Sum of `x [...]` where `mask [...]` is True; over everything, or over one axis."""
    kept = x if mask is None else torch.where(mask, x, 0.0)
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(x: Tensor, mask: Tensor | None = None, dim: int | None = None) -> Tensor:
    """Mean of `x [...]` where `mask [...]` is True, over everything or one axis; 0 where nothing counts."""
    ones = torch.ones_like(x) if mask is None else mask.expand_as(x).to(x.dtype)
    count = ones.sum() if dim is None else ones.sum(dim)
    return masked_sum(x, mask, dim) / count.clamp_min(1.0)


def masked_var(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Unbiased (Bessel) variance of `x [...]` where `mask` is True, a scalar; 0 for a single element."""
    ones = torch.ones_like(x) if mask is None else mask.expand_as(x).to(x.dtype)
    return masked_sum((x - masked_mean(x, mask)).square(), mask) / (ones.sum() - 1.0).clamp_min(1.0)


def whiten(x: Tensor, mask: Tensor | None = None, *, shift_mean: bool = True) -> Tensor:
    """Scale `x [...]` to mean 0 and unbiased variance 1 over the mask; entries outside the mask become 0.

    `shift_mean=False` keeps the mean, as for rewards whose sign matters. A constant `x` gives zeros.
    """
    mean = masked_mean(x, mask)
    white = (x - mean) * torch.rsqrt(masked_var(x, mask) + WHITEN_EPS)
    if not shift_mean:
        white = white + mean
    return white if mask is None else torch.where(mask, white, 0.0)


def token_mean(loss: Tensor, mask: Tensor | None = None, num_tokens: Tensor | float | None = None) -> Tensor:
    """Every token weighs the same: sum over tokens / number of tokens. `loss`, `mask [...]`, to a scalar.

    The DAPO reduction (arXiv:2503.14476). `num_tokens` is the count of the whole batch when `loss`
    is one micro-batch of it, so that accumulated gradients equal those of the whole.
    """
    return masked_mean(loss, mask) if num_tokens is None else masked_sum(loss, mask) / num_tokens


def sequence_mean(loss: Tensor, mask: Tensor | None = None) -> Tensor:
    """Every sequence weighs the same: mean over tokens, then over rows. `loss`, `mask [B, L]`, to a scalar.

    The GRPO reduction (arXiv:2402.03300). A row without tokens counts as a row with loss 0.
    """
    return masked_mean(loss, mask, dim=-1).mean()


def constant_mean(loss: Tensor, mask: Tensor | None = None, *, length: float) -> Tensor:
    """Sum over tokens / (rows x `length`), `length` a constant; `[B, L]` to a scalar.

    The Dr. GRPO reduction (arXiv:2503.20783) with the response limit as `length`: unlike a mean over the
    tokens present, it has no length bias. `length=1` is the mean over rows of the sum over tokens.
    """
    return masked_sum(loss, mask, dim=-1).mean() / length
