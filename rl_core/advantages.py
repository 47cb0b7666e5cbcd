"""Advantages and returns, each one call of `scan`, and group-relative baselines of answers to one prompt.

Per-step scalars are `[..., T]`, time last: `[N, T]` environments x time, `[B, L]` responses x tokens.
`next_values[t]` is the value of the true successor of step t, the final observation at a truncation.
`terminated` stops the bootstrap; `ended` (terminated or truncated) cuts the trace; both are bool. The end
of the arrays cuts the trace too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rl_core.scan import scan

GROUP_EPS = 1e-4  # added to a group's standard deviation, as in TRL


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    ended: Tensor,
    *,
    gamma: float,
    lam: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: (advantages, returns), all `[..., T]`.

    Schulman et al. 2016, arXiv:1506.02438, eq. 16. `returns = advantages + values`. `lam=1` is Monte Carlo
    minus the value, `lam=0` the one-step temporal difference. A step outside `mask` is skipped: it gets 0
    in both results, whatever it holds (NaN included), and the trace passes it undiminished, so that tokens
    of a tool or padding between actions cost nothing.
    """
    delta = rewards + gamma * next_values * ~terminated - values
    decay = (gamma * lam) * (~ended).to(delta.dtype)
    if mask is None:
        advantages = scan(delta, decay)
        return advantages, advantages + values
    delta = torch.where(mask, delta, 0.0)
    decay = torch.where(mask | ended, decay, 1.0)
    advantages = scan(delta, decay)
    return torch.where(mask, advantages, 0.0), torch.where(mask, advantages + values, 0.0)


def lambda_returns(
    rewards: Tensor, next_values: Tensor, terminated: Tensor, ended: Tensor, *, gamma: float, lam: float
) -> Tensor:
    """TD(lambda) targets `[..., T]` (Sutton and Barto 2018, eq. 12.18); all arguments `[..., T]`.

    `G_t = r_t + gamma * ((1 - lam) * V_{t+1} + lam * G_{t+1})`. `lam=0` is the one-step target, `lam=1` the
    discounted return with a bootstrap where the episode was truncated or the arrays end.
    """
    goes_on = (~ended).to(next_values.dtype)
    goes_on = torch.cat([goes_on[..., :-1], torch.zeros_like(goes_on[..., -1:])], -1)
    bootstrap = gamma * next_values * ~terminated
    return scan(rewards + bootstrap * (1.0 - lam * goes_on), gamma * lam * goes_on)


def discounted_returns(rewards: Tensor, ended: Tensor, *, gamma: float) -> Tensor:
    """Sum of discounted rewards to the end of the episode or of the arrays, no bootstrap; all `[..., T]`.

    `gamma=0` returns the rewards. With a bootstrap at truncations it is `lambda_returns` with `lam=1`.
    """
    return scan(rewards, gamma * (~ended).to(rewards.dtype))


def v_trace(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    ended: Tensor,
    *,
    gamma: float,
    rho: Tensor,
    c: Tensor,
) -> tuple[Tensor, Tensor]:
    """V-trace: (advantages, value targets), all `[..., T]`.

    Espeholt et al. 2018, arXiv:1802.01561, eq. 1 and section 4.2. `rho` and `c [..., T]` are the truncated
    importance weights, `ratio.clamp(max=rho_bar)` and `lam * ratio.clamp(max=c_bar)`. On-policy (`rho = c =
    1`) the targets are the `lam=1` returns. The advantages are `rho_t * (r_t + gamma * target_{t+1} -
    V_t)`.
    """
    goes_on = (~ended).to(values.dtype)
    discount = gamma * (~terminated).to(values.dtype)
    delta = rho * (rewards + discount * next_values - values)
    excess = scan(delta, gamma * c * goes_on)  # target minus value
    next_excess = torch.cat([excess[..., 1:], torch.zeros_like(excess[..., :1])], -1) * goes_on
    advantages = rho * (rewards + discount * (next_values + next_excess) - values)
    return advantages, values + excess


def group_center(rewards: Tensor) -> Tensor:
    """Reward minus the mean of its group, `[P, G]` for P prompts with G answers (Dr. GRPO, arXiv:2503.20783).

    In all four group functions a NaN reward means "not judged": it gets advantage 0 and leaves the baseline.
    """
    # counted from the best: a mean of equal rewards such as 0.1 may be off by a rounding, one of zeros is not
    below = rewards - rewards.nan_to_num(-torch.inf).amax(-1, keepdim=True)
    return torch.where(rewards.isnan(), 0.0, below - below.nanmean(-1, keepdim=True))


def group_zscore(rewards: Tensor, *, eps: float = GROUP_EPS) -> Tensor:
    """Centred reward over the standard deviation of its group (Bessel), `[P, G]` (GRPO, arXiv:2402.03300).

    A group of equal rewards, or with a single one, gets 0.
    """
    centered = group_center(rewards)
    return centered / (_nan_std(rewards, centered) + eps)


def sum_of_zscores(rewards: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum `[P, G]` of K rewards `[K, P, G]`, each z-scored in its group first; weights `[K]`.

    So that no reward drowns another in the group's deviation (GDPO, arXiv:2601.05242; its advantage is the
    z-score of this sum over the whole batch). What no reward judged stays NaN.
    """
    total = (weights[:, None, None] * group_zscore(rewards)).sum(0)
    return total.masked_fill(rewards.isnan().all(0), torch.nan)


def group_center_batch_scale(rewards: Tensor, *, eps: float = GROUP_EPS) -> Tensor:
    """Centred reward over the standard deviation of all rewards, `[P, G]` (LitePPO, arXiv:2508.08221)."""
    everything = rewards.flatten()
    return group_center(rewards) / (_nan_std(everything, group_center(everything)) + eps)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Reward minus the mean of the others in its group, `[P, G]` (RLOO, arXiv:2402.14740).

    Equal to the centred reward times `G / (G - 1)`; a reward alone in its group gets 0.
    """
    count = (~rewards.isnan()).sum(-1, keepdim=True)
    return group_center(rewards) * count / (count - 1).clamp_min(1)


def _nan_std(rewards: Tensor, centered: Tensor) -> Tensor:
    count = (~rewards.isnan()).sum(-1, keepdim=True)
    return (centered.square().sum(-1, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
