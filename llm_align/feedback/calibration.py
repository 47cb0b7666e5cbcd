"""How far a reward model can be trusted: accuracy and calibration on pairs, by their lengths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GROUPS = ("chosen much shorter", "chosen shorter", "chosen longer", "chosen much longer")
BINS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """`by_length` has accuracy, mean confidence and the number of pairs of each group of length differences.

    `error` is the expected calibration error of `sigmoid(gap)`; `longer_wins` what a judge scores who prefers
    the longer answer; `length_correlation` that of the score with the length.
    """

    num_pairs: int
    accuracy: float
    standard_error: float
    loss: float
    error: float
    longer_wins: float
    length_correlation: float
    by_length: dict[str, dict[str, float]]


def calibration(
    chosen: Tensor, rejected: Tensor, chosen_length: Tensor, rejected_length: Tensor
) -> Calibration:
    """Report on scores `[N]` and lengths in tokens `[N]` of the two answers of N pairs; ties count half."""
    gap = (chosen - rejected).double()
    right = torch.where(gap == 0, 0.5, (gap > 0).double())
    difference = (chosen_length - rejected_length).double()
    confidence = gap.abs().sigmoid()
    accuracy = right.mean().item()
    both, lengths = torch.cat([chosen, rejected]), torch.cat([chosen_length, rejected_length])
    return Calibration(
        num_pairs=len(gap),
        accuracy=accuracy,
        standard_error=(accuracy * (1 - accuracy) / len(gap)) ** 0.5,
        loss=-torch.nn.functional.logsigmoid(gap).mean().item(),
        error=_expected_error(confidence, right),
        longer_wins=torch.where(difference == 0, 0.5, (difference > 0).double()).mean().item(),
        length_correlation=correlation(both, lengths),
        by_length=_by_length(difference, right, confidence),
    )


def _expected_error(confidence: Tensor, right: Tensor) -> float:
    """Mean distance of accuracy from confidence over ten bins of confidence from 1/2 to 1."""
    number = ((confidence - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    distances = [
        (right[number == b].mean() - confidence[number == b].mean()).abs().item() * int((number == b).sum())
        for b in number.unique().tolist()
    ]
    return sum(distances) / len(right)


def _by_length(difference: Tensor, right: Tensor, confidence: Tensor) -> dict[str, dict[str, float]]:
    """Groups at zero and at the median absolute difference; empty ones are left out."""
    middle = difference.abs().median()
    group = torch.bucketize(difference, torch.stack([-middle, torch.zeros_like(middle), middle]))
    return {
        name: {
            "num_pairs": int((group == number).sum()),
            "accuracy": right[group == number].mean().item(),
            "confidence": confidence[group == number].mean().item(),
        }
        for number, name in enumerate(GROUPS)
        if bool((group == number).any())
    }


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of `x [n]` and `y [n]`; 0 where one of them is constant."""
    x, y = (v.double() - v.double().mean() for v in (x, y))
    scale = float(x.norm() * y.norm())
    return float(torch.dot(x, y)) / scale if scale > 1e-12 else 0.0
