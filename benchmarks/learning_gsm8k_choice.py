"""Does an outcome reward model choose better among four solutions than a vote does? Two halves of GSM8K.

    python -m benchmarks.learning_gsm8k_choice --data model_solutions.jsonl.gz --runs runs/gsm8k-outcome

Trains `+experiment=gsm8k_outcome` through the script; questions are held out whole, each once. A second arm
tunes the encoder's layers too, on one of the halves: it takes twenty times as long. Of the four models that
wrote the solutions one is clearly the best: always taking its solution is the baseline that a reward model
reaches by knowing the writers and nothing about arithmetic.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.folds import train
from llm_align.data.examples import ratings
from llm_align.data.gsm8k import SOLVERS
from llm_align.data.readers import load_rows
from llm_align.eval.accuracy import wilson

FOLDS = 2
TUNED = [
    "algo.frozen=false",
    "algo.l2=0",
    "algo.optim.lr=1e-4",
    "algo.optim.warmup=20",
    "algo.optim.schedule=linear",
    "data.batch_size=32",
    "run.steps=190",  # three passes
]
NAMES = {"majority": "majority of 4", "random": "any of 4", "oracle": "oracle of 4"}


def row(name: str, rates: Sequence[float], counts: Sequence[int], verdict: str = "") -> dict[str, Any]:
    """Accuracy over all questions with Wilson's interval; each is a fold's."""
    total = sum(counts)
    rate = sum(r * n for r, n in zip(rates, counts, strict=True)) / total
    low, high = wilson(rate, total)
    return {
        "algorithm": name,
        "library": "ours" if name.startswith("reward model") else "baseline",
        "scores": [round(rate, 4) for rate in rates],
        "mean": rate,
        "low": low,
        "high": high,
        "verdict": verdict,
        "settings": {"questions": total},
    }


def arm(name: str, reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What choosing by the score of a reward model gives, against the vote on the same questions."""
    counts = [report["questions"] for report in reports]
    ours, vote = (
        row(name, [report["best_of_n"][key][0] for report in reports], counts)
        for key in ("best_score", "majority")
    )
    beats = ours["low"] > vote["high"]
    verdict = "beats majority choice" if beats else "does not clearly beat majority choice"
    return ours | {"verdict": f"{verdict} ({vote['mean']:.3f} of these)"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/gsm8k-outcome"))
    args = parser.parse_args()
    recipe = "gsm8k_outcome", args.data
    frozen = [train(*recipe, args.runs / "frozen", fold, FOLDS) for fold in range(FOLDS)]
    tuned = train(*recipe, args.runs / "tuned", FOLDS - 1, FOLDS, TUNED)
    counts = [report["questions"] for report in frozen]
    rows = [
        arm("reward model on frozen layers, best of 4", frozen),
        arm("reward model, layers tuned, best of 4", [tuned]),
    ]
    for key, name in NAMES.items():
        rows.append(row(name, [report["best_of_n"][key][0] for report in frozen], counts))
    rated = ratings(load_rows(args.data))
    for solver in SOLVERS:
        right = [bool((e.labels or [])[0]) for e in rated if (e.columns or {})["solver"] == solver]
        rows.append(row(f"always {solver}", [sum(right) / len(right)], [len(right)]))
    record.write_scores("learning_gsm8k_choice", rows)


if __name__ == "__main__":
    main()
