"""Success of policies on the desks of a transfer test, as a table and as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embodied_rl.eval.figures import Inline, bars
from embodied_rl.eval.statistics import Interval, bootstrap_mean, wilson

NOMINAL = "nominal"  # the desk that is no reality
TOGETHER = "held out"  # the column of all realities

Trials = Mapping[str, Sequence[bool]]  # successes of one policy on each desk


@dataclass(kw_only=True, slots=True)
class Table:
    """Success of every method on every desk; `successes[method][seed]` is that of one policy."""

    successes: dict[str, dict[int, Trials]]
    steps: int  # of the environment, of each policy

    @property
    def desks(self) -> list[str]:
        """Every desk, the nominal one first."""
        return list(next(iter(next(iter(self.successes.values())).values())))

    @property
    def held_out(self) -> list[str]:
        """The desks that are realities."""
        return [desk for desk in self.desks if desk != NOMINAL]

    def cell(self, method: str, desk: str) -> Interval:
        """Success on one desk with a 95 % Wilson interval over the episodes of all policies of a method.

        The interval takes episodes of several policies for independent, though they share their starts.
        """
        trials = self._trials(method, [desk])
        return wilson(int(trials.sum()), trials.size)

    def overall(self, method: str) -> Interval:
        """Success on all realities, with a 95 % interval bootstrapped over the starts.

        Every desk begins its episodes from the same starts, so what one start gives is one observation. The
        interval has no width where all starts give the same.
        """
        return bootstrap_mean(self._per_start(method))

    def difference(self, method: str, other: str) -> Interval:
        """How much more success one method has than another on all realities, likewise, paired by start."""
        return bootstrap_mean(self._per_start(method) - self._per_start(other))

    def _per_start(self, method: str) -> np.ndarray:
        mean: np.ndarray = self._trials(method, self.held_out).mean(axis=0)
        return mean

    def _trials(self, method: str, desks: Sequence[str]) -> np.ndarray:
        """Successes `[policies x desks, starts]`."""
        return np.array([policy[desk] for policy in self.successes[method].values() for desk in desks])

    def per_seed(self, method: str) -> dict[int, float]:
        """Success of each policy of a method on all realities together."""
        return {
            seed: float(np.mean([policy[desk] for desk in self.held_out]))
            for seed, policy in self.successes[method].items()
        }

    def rows(self) -> dict[str, dict[str, Interval]]:
        """`{method: {desk: success}}`, with all realities together in the last column."""
        return {
            method: {desk: self.cell(method, desk) for desk in self.desks} | {TOGETHER: self.overall(method)}
            for method in self.successes
        }

    def differences(self) -> dict[str, dict[str, Interval]]:
        """`{method: {other: difference}}` for every two methods."""
        return {
            method: {other: self.difference(method, other) for other in self.successes if other != method}
            for method in self.successes
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the table, each policy's share of the realities, and every episode."""
        return {
            "success": {m: {d: asdict(cell) for d, cell in row.items()} for m, row in self.rows().items()},
            "held_out_per_seed": {method: self.per_seed(method) for method in self.successes},
            "held_out_differences": {
                m: {other: asdict(d) for other, d in row.items()} for m, row in self.differences().items()
            },
            "episodes": self.successes,
            "environment_steps": self.steps,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Table:
        """The table that `to_json` wrote."""
        successes = {
            method: {int(seed): trials for seed, trials in policies.items()}
            for method, policies in values["episodes"].items()
        }
        return cls(successes=successes, steps=values["environment_steps"])

    def markdown(self) -> str:
        """The table in percent, and where there are several methods, their differences in points."""
        tables = [_markdown("success in %", [*self.desks, TOGETHER], self.rows(), digits=0)]
        if len(self.successes) > 1:
            tables.append(
                _markdown("held out, points more than", [*self.successes], self.differences(), digits=1)
            )
        return "\n\n".join(tables)

    def figure(self) -> Inline:
        """The table as bars."""
        series = {method: list(row.values()) for method, row in self.rows().items()}
        seeds = max(len(policies) for policies in self.successes.values())
        caption = (
            f"success, 95 % intervals over the episodes of all policies (training seeds: {seeds}), "
            f"not over trainings; {self.steps:,} environment steps a policy"
        )
        return bars("Transfer", [*self.desks, TOGETHER], series, label="success", caption=caption)


def percent(cell: Interval, digits: int = 0) -> str:
    """As `82 [80, 84]`."""
    value = f"{100 * cell.value:.{digits}f}"
    if cell.low is None or cell.high is None:
        return value
    return f"{value} [{100 * cell.low:.{digits}f}, {100 * cell.high:.{digits}f}]"


def _markdown(
    corner: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Interval]], *, digits: int
) -> str:
    lines = [f"| {corner} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, row in rows.items():
        cells = (percent(row[column], digits) if column in row else "" for column in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
