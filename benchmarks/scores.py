"""Gather finished trainings into one table of scores with intervals over seeds.

python -m benchmarks.scores learning_hopper runs/hopper/cells/*.json     cells of learning_offline.py
python -m benchmarks.scores learning_door runs/door/*/eval.json          runs of scripts/train_offline.py

The door runs, for the seeds 0, 1, 2, on the demonstrations imported as door/human-v0; scores as in D4RL:

python scripts/train_offline.py algo=bc data.id=door/human-v0 run.steps=10000 eval.episodes=50 \\
    eval.num_envs=10 run.seed=0 run.dir=runs/door/bc-0
python scripts/train_offline.py +experiment=iql_adroit_paper ... run.dir=runs/door/iql-0
"""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import record
from embodied_rl.eval import statistics


def read(file: Path) -> tuple[tuple[str, str], float, dict[str, Any]]:
    """Return (algorithm, library), the score of one seed, and what was trained."""
    content = json.loads(file.read_text())
    if "overall" not in content:
        names = ("updates", "batch", "precision", "env", "episodes", "snapshots")
        settings = {key: content[key] for key in names}
        return (content["algo"], content["library"]), content["return_mean"], settings
    algorithm = file.parent.name.split("-")[0]
    settings = {key: content["settings"][key] for key in ("env_id", "episodes", "seed")}
    return (algorithm, "ours"), content["overall"]["normalized_score"], settings


def verdict(algorithm: str, intervals: Mapping[tuple[str, str], statistics.Interval]) -> str:
    """Say whether both libraries' intervals for `algorithm` overlap; empty where one is missing."""
    found = [interval for (name, _), interval in intervals.items() if name == algorithm]
    if len(found) < 2 or any(interval.low is None for interval in found):
        return ""
    return "intervals overlap" if statistics.overlap(*found) else "intervals do not overlap"


def main(name: str, files: list[Path]) -> None:
    by_method: dict[tuple[str, str], list[float]] = defaultdict(list)
    settings: dict[tuple[str, str], dict[str, Any]] = {}
    for file in sorted(files):
        method, score, settings[method] = read(file)
        by_method[method].append(score)
    rows = []
    intervals = {method: statistics.across_seeds(scores).mean for method, scores in by_method.items()}
    for (algorithm, library), scores in sorted(by_method.items()):
        interval = intervals[algorithm, library]
        rows.append(
            {
                "algorithm": algorithm,
                "library": library,
                "scores": [round(score, 2) for score in scores],
                "mean": interval.value,
                "low": interval.low,
                "high": interval.high,
                "verdict": verdict(algorithm, intervals),
                "settings": settings[algorithm, library],
            }
        )
    record.write_scores(name, rows)


if __name__ == "__main__":
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
