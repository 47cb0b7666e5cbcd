"""Policy-gradient losses on independent axes: importance ratio x surrogate (clip) x reduction (x KL term).

Everything is elementwise, `[b]` for robot steps or `[B, L]` for response tokens, and becomes a scalar by
one function of `reductions`. A KL term is `coef * kl.k3(log_prob, ref_log_prob)`, added before the
reduction. With `A` from `advantages`:

    GRPO     group_zscore   token_ratio              clipped_surrogate                    sequence_mean
    Dr.GRPO  group_center   token_ratio              clipped_surrogate                    constant_mean(limit)
    DAPO     group_zscore   token_ratio              clipped_surrogate(0.2, 0.28)         token_mean
    GSPO     group_zscore   geometric_ratio          clipped_surrogate(3e-4, 4e-4)        sequence_mean
    GMPO     group_zscore   clipped_geometric_ratio  surrogate                            sequence_mean
    CISPO    group_zscore   token_ratio              cispo(0, 5)                          token_mean
    SAPO     group_zscore   token_ratio              sapo                                 sequence_mean
    VESPO    group_zscore   of the whole response    vespo                                token_mean
    LUSPO    group_zscore   geometric_ratio          clipped_surrogate                    constant_mean(1)
    RLOO     leave_one_out  sequence_ratio           clipped_surrogate                    sequence_mean
    PPO      gae            token_ratio              clipped_surrogate (+ dual_clip)      token_mean
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rl_core.kl import k3
from rl_core.reductions import masked_mean, masked_sum


def token_ratio(log_prob: Tensor, old_log_prob: Tensor, mask: Tensor | None = None) -> Tensor:
    """`pi / pi_old` of every step or token, `[...]`; 1 outside the mask."""
    return _log_ratio(log_prob, old_log_prob, mask).exp()


def sequence_ratio(log_prob: Tensor, old_log_prob: Tensor, mask: Tensor | None = None) -> Tensor:
    """Ratio of the whole response, the product over its tokens, repeated at each of them: `[B, L]` (RLOO)."""
    log_ratio = masked_sum(_log_ratio(log_prob, old_log_prob, mask), mask, dim=-1)
    return log_ratio.exp().unsqueeze(-1).expand_as(log_prob)


def geometric_ratio(log_prob: Tensor, old_log_prob: Tensor, mask: Tensor | None = None) -> Tensor:
    """Geometric mean of the token ratios, at each token: `[B, L]` (GSPO, arXiv:2507.18071)."""
    log_ratio = masked_mean(_log_ratio(log_prob, old_log_prob, mask), mask, dim=-1)
    return log_ratio.exp().unsqueeze(-1).expand_as(log_prob)


def geometric_token_ratio(log_prob: Tensor, old_log_prob: Tensor, mask: Tensor | None = None) -> Tensor:
    """The value of `geometric_ratio` with each token's own gradient, `[B, L]` (GSPO-token, same paper)."""
    own = log_prob if mask is None else torch.where(mask, log_prob, 0.0)
    return geometric_ratio(log_prob, old_log_prob, mask).detach() * (own - own.detach()).exp()


def clipped_geometric_ratio(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    mask: Tensor | None = None,
    *,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """Geometric mean of token ratios clipped one by one, `[B, L]` (GMPO, arXiv:2507.20673).

    The bounds are on the log ratio: at most `clip_high` where the advantage is positive, at least
    `-clip_low` where it is negative; the side that would undo a past step stays open, as in PPO.
    """
    log_ratio = _log_ratio(log_prob, old_log_prob, mask)
    clipped = torch.where(advantage >= 0, log_ratio.clamp(max=clip_high), log_ratio.clamp(min=-clip_low))
    return masked_mean(clipped, mask, dim=-1).exp().unsqueeze(-1).expand_as(log_prob)


def reinforce(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """`-A * log pi`, elementwise `[...]` (Williams 1992). The advantage carries no gradient."""
    return -advantage.detach() * log_prob


def surrogate(ratio: Tensor, advantage: Tensor) -> Tensor:
    """`-ratio * A`, elementwise `[...]`: TRPO's objective; at ratio 1 its gradient is that of REINFORCE."""
    return -ratio * advantage.detach()


def clipped_surrogate(ratio: Tensor, advantage: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """`-min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A)`, elementwise `[...]`.

    Equal bounds are PPO's (arXiv:1707.06347, eq. 7), `clip_high > clip_low` DAPO's (arXiv:2503.14476).
    """
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return torch.maximum(surrogate(ratio, advantage), surrogate(clipped, advantage))


def dual_clip(loss: Tensor, advantage: Tensor, *, bound: float) -> Tensor:
    """Cap a surrogate loss at `-bound * A` where the advantage is negative, elementwise (arXiv:1912.09729).

    `bound > 1` (the paper: 3). It equals a cap of the ratio itself at `bound`, the two-sided clip of
    INTELLECT-2.
    """
    return torch.where(advantage < 0, torch.minimum(loss, -bound * advantage.detach()), loss)


def cispo(
    ratio: Tensor, log_prob: Tensor, advantage: Tensor, *, ratio_low: float, ratio_high: float
) -> Tensor:
    """REINFORCE weighted by the clipped, detached ratio, elementwise `[...]` (CISPO, arXiv:2506.13585).

    The bounds are on the ratio itself; every token keeps a gradient, also one that PPO would clip away.
    """
    return ratio.detach().clamp(ratio_low, ratio_high) * reinforce(log_prob, advantage)


def sapo(ratio: Tensor, advantage: Tensor, *, tau_up: float = 1.0, tau_down: float = 1.05) -> Tensor:
    """`-A * 4 / tau * sigmoid(tau (ratio - 1))`, elementwise `[...]`: a soft gate (SAPO, arXiv:2511.20347).

    At ratio 1 its gradient is that of the plain surrogate, away from it the gradient fades on both sides.
    `tau` is `tau_up` where the advantage is positive, else `tau_down`; the defaults are the paper's.
    """
    tau = torch.where(advantage > 0, tau_up, tau_down)
    return surrogate((tau * (ratio - 1.0)).sigmoid() * 4.0 / tau, advantage)


def vespo(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, mask: Tensor | None = None) -> Tensor:
    """REINFORCE weighted by `exp(lam + k log w - lam w)`, `[B, L]` (VESPO, arXiv:2602.10693).

    `w` is the detached ratio of the whole response; the weight is 1 at `w = 1` and falls off on both sides,
    with the paper's (k, lam) = (2, 3) where the advantage is not negative, else (3, 2).
    """
    log_ratio = _log_ratio(log_prob, old_log_prob, mask).detach().clamp(-20.0, 20.0)
    log_w = masked_sum(log_ratio, mask, dim=-1).clamp(math.log(1e-8), 20.0).unsqueeze(-1)
    up = advantage >= 0
    k, lam = torch.where(up, 2.0, 3.0), torch.where(up, 3.0, 2.0)
    return (lam + k * log_w - lam * log_w.exp()).exp() * reinforce(log_prob, advantage)


def value_loss(value: Tensor, returns: Tensor) -> Tensor:
    """Half the squared error, elementwise `[...]`."""
    return 0.5 * (value - returns).square()


def clipped_value_loss(value: Tensor, old_value: Tensor, returns: Tensor, *, clip_range: float) -> Tensor:
    """The larger loss of `value` and of `value` kept within `clip_range` of `old_value`, elementwise `[...]`.

    As in OpenAI baselines' PPO2; `clip_range` is in units of the returns.
    """
    clipped = old_value + (value - old_value).clamp(-clip_range, clip_range)
    return torch.maximum(value_loss(value, returns), value_loss(clipped, returns))


@torch.no_grad()
def ratio_stats(
    log_prob: Tensor,
    old_log_prob: Tensor,
    mask: Tensor | None = None,
    *,
    clip_low: float,
    clip_high: float,
    ratio: Tensor | None = None,
) -> dict[str, Tensor]:
    """How far the policy moved, as scalars: `approx_kl` (k3, nats per step), `clip_fraction`, `ratio_max`.

    `ratio` is what the bounds are on, where that is not the ratio of each step.
    """
    ratio = token_ratio(log_prob, old_log_prob, mask) if ratio is None else ratio
    outside = (ratio < 1.0 - clip_low) | (ratio > 1.0 + clip_high)
    return {
        "approx_kl": masked_mean(k3(old_log_prob, log_prob), mask),
        "clip_fraction": masked_mean(outside.to(ratio.dtype), mask),
        "ratio_max": ratio.max(),
    }


def _log_ratio(log_prob: Tensor, old_log_prob: Tensor, mask: Tensor | None) -> Tensor:
    difference = log_prob - old_log_prob
    return difference if mask is None else torch.where(mask, difference, 0.0)
