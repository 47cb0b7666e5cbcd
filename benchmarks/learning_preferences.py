"""What 200 comparisons are worth: PPO on a learnt reward against PPO on the true one, at equal steps.

python -m benchmarks.learning_preferences --seeds 0 1 2 3 4

Every run is one of scripts/train_online.py in `--out`; those that are there already are kept. The score is
the true return of new episodes at the end.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks import record
from embodied_rl.eval import statistics

METHODS = {
    "true reward": ["algo=ppo"],
    "200 comparisons": ["algo=preference_ppo"],
    "200 comparisons, uniform": ["algo=preference_ppo", "algo.feedback.selection=uniform"],
    "200 comparisons, 10 % mistakes": ["algo=preference_ppo", "algo.feedback.teacher.mistakes=0.1"],
}
TRUE = "true reward"


def train(method: str, recipe: str, seed: int, out: Path, more: list[str]) -> dict[str, Any]:
    """One run, made now or earlier: its return, steps, seconds, accuracy of the reward model at the end."""
    run = out / f"{recipe}-{method.replace(' ', '_').replace(',', '').replace('%', 'percent')}-{seed}"
    words = [f"+experiment={recipe}", *METHODS[method], f"run.seed={seed}", *more]
    if not (run / "eval.json").exists():
        resume = [f"run.resume={str(any((run / 'checkpoints').glob('step_*'))).lower()}", f"run.dir={run}"]
        subprocess.run([sys.executable, "scripts/train_online.py", *words, *resume], check=True)
    config = yaml.safe_load((run / "config.yaml").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {
        "seed": seed,
        "return": round(json.loads((run / "eval.json").read_text())["overall"]["avg_sum_reward"], 1),
        "env_steps": rows[-1]["step"] * config["rollout"]["num_envs"] * config["rollout"]["horizon"],
        "command": " ".join(["python scripts/train_online.py", *words]),
    }
    for name in ("accuracy", "agreement", "comparisons"):
        values = [row[f"feedback/{name}"] for row in rows if f"feedback/{name}" in row]
        found |= {name: round(values[-1], 3)} if values else {}
    return found


def row(what: str, scores: list[float], runs: list[dict[str, Any]], verdict: str = "") -> dict[str, Any]:
    """One line of the table."""
    mean = statistics.across_seeds(scores).mean
    settings = {"env_steps": runs[0]["env_steps"]}
    for name in ("accuracy", "agreement"):
        if name in runs[0]:
            settings[f"mean {name}"] = round(sum(run[name] for run in runs) / len(runs), 3)
    return {"algorithm": what, "library": "ours", "scores": [round(s, 1) for s in scores], "mean": mean.value,
            "low": mean.low, "high": mean.high, "verdict": verdict, "settings": settings,
            "runs": runs}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS)[:2])
    parser.add_argument("--recipe", default="half_cheetah_ppo")
    parser.add_argument("--out", type=Path, default=Path("runs/preferences"))
    parser.add_argument("more", nargs="*", help="overrides for every run")
    args = parser.parse_args()
    found = {
        method: [train(method, args.recipe, seed, args.out, args.more) for seed in args.seeds]
        for method in args.methods
    }
    rows = []
    for method, runs in found.items():
        scores = [run["return"] for run in runs]
        rows.append(row(f"{args.recipe}, {method}, return", scores, runs))
        if method != TRUE and TRUE in found:
            true = sum(run["return"] for run in found[TRUE]) / len(args.seeds)
            shares = [100.0 * score / true for score in scores]
            what = f"{args.recipe}, {method}, % of the mean return with the true reward"
            rows.append(row(what, shares, runs, "asked: >= 80"))
    record.write_scores("learning_preferences", rows)


if __name__ == "__main__":
    main()
