"""Success of policies on the desks of a transfer test, as a table and as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from embodied_rl.eval.figures import Inline, bars
from embodied_rl.eval.statistics import Interval, wilson

NOMINAL = "nominal"  # the desk that is no reality


@dataclass(kw_only=True, slots=True)
class Table:
    """Success of every method on every desk; `successes[method][desk]` over all seeds and episodes."""

    successes: dict[str, dict[str, list[bool]]]
    steps: int  # of the environment, of each policy

    def cell(self, method: str, desks: Sequence[str]) -> Interval:
        """Success with a 95 % Wilson interval over the episodes of some desks."""
        trials = [success for desk in desks for success in self.successes[method][desk]]
        return wilson(sum(trials), len(trials))

    def rows(self) -> dict[str, dict[str, Interval]]:
        """`{method: {desk: success}}`, with all realities together in the last column."""
        desks = list(next(iter(self.successes.values())))
        held_out = [desk for desk in desks if desk != NOMINAL]
        return {
            method: {desk: self.cell(method, [desk]) for desk in desks}
            | {"held out": self.cell(method, held_out)}
            for method in self.successes
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the table, and every episode."""
        rows = {m: {d: asdict(cell) for d, cell in row.items()} for m, row in self.rows().items()}
        return {"success": rows, "episodes": self.successes, "environment_steps": self.steps}

    def markdown(self) -> str:
        """The table in percent."""
        rows = self.rows()
        desks = list(next(iter(rows.values())))
        lines = [f"| method | {' | '.join(desks)} |", f"|---|{'---|' * len(desks)}"]
        for method, row in rows.items():
            cells = [
                f"{100 * c.value:.0f} [{100 * (c.low or 0):.0f}, {100 * (c.high or 0):.0f}]"
                for c in row.values()
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def figure(self) -> Inline:
        """The table as bars."""
        rows = self.rows()
        series = {method: list(row.values()) for method, row in rows.items()}
        caption = f"success, 95 % Wilson intervals over episodes; {self.steps:,} environment steps each"
        return bars("Transfer", list(next(iter(rows.values()))), series, label="success", caption=caption)
