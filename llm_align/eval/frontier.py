"""What reward a run bought, and at which KL: the frontier of policies that no other one beats."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rl_core.config import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A policy at some step of some run: nats per response from the reference, mean reward."""

    kl: float
    reward: float
    run: str = ""
    step: int = 0


def points(run_dir: Path | str, *, reward: str = "train/reward", kl: str = "train/kl") -> list[Point]:
    """The points of a run's `metrics.jsonl`, in order; `reward="train/gold"` is what was not trained on.

    Raises ValueError if no row has both numbers: a run without a reference has no KL.
    """
    file = Path(run_dir) / "metrics.jsonl"
    require(file.is_file(), "run_dir", str(run_dir), "a run directory with metrics.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    found = [
        Point(kl=row[kl], reward=row[reward], run=Path(run_dir).name, step=row["step"])
        for row in rows
        if kl in row and reward in row
    ]
    if not found:
        known = sorted({key for row in rows for key in row})
        raise ValueError(f"{file}: no row has both {kl!r} and {reward!r}; it has {', '.join(known)}")
    return found


def frontier(candidates: Iterable[Point]) -> list[Point]:
    """Those that no other has both a lower KL and as high a reward, by rising KL."""
    best: list[Point] = []
    for point in sorted(candidates, key=lambda p: (p.kl, -p.reward)):
        if not best or point.reward > best[-1].reward:
            best.append(point)
    return best


def best_of_n_kl(n: int) -> float:
    """Upper bound in nats on the KL of best-of-n sampling: `log n - (n - 1) / n` (arXiv:2401.01879)."""
    require(n >= 1, "n", n, ">= 1")
    return math.log(n) - (n - 1) / n
