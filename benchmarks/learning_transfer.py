"""Success on held-out realities after nominal training, fixed ranges, ADR and identified ranges.

python scripts/transfer.py +experiment=transfer_lift_block 'transfer.seeds=[0]' run.dir=runs/transfer
python -m benchmarks.learning_transfer runs/transfer

Intervals are over episodes, not over trainings; those over all realities count a start once.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import record
from embodied_rl.sim2real.table import ALL, NOMINAL, Table, percent


def rows(table: Table, note: str) -> list[dict[str, Any]]:
    """One line per method in the form of `record.write_scores`, success in percent."""
    result = []
    for method, cells in table.rows().items():
        policies, whole = table.successes[method], cells[ALL]
        settings = {
            "episodes on each desk": [len(policy[NOMINAL]) for policy in policies.values()],
            "seeds": list(policies),
            "environment_steps": table.steps,
            **{desk: percent(cells[desk]) for desk in table.desks},
            **{f"more than {o}": percent(d) for o, d in table.differences()[method].items()},
        }
        result.append({
            "algorithm": f"{method}, success on held-out desks in %", "library": "ours",
            "scores": [round(100 * score, 1) for score in table.per_seed(method).values()],
            "mean": round(100 * whole.value, 1),
            "low": whole.low and round(100 * whole.low, 1), "high": whole.high and round(100 * whole.high, 1),
            "settings": settings, "verdict": note,
        })  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="of scripts/transfer.py, with all methods")
    parser.add_argument("--note", default="", help="how the training was stopped and continued, for example")
    args = parser.parse_args()
    table = Table.from_json(json.loads((args.directory / "transfer.json").read_text()))
    record.write_scores("learning_transfer", rows(table, args.note))


if __name__ == "__main__":
    main()
