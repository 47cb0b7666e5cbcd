"""The desk against the bare physics: how much of `mujoco.batch`'s rate is left in 64 state environments.

Both step the same model from the same states with the same joint targets on the same threads, and take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from mujoco.batch import Batch

from benchmarks.record import Row, write
from envs.desk.experts import Expert
from envs.desk.scene import CONTROL_STEPS
from envs.desk.vector import DeskVectorEnv

NUM_ENVS = 64
NUM_THREADS = 2
TURNS = 120


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def stepping() -> Row:
    env = DeskVectorEnv(NUM_ENVS, "place_block", num_threads=NUM_THREADS)
    expert = Expert("place_block", noise=0.2, mistakes=0.02)
    sim = env.episodes.sim
    bare = Batch(sim.model, NUM_ENVS, NUM_THREADS)
    control = bare.bind("ctrl")
    obs, _ = env.reset(seed=0)
    times: list[tuple[float, float]] = []
    for _ in range(TURNS):
        action = expert.act(obs)
        bare.state[:] = sim.batch.state
        result: list[tuple] = []
        with_env = milliseconds(lambda action=action, result=result: result.append(env.step(action)))
        control[:] = sim.batch.bind("ctrl")  # what the environment commanded, but for the few just reset
        times.append((with_env, milliseconds(lambda: bare.step(nstep=CONTROL_STEPS))))
        obs = result[0][0]
    ratios = [bare_ms / env_ms for env_ms, bare_ms in times]
    env_ms, bare_ms = (statistics.median(column) for column in zip(*times, strict=True))
    steps = NUM_ENVS * CONTROL_STEPS * 1e3
    return Row(
        what=f"{NUM_ENVS} desk environments, one action each",
        peer_name="bare mujoco.batch",
        ours=env_ms,
        peer=bare_ms,
        unit="ms",
        ratio=statistics.median(ratios),
        target=0.8,
        ratios=[round(ratio, 3) for ratio in ratios],
        settings={
            "threads": NUM_THREADS,
            "env_physics_steps_per_second": round(steps / env_ms),
            "bare_physics_steps_per_second": round(steps / bare_ms),
        },
    )


def main() -> None:
    write("desk", [stepping()])


if __name__ == "__main__":
    main()
