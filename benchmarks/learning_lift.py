"""PPO from scratch on the desk's lift_block: success, environment steps and time, with the learning curve.

python scripts/train_online.py +experiment=lift_block_ppo run.seed=0 run.dir=runs/lift-0
python -m benchmarks.learning_lift runs/lift-0 [runs/lift-1 ...]

Each run has one seed. `curve` holds iteration, environment steps, seconds and the success rate of short
evaluations with the mean action; the score is the success over the new episodes at the end.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import yaml

from benchmarks import record
from embodied_rl.eval import statistics

SOLVED = 0.9


def read(run: Path) -> dict[str, Any]:
    """What one run directory says: its evaluation, its configuration, its curve."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    evaluation = json.loads((run / "eval.json").read_text())
    per_iteration = config["rollout"]["num_envs"] * config["rollout"]["horizon"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [
        {
            "iteration": row["step"],
            "env_steps": row["step"] * per_iteration,
            "seconds": round(row["time"]),
            "success": round(row["eval/success"], 3),
            "success_while_exploring": round(row.get("rollout/success", 0.0), 3),
        }
        for row in rows
        if "eval/success" in row
    ]
    return {
        "success": evaluation["overall"]["pc_success"],
        "interval": evaluation["overall"]["pc_success_ci95"],
        "episodes": evaluation["overall"]["n_episodes"],
        "seed": config["run"]["seed"],
        "env_steps": rows[-1]["step"] * per_iteration,
        "seconds": round(rows[-1]["time"]),
        "threads": config["rollout"]["threads"] or "all",
        # without the place where it was put, which is somebody's own folder
        "command": re.sub(r" run\.dir=\S+", "", " ".join(config["provenance"]["command"].split())),
        "curve": curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--note", default="", help="what was beside the runs on the machine")
    args = parser.parse_args()
    runs = [read(run) for run in args.runs]
    mean = statistics.across_seeds([run["success"] for run in runs]).mean
    first = runs[0]
    solved = next((p for p in first["curve"] if p["success"] >= SOLVED), None)
    settings = {key: first[key] for key in ("episodes", "env_steps", "seconds", "threads")}
    settings["90 % first seen"] = (
        f"after {solved['env_steps']} steps, {solved['seconds']} s" if solved else "never"
    )
    record.write_scores(
        "learning_lift_block",
        [
            {
                "algorithm": "ppo on lift_block, success in %",
                "library": "ours",
                "scores": [run["success"] for run in runs],
                "mean": mean.value,
                "low": mean.low,
                "high": mean.high,
                "verdict": args.note,
                "settings": settings,
                "runs": runs,
            }
        ],
    )


if __name__ == "__main__":
    main()
