"""Learning from preferences: reward-model losses on scores, and the DPO family on log-probabilities.

All losses are elementwise, one number per comparison. A member of the DPO family is a score times a loss.
Score: the log ratio `log pi - log pi_ref` of a whole response (reverse KL), or, in losses of the difference
alone, `forward_kl_score`, `js_score`, `alpha_score` of it; over the number of tokens where length-normalised;
reference-free members use `log pi`.

    member   score                loss
    DPO      log ratio            sigmoid_loss
    cDPO     log ratio            smoothed_loss
    ODPO     log ratio            sigmoid_loss(offset=gap)
    IPO      log ratio / tokens   ipo_loss
    KTO      log ratio            kto_loss(kto_reference_point)
    SimPO    log pi / tokens      sigmoid_loss(offset=gamma)
    CPO      log pi               smoothed_loss + alpha * negative log-likelihood of the chosen
    ORPO     log pi / tokens      negative log-likelihood of the chosen + lambda * odds_ratio_loss

Where TRL (1.16) has the loss the definition is the same; a parity test compares the numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_EXPONENT = 80.0  # exp stays finite in float32 below 88


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """`-log sigmoid(chosen - rejected - margin)` of scores `[...]` (Bradley and Terry 1952; margin: Llama 2).

    log 2 where both scores are equal and the margin is 0.
    """
    return -F.logsigmoid(chosen - rejected - margin)


def plackett_luce_loss(scores: Tensor, rank: Tensor, mask: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of a ranking, `[..., K] -> [...]` (Plackett 1975; Luce 1959).

    `rank` is an integer, lower is better; equal ranks are ties and are not compared with one another. Items
    outside `mask` do not exist, so rows may rank different numbers of items. The best item is drawn by
    softmax among all, the next among the rest, and so on. Two items are Bradley-Terry; a row of ties, or of
    one item, is 0.
    """
    worse = rank.unsqueeze(-2) > rank.unsqueeze(-1)  # [..., i, j]: j ranks below i
    rivals = worse | torch.eye(rank.shape[-1], dtype=torch.bool, device=rank.device)
    if mask is not None:
        scores = torch.where(mask, scores, 0.0)
        rivals = rivals & (mask.unsqueeze(-2) | ~mask.unsqueeze(-1))
    floor = torch.finfo(scores.dtype).min
    log_sum = torch.where(rivals, scores.unsqueeze(-2), floor).logsumexp(-1)
    nll = log_sum - scores
    return (nll if mask is None else torch.where(mask, nll, 0.0)).sum(-1)


def pointwise_loss(score: Tensor, rating: Tensor) -> Tensor:
    """Squared error between a score and a rating on the same scale, `[...]`."""
    return (score - rating).square()


def centering_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """`(chosen + rejected)^2 [...]`: holds scores near 0, as Bradley-Terry does not (arXiv:2312.09244)."""
    return (chosen + rejected).square()


def forward_kl_score(ratio: Tensor) -> Tensor:
    """`1 - exp(-ratio)` of a log ratio `[...]`: DPO under the forward KL (f-DPO, arXiv:2309.16240).

    The scores are derivatives f' of the divergence's generator, 0 where policy and reference agree. They are
    TRL's from 1.16 on; 1.10 leaves out the constant. Only the difference of two is defined (f-DPO's
    normaliser cancels there), so they belong into losses of `chosen - rejected`, not into `nca_loss`,
    `bco_pair_loss`, `sppo_loss`, `apo_zero_loss`, `apo_down_loss`, `kto_loss` or `bco_loss`.
    """
    return -torch.expm1((-ratio).clamp(max=MAX_EXPONENT))


def js_score(ratio: Tensor) -> Tensor:
    """`log 2 + log sigmoid(ratio)` of a log ratio `[...]`: DPO under the Jensen-Shannon divergence."""
    return math.log(2.0) + F.logsigmoid(ratio)


def alpha_score(ratio: Tensor, *, alpha: float) -> Tensor:
    """`(exp((alpha - 1) ratio) - 1) / (alpha - 1)` of a log ratio `[...]`, for an alpha divergence.

    `alpha != 1`; towards 1 it becomes the log ratio, at 0 `forward_kl_score`.
    """
    return torch.expm1(((alpha - 1.0) * ratio).clamp(max=MAX_EXPONENT)) / (alpha - 1.0)


def sigmoid_loss(chosen: Tensor, rejected: Tensor, *, beta: float, offset: Tensor | float = 0.0) -> Tensor:
    """`-log sigmoid(beta (chosen - rejected) - offset)` (DPO, arXiv:2305.18290, eq. 7).

    `offset` is ODPO's demanded gap per pair (arXiv:2402.10571) or SimPO's gamma (arXiv:2405.14734, eq. 6).
    """
    return -F.logsigmoid(beta * (chosen - rejected) - offset)


def smoothed_loss(chosen: Tensor, rejected: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """Cross-entropy where a share `label_smoothing` of labels is flipped (cDPO, Mitchell 2023); 0 is DPO."""
    logit = beta * (chosen - rejected)
    return -(1.0 - label_smoothing) * F.logsigmoid(logit) - label_smoothing * F.logsigmoid(-logit)


def robust_loss(chosen: Tensor, rejected: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """Unbiased estimate of the clean-label DPO loss, `label_smoothing < 1/2` (arXiv:2403.00409)."""
    logit = beta * (chosen - rejected)
    clean = -(1.0 - label_smoothing) * F.logsigmoid(logit) + label_smoothing * F.logsigmoid(-logit)
    return clean / (1.0 - 2.0 * label_smoothing)


def hinge_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """`max(0, 1 - beta (chosen - rejected))` (SLiC, arXiv:2305.10425; RSO, arXiv:2309.06657)."""
    return F.relu(1.0 - beta * (chosen - rejected))


def ipo_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """`(chosen - rejected - 1 / (2 beta))^2` (arXiv:2310.12036, eq. 17), 0 at its target gap.

    Feed log ratios per token, as the authors advise and TRL does; the paper and OpenRLHF use sums.
    """
    return (chosen - rejected - 0.5 / beta).square()


def exo_loss(chosen: Tensor, rejected: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """Reverse KL from `sigmoid(beta (chosen - rejected))` to the smoothed label (arXiv:2402.00856, eq. 16).

    `0 < label_smoothing < 1`; 0 at its target `sigmoid = 1 - label_smoothing`.
    """
    logit = beta * (chosen - rejected)
    better = logit.sigmoid() * (F.logsigmoid(logit) - math.log(1.0 - label_smoothing))
    worse = (-logit).sigmoid() * (F.logsigmoid(-logit) - math.log(label_smoothing))
    return better + worse


def nca_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Noise contrastive alignment of a pair (arXiv:2402.05369): also holds the chosen likelihood up."""
    up, down = beta * chosen, beta * rejected
    return -F.logsigmoid(up) - 0.5 * F.logsigmoid(-up) - 0.5 * F.logsigmoid(-down)


def bco_pair_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Binary classifier loss of both sides, without reward shift (arXiv:2404.04656): `bco_loss` of a pair."""
    return -F.logsigmoid(beta * chosen) - F.logsigmoid(-beta * rejected)


def sppo_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """`(chosen - 1/(2 beta))^2 + (rejected + 1/(2 beta))^2` (SPPO with hard labels, arXiv:2405.00675)."""
    return (chosen - 0.5 / beta).square() + (rejected + 0.5 / beta).square()


def apo_zero_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Raise the chosen, lower the rejected: for a policy worse than the chosen answers (arXiv:2408.06266)."""
    return (-beta * chosen).sigmoid() + (beta * rejected).sigmoid()


def apo_down_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Lower both, the rejected more: for a policy better than the chosen answers (arXiv:2408.06266)."""
    return (beta * chosen).sigmoid() + (-beta * (chosen - rejected)).sigmoid()


def aot_loss(
    better: Tensor,
    worse: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    rivals: Tensor | None = None,
) -> Tensor:
    """`smoothed_loss` of sorted batches `[n]`: one distribution above another (AOT, arXiv:2406.05882).

    Unpaired: log ratios of chosen and of rejected answers. Paired: the policy's gaps `log pi(chosen) - log
    pi(rejected)` and the reference's. Number i of the result is that of `better[i]` and the worse one of the
    same rank. `rivals` are `same_rank` of a larger batch, of which these are rows: the sum over its parts is
    then its loss, gradient included.
    """
    if rivals is None:
        rivals = same_rank(better, worse)
    upper = smoothed_loss(better, rivals[:, 0], beta=beta, label_smoothing=label_smoothing)
    lower = smoothed_loss(rivals[:, 1], worse, beta=beta, label_smoothing=label_smoothing)
    return upper + lower - lower.detach()  # both have the same sum; each has the gradient of one side


def same_rank(first: Tensor, second: Tensor) -> Tensor:
    """`[n, 2]` without gradient: to each of `first [n]` the one of `second [n]` of its rank, and in turn."""
    places = [x.argsort(stable=True).argsort() for x in (first, second)]
    return torch.stack([second.sort().values[places[0]], first.sort().values[places[1]]], dim=1).detach()


def discopop_loss(chosen: Tensor, rejected: Tensor, *, beta: float, tau: float = 0.05) -> Tensor:
    """DPO's loss for the wrong order, `exp(-logit)` for the right one (DiscoPOP, arXiv:2406.08414, eq. 5).

    They are blended by `sigmoid(logit / tau)`. Not convex: at equal scores its gradient parts the wrong way,
    so a policy that starts as its own reference stays near it.
    """
    logit = beta * (chosen - rejected)
    right = (logit / tau).sigmoid()
    return (1.0 - right) * -F.logsigmoid(logit) + right * (-logit).clamp(max=MAX_EXPONENT).exp()


def on_policy_weight(log_prob: Tensor, mask: Tensor) -> Tensor:
    """`exp` of the mean log-probability of response tokens, `[B, L] -> [B]` without gradient.

    WPO (arXiv:2406.11827, eq. 2) multiplies a pair's loss by both: what the policy would hardly write counts
    little. Not aligned by the vocabulary's collision probability, as TRL's and the paper's later form are.
    """
    count = mask.sum(-1).clamp_min(1)
    return (torch.where(mask, log_prob, 0.0).sum(-1) / count).detach().exp()


def odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """`-log sigmoid(log odds(chosen) - log odds(rejected))` of mean log-probabilities below 0.

    ORPO (arXiv:2403.07691, eq. 7) is the negative log-likelihood of the chosen answer plus lambda (TRL:
    beta) times this.
    """
    return -F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(log_prob: Tensor) -> Tensor:
    return log_prob - torch.log(-torch.expm1(log_prob))  # log p - log(1 - p), exact for p near 0


def kto_reference_point(mismatched: Tensor) -> Tensor:
    """Estimate of KL(policy || ref), a scalar >= 0 without gradient, from log ratios `[...]`.

    They are of mismatched answers, each scored under another row's prompt (KTO, arXiv:2402.01306).
    """
    return mismatched.mean().clamp(min=0.0).detach()


def kto_loss(
    score: Tensor,
    desirable: Tensor,
    *,
    beta: float,
    reference_point: Tensor | float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Prospect-theoretic loss of log ratios `score [...]`, bool `desirable [...]` (KTO, arXiv:2402.01306).

    `weight * (1 - sigmoid(+-beta (score - reference_point)))`; `reference_point=0` with unit weights is the
    unpaired form of APO-zero.
    """
    gain = beta * (score - reference_point)
    return torch.where(desirable, desirable_weight * (-gain).sigmoid(), undesirable_weight * gain.sigmoid())


def bco_loss(score: Tensor, desirable: Tensor, *, beta: float, shift: Tensor | float) -> Tensor:
    """Binary classifier loss of log ratios `score [...]`, bool `desirable [...]` (BCO, arXiv:2404.04656).

    `shift` is the running mean of `beta * score` over desirable and undesirable answers (`RunningMeanStd`).
    """
    logit = beta * score - shift
    return -torch.where(desirable, F.logsigmoid(logit), F.logsigmoid(-logit))
