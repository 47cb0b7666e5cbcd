"""Who compares two segments: a script that knows the true reward, perfect or with human weaknesses.

The weaknesses are those of B-Pref (Lee et al. 2021, arXiv:2111.03026, section 3), without skipped questions:
a stochastic choice, mistakes, and "both are equal". A person's answers come through `clips`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embodied_rl.feedback.segments import Segments
from rl_core.config import choice, require

TEACHERS = ("scripted", "person")


@dataclass(kw_only=True, slots=True)
class Config:
    """A perfect scripted teacher, unless numbers say otherwise."""

    kind: str = "scripted"  # scripted (by the environment's reward) | person (films clips and pauses the run)
    rationality: float = math.inf  # beta of P(first better) = sigmoid(beta (return_1 - return_2))
    mistakes: float = 0.0  # chance of the opposite answer
    equal: float = 0.0  # returns of two segments that differ by no more are called equal

    def __post_init__(self) -> None:
        """Check words and ranges."""
        choice("algo.feedback.teacher.kind", self.kind, TEACHERS)
        require(self.rationality > 0, "algo.feedback.teacher.rationality", self.rationality, "> 0")
        require(0 <= self.mistakes <= 1, "algo.feedback.teacher.mistakes", self.mistakes, "in [0, 1]")
        require(0 <= self.equal < math.inf, "algo.feedback.teacher.equal", self.equal, "finite and >= 0")
        flawless = math.isinf(self.rationality) and not self.mistakes and not self.equal
        require(self.kind == "scripted" or flawless, "algo.feedback.teacher", self.kind,
                "scripted where rationality, mistakes or equal are set")  # fmt: skip


def judge(pairs: Segments, cfg: Config, generator: torch.Generator) -> Tensor:
    """Compare pairs `[Q, 2]` by their true returns: 1 where the first is better, 0 the second, 1/2 equal.

    Raises ValueError for a reward that is not finite: nothing can be said about it.
    """
    finite = pairs.reward.isfinite().flatten(1).all(1)
    if not finite.all():
        name = pairs.place[~finite][0].tolist()
        raise ValueError(f"reward: not finite in a segment of iteration, environment, step {name[0]}")
    first, second = pairs.returns().double().unbind(1)
    gap = first - second
    rational = torch.where(gap == 0, 0.5, (cfg.rationality * gap).sigmoid())  # inf * 0 is no number
    answer = torch.rand(gap.shape, generator=generator, device=generator.device, dtype=gap.dtype) < rational
    wrong = torch.rand(gap.shape, generator=generator, device=generator.device) < cfg.mistakes
    return torch.where(gap.abs() <= cfg.equal, 0.5, (answer ^ wrong).float())
