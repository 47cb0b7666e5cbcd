"""How well the desk's scripted experts do: success of every task over 100 seeds in each scene, and of chains.

`python -m benchmarks.bench_desk_experts` writes `results/tables/desk_experts.json`, which docs/desk.md shows;
names of tasks after it measure and print those alone.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator

import numpy as np

from benchmarks import record
from embodied_rl.eval.statistics import wilson
from envs.desk.chains import evaluate_chains
from envs.desk.experts import Expert
from envs.desk.scene import SCENES
from envs.desk.tasks import CALVIN_TASKS, tasks_of
from envs.desk.vector import DeskVectorEnv

NUM_SEEDS = 100
NUM_CHAINS = 100
MAX_STEPS = 120
FIRST_SEED = 10_000
RESULTS = record.RESULTS / "tables" / "desk_experts.json"  # a table of tasks, not of comparisons


def first_episodes(task: str, scene: str) -> tuple[np.ndarray, np.ndarray]:
    """Success `[NUM_SEEDS]` and length `[NUM_SEEDS]` of one episode of each seed."""
    env = DeskVectorEnv(NUM_SEEDS, task, scene=scene, max_episode_steps=MAX_STEPS)
    expert = Expert(task, scene=scene)
    obs, _ = env.reset(seed=FIRST_SEED)
    success, length = np.zeros(NUM_SEEDS, bool), np.zeros(NUM_SEEDS, int)
    for step in range(MAX_STEPS):
        obs, _, terminated, truncated, _ = env.step(expert.act(obs))
        ends = (terminated | truncated) & (length == 0)
        length[ends], success[ends] = step + 1, terminated[ends]
        if length.all():
            break
    return success, length


def measure(names: list[str]) -> Iterator[dict[str, object]]:
    """One row for each of the tasks, or for all, in each scene that allows it."""
    for scene, about in SCENES.items():
        for task in tasks_of(about):
            if names and task not in names:
                continue
            success, length = first_episodes(task, scene)
            rate = wilson(int(success.sum()), NUM_SEEDS)
            row = {"task": task, "scene": scene, "success": rate.value, "low": rate.low, "high": rate.high}
            row["steps"] = float(length[success].mean()) if success.any() else None
            print(f"| {scene} | {task} | {success.mean():.0%} | {row['steps'] or 0:.1f} |", flush=True)
            yield row


def main(names: list[str]) -> None:
    """Measure, print, and where it was everything, record."""
    print("| scene | task | success | mean steps |\n| --- | --- | --- | --- |")
    rows = list(measure(names))
    if names:
        return
    report = evaluate_chains(Expert(CALVIN_TASKS), NUM_CHAINS, max_steps=MAX_STEPS)
    rates = ", ".join(f"{rate:.0%}" for rate in report.success)
    print(f"\nchains of 5: {rates} done at least 1, 2, ...; mean length {report.mean_length:.2f}")
    command = shlex.join(["python", "-m", "benchmarks.bench_desk_experts"])
    settings = {"seeds": [FIRST_SEED, FIRST_SEED + NUM_SEEDS - 1], "max_steps": MAX_STEPS}
    chains = {"number": NUM_CHAINS, "success": report.success, "mean_length": report.mean_length}
    content = {"command": command, **settings, "chains": chains, "tasks": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
