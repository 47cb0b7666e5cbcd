"""Success on held-out realities after nominal training, fixed ranges, ADR and identified ranges.

python scripts/transfer.py +experiment=transfer_lift_block 'transfer.seeds=[0]' run.dir=runs/transfer
python -m benchmarks.learning_transfer runs/transfer

The directory must hold all four methods. They may be trained in several calls; a last call with all of them
writes the whole table.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import record
from embodied_rl.sim2real.table import NOMINAL, TOGETHER, Table, percent
from embodied_rl.sim2real.transfer import METHODS
from rl_core.config import require


def rows(table: Table, note: str) -> list[dict[str, Any]]:
    """One line per method in the form of `record.write_scores`, success in percent.

    Raises ValueError where a method is missing: the record is of the whole comparison.
    """
    found = list(table.successes)
    require(set(METHODS) <= set(found), "methods in transfer.json", found, f"all of {', '.join(METHODS)}")
    result, differences = [], table.differences()
    for method, cells in table.rows().items():
        policies, whole = table.successes[method], cells[TOGETHER]
        settings = {
            "episodes on each desk": len(next(iter(policies.values()))[NOMINAL]),
            "seeds": list(policies),
            "environment_steps": table.steps,
            **{desk: percent(cells[desk]) for desk in table.desks},
            **{f"more than {other}": percent(d, digits=1) for other, d in differences[method].items()},
            "intervals": "over starts, not over trainings",
        }
        result.append({
            "algorithm": f"{method}, success on held-out desks in %", "library": "ours",
            "scores": [round(100 * score, 1) for score in table.per_seed(method).values()],
            **{key: None if x is None else round(100 * x, 1)
               for key, x in (("mean", whole.value), ("low", whole.low), ("high", whole.high))},
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
