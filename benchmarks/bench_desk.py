"""The desk against the bare physics: how much of `mujoco.batch`'s rate is left in 64 state environments.

Both step the same model from the same states with the same joint targets on the same threads. They take turns within
one process, so that whatever else the machine does slows both, and the ratio is the median over the turns. Prints one
JSON object: physics steps per second of both, their ratio, and milliseconds per camera image.

    python benchmarks/bench_desk.py [num_envs] [num_threads]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import mujoco
import numpy as np
from mujoco.batch import Batch

from envs.desk.cameras import Quality, render_many
from envs.desk.experts import Expert
from envs.desk.scene import COARSE_GROUPS, CONTROL_STEPS
from envs.desk.vector import DeskVectorEnv

TURNS = 120


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def stepping(num_envs: int, num_threads: int) -> dict[str, float]:
    env = DeskVectorEnv(num_envs, "place_block", num_threads=num_threads)
    expert = Expert("place_block", noise=0.2, mistakes=0.02)
    sim = env.episodes.sim
    bare = Batch(sim.model, num_envs, num_threads)
    control = bare.bind("ctrl")
    obs, _ = env.reset(seed=0)
    times: list[tuple[float, float]] = []
    for _ in range(TURNS):
        action = expert.act(obs)
        bare.state[:] = sim.batch.state
        result: list[tuple] = []
        with_env = seconds(lambda action=action, result=result: result.append(env.step(action)))
        control[:] = sim.batch.bind("ctrl")  # what the environment commanded; a few were reset since
        times.append((with_env, seconds(lambda: bare.step(nstep=CONTROL_STEPS))))
        obs = result[0][0]
    steps = num_envs * CONTROL_STEPS
    return {
        "env_physics_steps_per_second": steps / statistics.median(e for e, _ in times),
        "bare_physics_steps_per_second": steps / statistics.median(b for _, b in times),
        "ratio": statistics.median(b / e for e, b in times),
    }


def cameras(num_images: int, num_threads: int) -> dict[str, float]:
    env = DeskVectorEnv(num_images, "place_block", num_threads=num_threads)
    env.reset(seed=0)
    batch = env.episodes.sim.batch
    datas: list[mujoco.MjData] = [batch.get_data(i) for i in range(num_images)]
    quality = Quality(groups=COARSE_GROUPS)
    rates = {}
    for name in ("static", "wrist"):
        times = [
            seconds(
                lambda name=name: render_many(
                    batch.model, datas, name, 64, 64, quality=quality, num_threads=num_threads
                )
            )
            for _ in range(7)
        ]
        rates[f"{name}_64x64_ms"] = 1e3 * float(np.median(times)) / num_images
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_envs", type=int, nargs="?", default=64)
    parser.add_argument("num_threads", type=int, nargs="?", default=2)
    args = parser.parse_args()
    result = vars(args) | stepping(args.num_envs, args.num_threads) | cameras(16, args.num_threads)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
