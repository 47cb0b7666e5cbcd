"""Win rate of one policy's responses over another's, judged in both orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llm_align.eval.accuracy import wilson
from llm_align.feedback.rewards import several

# `judge(prompts, first, second)` returns per row how likely the first is the better one, in [0, 1] (1, 0 and
# 0.5 for a verdict), or None where it cannot tell.
Judge = Callable[[Sequence[Any], Sequence[str], Sequence[str]], Sequence[float | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class WinRate:
    """Share of comparisons won by A, ties counting half, with its 95 % interval.

    `inconsistent` is the share of pairs whose winner changed with the order, `first` how often the response
    shown first won (0.5 without position bias), `unjudged` the number of pairs left out.
    """

    rate: float
    low: float
    high: float
    pairs: int
    unjudged: int
    inconsistent: float
    first: float


def win_rate(judge: Judge, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> WinRate:
    """Compare `a[i]` with `b[i]`, both answers to `prompts[i]`, each pair once in either order.

    Raises ValueError for unequal numbers, and for a judge's answer outside [0, 1] (row named).
    """
    if not len(prompts) == len(a) == len(b):
        raise ValueError(f"{len(prompts)} prompts, {len(a)} and {len(b)} responses: must be equally many")
    shown_a = _ask(judge, prompts, a, b)
    shown_b = _ask(judge, prompts, b, a)
    return _count(
        [(x, y) for x, y in zip(shown_a, shown_b, strict=True) if x is not None and y is not None], len(a)
    )


def from_rewards(a: Sequence[float], b: Sequence[float]) -> WinRate:
    """Compare rewards already given, to responses one by one, so that there is no order; NaN: not judged."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} rewards: must be equally many")
    known = [(x, y) for x, y in zip(a, b, strict=True) if not math.isnan(x) and not math.isnan(y)]
    verdicts = [0.5 if x == y else float(x > y) for x, y in known]
    return _count([(verdict, 1.0 - verdict) for verdict in verdicts], len(a))


def _count(shown: Sequence[tuple[float, float]], pairs: int) -> WinRate:
    """The win rate of A from how likely the first one is better, with A first and with B first."""
    both = [(x, 1.0 - y) for x, y in shown]
    count = len(both)
    rate = sum(x + y for x, y in both) / (2 * count) if count else 0.5
    low, high = wilson(rate, count)
    return WinRate(
        rate=rate,
        low=low,
        high=high,
        pairs=count,
        unjudged=pairs - count,
        inconsistent=sum((x - 0.5) * (y - 0.5) < 0 for x, y in both) / max(count, 1),
        first=sum(x + (1.0 - y) for x, y in both) / (2 * count) if count else 0.5,
    )


def _ask(
    judge: Judge, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]
) -> list[float | None]:
    said = judge(prompts, first, second)
    answers = several(said)
    if answers is None or len(answers) != len(prompts):
        found = type(said).__name__ if answers is None else f"{len(answers)} answers"
        raise ValueError(f"the judge returned {found} for {len(prompts)} pairs: must be a list")
    return [_verdict(row, answer) for row, answer in enumerate(answers)]


def _verdict(row: int, answer: Any) -> float | None:
    if answer is None:
        return None
    if isinstance(answer, str) or not 0 <= answer <= 1:  # NaN is not either
        raise ValueError(f"the judge returned {answer!r} for row {row}: must be in [0, 1], or None")
    return float(answer)
