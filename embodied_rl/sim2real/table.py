"""Success of policies on the desks of a transfer test, as a table and as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from embodied_rl.eval.figures import Inline, bars
from embodied_rl.eval.statistics import Interval, wilson

NOMINAL = "nominal"  # the desk that is no reality

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

    def cell(self, method: str, desks: Sequence[str]) -> Interval:
        """Success with a 95 % Wilson interval over the episodes of some desks, all policies of a method."""
        policies = self.successes[method].values()
        trials = [success for policy in policies for desk in desks for success in policy[desk]]
        return wilson(sum(trials), len(trials))

    def per_seed(self, method: str) -> dict[int, float]:
        """Success of each policy of a method on all realities together."""
        found = {}
        for seed, policy in self.successes[method].items():
            trials = [success for desk in self.held_out for success in policy[desk]]
            found[seed] = sum(trials) / len(trials)
        return found

    def rows(self) -> dict[str, dict[str, Interval]]:
        """`{method: {desk: success}}`, with all realities together in the last column."""
        return {
            method: {desk: self.cell(method, [desk]) for desk in self.desks}
            | {"held out": self.cell(method, self.held_out)}
            for method in self.successes
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the table, each policy's share of the realities, and every episode."""
        return {
            "success": {m: {d: asdict(cell) for d, cell in row.items()} for m, row in self.rows().items()},
            "held_out_per_seed": {method: self.per_seed(method) for method in self.successes},
            "episodes": self.successes,
            "environment_steps": self.steps,
        }

    def markdown(self) -> str:
        """The table in percent."""
        columns = [*self.desks, "held out"]
        lines = [f"| method | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
        for method, row in self.rows().items():
            cells = [
                f"{100 * c.value:.0f} [{100 * (c.low or 0):.0f}, {100 * (c.high or 0):.0f}]"
                for c in row.values()
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def figure(self) -> Inline:
        """The table as bars."""
        series = {method: list(row.values()) for method, row in self.rows().items()}
        seeds = max(len(policies) for policies in self.successes.values())
        caption = (
            f"success, 95 % Wilson intervals over the episodes of all policies (training seeds: {seeds}), "
            f"not over trainings; {self.steps:,} environment steps a policy"
        )
        return bars("Transfer", [*self.desks, "held out"], series, label="success", caption=caption)
