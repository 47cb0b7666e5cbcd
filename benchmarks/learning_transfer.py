"""Success on held-out realities after nominal training, fixed ranges, ADR and identified ranges.

python scripts/transfer.py +experiment=transfer_lift_block 'transfer.seeds=[0]' run.dir=runs/transfer
python -m benchmarks.learning_transfer runs/transfer

Records the table of a directory of `scripts/transfer.py`, whatever methods it holds so far.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import record


def rows(table: dict[str, Any], note: str) -> list[dict[str, Any]]:
    """One line per method in the form of `record.write_scores`; success in percent, Wilson intervals."""
    result = []
    for method, desks in table["success"].items():
        cells = {
            desk: "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * cell[end] for end in ("value", "low", "high")))
            for desk, cell in desks.items()
        }
        value, low, high = (round(100 * desks["held out"][end], 1) for end in ("value", "low", "high"))
        settings = {"episodes on each desk": len(table["episodes"][method]["nominal"]),
                    "environment_steps": table["environment_steps"]}  # fmt: skip
        result.append({
            "algorithm": f"{method}, success on held-out desks in %", "library": "ours", "scores": [value],
            "mean": value, "low": low, "high": high, "settings": settings | cells, "verdict": note,
        })  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--note", default="", help="seeds, and how the training was stopped and continued")
    args = parser.parse_args()
    table = json.loads((args.directory / "transfer.json").read_text())
    record.write_scores("learning_transfer", rows(table, args.note))


if __name__ == "__main__":
    main()
