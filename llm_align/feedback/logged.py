"""What reward functions are told of the run, and what they say besides a reward: TRL's other keywords."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerState:
    """How far the run is, under the names of `transformers.TrainerState`: steps done, and steps in all.

    Outside a training run both are 0.
    """

    global_step: int = 0
    max_steps: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged:
    """`metrics[name]`: the values of all calls of `log_metric`; `columns[name] [B]`: those of `log_extra`."""

    metrics: dict[str, list[float]] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def log_metric(self, name: str, value: float) -> None:
        """Note a number of this batch.

        Raises ValueError for one that is not finite.
        """
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"log_metric({name!r}, {value!r}): the value must be a finite number")
        self.metrics.setdefault(name, []).append(number)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Note a value per completion, all at once or one part after the other."""
        self.columns.setdefault(column, []).extend(values)

    def means(self) -> dict[str, float]:
        """The mean of each metric, as `rewards/name`, which no metric of the run's own is called."""
        return {f"rewards/{name}": fmean(values) for name, values in self.metrics.items()}

    def select(self, rows: Sequence[int]) -> Logged:
        """The same metrics, and the columns at `rows`."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return Logged(metrics=self.metrics, columns=columns)


def join(parts: Sequence[Logged], counts: Sequence[int]) -> Logged:
    """What was logged of several batches of `counts` completions as one; None where a column was not."""
    whole = Logged(columns={name: [] for part in parts for name in part.columns})
    for part, count in zip(parts, counts, strict=True):
        for name, values in part.metrics.items():
            whole.metrics.setdefault(name, []).extend(values)
        for name, column in whole.columns.items():
            column += part.columns.get(name, [None] * count)
    return whole
