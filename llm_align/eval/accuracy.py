"""Verifiable answers: accuracy with its interval, pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from llm_align.online.rollout import Samples
from rl_core.config import require


def wilson(rate: float, trials: int, confidence_z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a mean of `trials` numbers in [0, 1]; too wide unless all are 0 or 1.

    (0, 1) without trials.
    """
    if trials == 0:
        return 0.0, 1.0
    z = confidence_z**2 / trials
    center = (rate + z / 2) / (1 + z)
    half = math.sqrt(z * rate * (1 - rate) + z * z / 4) / (1 + z)
    return max(0.0, center - half), min(1.0, center + half)


def pass_at_k(correct: Tensor, k: int) -> Tensor:
    """Chance that one of `k` responses is right, `[P]`, from `correct [P, G]` (bool), G >= k.

    The unbiased estimate `1 - C(G - c, k) / C(G, k)` (Chen et al. 2021, arXiv:2107.03374, eq. 1): k=1 is the
    accuracy, k=G whether any is right.
    """
    groups = correct.shape[1]
    require(1 <= k <= groups, "k", k, f"from 1 to the {groups} responses per prompt")
    wrong = (~correct).sum(1).tolist()
    return torch.tensor([1.0 - math.comb(w, k) / math.comb(groups, k) for w in wrong])


def verifiable(samples: Samples, ks: Sequence[int] = (1,), threshold: float = 0.5) -> dict[str, float]:
    """Accuracy over the judged responses with its interval over prompts, and `pass@k` over prompts.

    A reward above `threshold` is a right answer; an unjudged response is a wrong one for pass@k.
    """
    correct = samples.grouped(samples.reward > threshold)
    judged = samples.grouped(~samples.reward.isnan())
    rate = float(correct.sum()) / max(float(judged.sum()), 1.0)
    # responses to one prompt are alike: counting prompts as the trials does not pretend otherwise
    low, high = wilson(rate, int(judged.any(1).sum()))
    passes = {f"pass@{k}": float(pass_at_k(correct, k).mean()) for k in ks}
    return {"accuracy": rate, "accuracy_low": low, "accuracy_high": high, **passes}
