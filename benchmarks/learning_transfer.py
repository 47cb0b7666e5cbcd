"""Success on held-out realities after nominal training, fixed ranges, ADR and identified ranges.

python scripts/transfer.py +experiment=transfer_lift_block 'transfer.seeds=[0]' run.dir=runs/transfer
python -m benchmarks.learning_transfer runs/transfer

Records the methods that a directory of `scripts/transfer.py` holds; the others keep the rows they have.
`--desks` takes the score over some of the realities: methods compare only over the same ones.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import record
from embodied_rl.eval.statistics import Interval, wilson
from embodied_rl.sim2real.table import NOMINAL

NAME = "learning_transfer"


def rows(table: dict[str, Any], desks: Sequence[str], note: str) -> list[dict[str, Any]]:
    """One line per method in the form of `record.write_scores`; success in percent, Wilson intervals."""
    result = []
    for method, policies in table["episodes"].items():
        held_out = list(desks) or [desk for desk in next(iter(policies.values())) if desk != NOMINAL]
        each = [_success([policy], held_out) for policy in policies.values()]
        whole = _success(policies.values(), held_out)
        names = [NOMINAL, *(desk for desk in table["success"][method] if desk not in (NOMINAL, "held out"))]
        cells = {desk: _percent(_success(policies.values(), [desk])) for desk in names}
        settings = {
            "episodes on each desk": [len(policy[NOMINAL]) for policy in policies.values()],
            "seeds": list(policies),
            "environment_steps": table["environment_steps"],
            **cells,
            "score over": held_out,
        }
        result.append({
            "algorithm": f"{method}, success on held-out desks in %", "library": "ours",
            "scores": [round(100 * one.value, 1) for one in each],
            **{end: round(100 * getattr(whole, end), 1) for end in ("low", "high")},
            "mean": round(100 * whole.value, 1), "settings": settings, "verdict": note,
        })  # fmt: skip
    return result


def _success(policies: Any, desks: Sequence[str]) -> Interval:
    trials = [success for policy in policies for desk in desks for success in policy[desk]]
    return wilson(sum(trials), len(trials))


def _percent(cell: Interval) -> str:
    return f"{100 * cell.value:.0f} [{100 * (cell.low or 0):.0f}, {100 * (cell.high or 0):.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--desks", nargs="*", default=[], help="realities that count; none: all of them")
    parser.add_argument("--note", default="", help="how the training was stopped and continued, for example")
    args = parser.parse_args()
    found = rows(json.loads((args.directory / "transfer.json").read_text()), args.desks, args.note)
    names = [row["algorithm"] for row in found]
    file = record.RESULTS / f"{NAME}.json"
    earlier = json.loads(file.read_text())["scores"] if file.exists() else []
    record.write_scores(NAME, [row for row in earlier if row["algorithm"] not in names] + found)


if __name__ == "__main__":
    main()
