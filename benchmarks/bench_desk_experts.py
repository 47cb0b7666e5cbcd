"""How well the desk's scripted experts do: success and steps of every task over 100 seeds, and of chains.

Prints a Markdown table; `python benchmarks/bench_desk_experts.py open_drawer stack_block` for only some.
"""

from __future__ import annotations

import sys

import numpy as np

from envs.desk.chains import evaluate_chains
from envs.desk.experts import Expert
from envs.desk.tasks import CALVIN_TASKS, TASKS
from envs.desk.vector import DeskVectorEnv

NUM_SEEDS = 100
NUM_CHAINS = 100
MAX_STEPS = 120
FIRST_SEED = 10_000


def first_episodes(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Success `[NUM_SEEDS]` and length `[NUM_SEEDS]` of one episode of each seed."""
    env, expert = DeskVectorEnv(NUM_SEEDS, task, max_episode_steps=MAX_STEPS), Expert(task)
    obs, _ = env.reset(seed=FIRST_SEED)
    success, length = np.zeros(NUM_SEEDS, bool), np.zeros(NUM_SEEDS, int)
    for step in range(MAX_STEPS):
        obs, _, terminated, truncated, _ = env.step(expert.act(obs))
        ends = (terminated | truncated) & (length == 0)
        length[ends], success[ends] = step + 1, terminated[ends]
        if length.all():
            break
    return success, length


def main(names: list[str]) -> None:
    print("| task | success | mean steps |\n| --- | --- | --- |")
    for name in names or TASKS:
        success, length = first_episodes(name)
        print(f"| {name} | {100 * success.mean():.0f} % | {length[success].mean():.1f} |", flush=True)
    if not names:
        report = evaluate_chains(Expert(CALVIN_TASKS), NUM_CHAINS, max_steps=MAX_STEPS)
        rates = ", ".join(f"{100 * rate:.0f} %" for rate in report.success)
        print(f"\nchains of 5: {rates} done at least 1, 2, ...; mean length {report.mean_length:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
