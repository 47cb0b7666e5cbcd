"""The desk against the bare physics: how much of `mujoco.batch`'s rate is left in 64 state environments.

Both step the same model from the same states with the same joint targets on the same threads, and take turns.
The camera is compared with itself on one thread, for its time per image.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from mujoco.batch import Batch

from benchmarks.record import Row, compare, write
from envs.desk.cameras import Quality, render_many
from envs.desk.experts import Expert
from envs.desk.scene import COARSE_GROUPS, CONTROL_STEPS
from envs.desk.vector import DeskVectorEnv

NUM_ENVS = 64
NUM_THREADS = 2
TURNS = 120
NUM_IMAGES = 16


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


def camera(name: str) -> Row:
    env = DeskVectorEnv(NUM_IMAGES, "place_block", num_threads=NUM_THREADS)
    env.reset(seed=0)
    batch = env.episodes.sim.batch
    datas = [batch.get_data(i) for i in range(NUM_IMAGES)]

    def images(num_threads: int) -> object:
        quality = Quality(groups=COARSE_GROUPS)
        return render_many(batch.model, datas, name, 64, 64, quality=quality, num_threads=num_threads)

    return compare(
        f"{NUM_IMAGES} images 64x64, {name} camera, {NUM_THREADS} threads",
        lambda: images(NUM_THREADS),
        lambda: images(1),
        peer_name="one thread",
        settings={"threads": NUM_THREADS, "images": NUM_IMAGES},
    )


def main() -> None:
    write("desk", [stepping(), camera("static"), camera("wrist")])


if __name__ == "__main__":
    main()
