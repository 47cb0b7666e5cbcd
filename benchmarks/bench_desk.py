"""The desk against the bare physics; memory per simulation.

Both step the same model from the same states with the same joint targets on
the same threads, and take turns: the ratio is the share of its rate that is left in the environment.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from mujoco.batch import Batch

from benchmarks.record import Row, write
from envs.desk.experts import Expert
from envs.desk.scene import CONTROL_STEPS, DESK
from envs.desk.tasks import tasks_of
from envs.desk.vector import DeskVectorEnv

NUM_ENVS = 64
NUM_THREADS = 2
TURNS = 120
MIX = list(tasks_of(DESK))


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def stepping(what: str, task: str | list[str], num_envs: int, threads: int, target: float | None) -> Row:
    """Environments under an imperfect expert, from the start of their episodes on."""
    env = DeskVectorEnv(num_envs, task, num_threads=threads)
    expert = Expert(task, noise=0.2, mistakes=0.02)
    sim = env.episodes.sim
    bare = Batch(sim.model, num_envs, min(threads, num_envs))
    control = bare.bind("ctrl")
    obs, _ = env.reset(seed=0)
    times: list[tuple[float, float]] = []
    for _ in range(TURNS if num_envs <= NUM_ENVS else TURNS // 12):
        action = expert.act(obs)
        bare.state[:] = sim.batch.state
        result: list[tuple] = []
        with_env = milliseconds(lambda action=action, result=result: result.append(env.step(action)))
        control[:] = sim.batch.bind("ctrl")  # what the environment commanded, but for the few just reset
        times.append((with_env, milliseconds(lambda: bare.step(nstep=CONTROL_STEPS))))
        obs = result[0][0]
    ratios = [bare_ms / env_ms for env_ms, bare_ms in times]
    env_ms, bare_ms = (statistics.median(column) for column in zip(*times, strict=True))
    return Row(
        what=f"{num_envs} desks, {what}, one action each, {threads} threads",
        peer_name="bare mujoco.batch",
        ours=env_ms,
        peer=bare_ms,
        unit="ms",
        ratio=statistics.median(ratios),
        target=target,
        ratios=[round(ratio, 3) for ratio in ratios],
        settings={
            "threads": threads,
            "envs": num_envs,
            "env_steps_per_second": round(num_envs * 1e3 / env_ms),
            "physics_steps_per_second": round(num_envs * CONTROL_STEPS * 1e3 / env_ms),
        },
    )


def memory(obs: str) -> Row:
    """What a further simulation adds to the process, from the difference of two numbers of them."""
    few, many = 64, 576
    code = (
        "import resource, sys; from envs.desk.vector import DeskVectorEnv;"
        f"env = DeskVectorEnv(int(sys.argv[1]), 'place_block', num_threads={NUM_THREADS}, obs={obs!r});"
        "env.reset(seed=0); [env.step(env.action_space.sample()) for _ in range(3)];"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"  # kilobytes
    )
    used = [
        int(subprocess.run([sys.executable, "-c", code, str(n)], capture_output=True, check=True).stdout)
        for n in (few, many)
    ]
    each = (used[1] - used[0]) / (many - few) / 1024
    return Row(
        what=f"memory per further simulation, obs={obs}",
        peer_name="allowed",
        ours=each,
        peer=1.0,
        unit="MB",
        ratio=1.0 / each,
        target=1.0,
        settings={"from": few, "to": many},
    )


def main() -> None:
    rows = [memory(obs) for obs in ("state", "rgb")]
    rows += [stepping("place_block", "place_block", NUM_ENVS, NUM_THREADS, 0.8)]
    for num_envs in (1, 8, NUM_ENVS, 512):
        for threads in (1, NUM_THREADS):
            asked = 0.8 if (num_envs, threads) == (NUM_ENVS, NUM_THREADS) else None
            rows.append(stepping("all tasks", MIX, num_envs, threads, asked))
    write("desk", rows)


if __name__ == "__main__":
    main()
