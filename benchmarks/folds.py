"""Reward models trained through the script once a fold, so that every row is held out once."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import record


def train(
    recipe: str, data: str, runs: Path, fold: int, folds: int, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """Train one of the folds of `+experiment=<recipe>` with `changes` (`key=value`); its report.

    A fold that is there already is read.
    """
    folder = runs.resolve() / f"fold{fold}"
    if not (folder / "eval.json").exists():
        words = [f"+experiment={recipe}", f"data.source={data}", f"data.held_out={1 / folds}"]
        words += [f"data.fold={fold}", "run.threads=1", "run.tensorboard=false", f"run.dir={folder}"]
        words += changes
        subprocess.run([sys.executable, "scripts/train_reward_model.py", *words], check=True, cwd=record.ROOT)
    report: dict[str, Any] = json.loads((folder / "eval.json").read_text())["overall"]
    return report
