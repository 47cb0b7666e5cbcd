"""How different responses are from each other, on token ids."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Rows = Sequence[Sequence[int]]


def distinct(rows: Rows, n: int) -> float:
    """Different n-grams over all n-grams of the rows (Li et al. 2016, arXiv:1510.03055); 0 if none."""
    grams = [gram for row in rows for gram in _grams(row, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(rows: Rows, max_n: int = 4) -> float:
    """Mean BLEU of each row against the others (Zhu et al. 2018, arXiv:1802.01886): 1 where all are equal.

    Orders above a row's length are left out; one without a match counts as half a match, as a score of 0
    would hide every other order.
    """
    counts = [[Counter(_grams(row, n)) for n in range(1, max_n + 1)] for row in rows]
    scores = []
    for i, row in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        if not others or not row:
            continue
        logs = [
            math.log(max(_matches(counts[i][n], [counts[j][n] for j in others]), 0.5) / (len(row) - n))
            for n in range(min(max_n, len(row)))
        ]
        nearest = min((abs(len(rows[j]) - len(row)), len(rows[j])) for j in others)[1]
        brevity = min(0.0, 1.0 - nearest / len(row))
        scores.append(math.exp(brevity + sum(logs) / len(logs)))
    return sum(scores) / len(scores) if scores else 0.0


def _matches(mine: Counter[tuple[int, ...]], others: list[Counter[tuple[int, ...]]]) -> int:
    return sum(min(count, max(other[gram] for other in others)) for gram, count in mine.items())


def _grams(row: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
