"""PPO on the desk, steps per second with learning: ours against Stable-Baselines3 as its users run it.

SB3 steps one desk per process (`SubprocVecEnv`, two processes); we step a batch on two threads. Both have one
thread of torch. Networks, minibatches, epochs and the steps between two updates are the same, so both do the
same learning per step. Two clocks run along: the wall's, and the CPU seconds of all processes, which other
work on the machine hardly changes. `python -m benchmarks.bench_online`
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv

from benchmarks.record import Row, write
from embodied_rl.online import ppo
from embodied_rl.online.rollout import Config, open_world
from envs.config import Config as EnvConfig
from envs.suites import DESK, make
from rl_core import ppo as core
from rl_core import run as runs

TASK = "lift_block"
HIDDEN = (256, 256)
STEPS = 4096  # environment steps between two updates
UPDATE = core.Config(epochs=5, minibatch_size=512)
PROCESSES = 2
PHYSICS_THREADS = 2  # ours
TORCH_THREADS = 1  # of both
CLOCKS = {"wall": 0, "cpu": 1}  # cpu alone on a machine that does other things too


def now(pids: Sequence[int] = ()) -> np.ndarray:
    """Wall seconds, and CPU seconds of this process and of `pids` (as Linux counts them)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    others = sum(int(row[11]) + int(row[12]) for row in fields) / os.sysconf("SC_CLK_TCK")
    return np.array([time.perf_counter(), time.process_time() + others])


class Clock(BaseCallback):
    """Notes when each rollout of SB3 begins."""

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__()
        self.times: list[np.ndarray] = []
        self._pids = pids

    def _on_rollout_start(self) -> None:
        self.times.append(now(self._pids))

    def _on_step(self) -> bool:
        return True


def rates(times: Sequence[np.ndarray]) -> np.ndarray:
    """Steps per wall second and per CPU second between the first and the last of `times`."""
    rate: np.ndarray = STEPS * (len(times) - 1) / (times[-1] - times[0])
    return rate


def ours(num_envs: int, iterations: int) -> np.ndarray:
    """Rates over the iterations after the first."""
    cfg = ppo.Config(hidden=HIDDEN, ppo=UPDATE)
    rollout = Config(num_envs=num_envs, horizon=STEPS // num_envs, threads=PHYSICS_THREADS)
    times: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = runs.Config(
            dir=str(Path(folder) / "run"),
            steps=iterations + 1,
            device="cpu",
            tensorboard=False,
            log_every=1,
            eval_every=1,
        )
        with open_world(EnvConfig(task=TASK), rollout) as world, runs.Run(settings, config=cfg) as run:
            ppo.train(cfg, world, run, lambda agent: times.append(now()) or {})
    return rates(times)


def sb3(iterations: int) -> np.ndarray:
    """Rates over the iterations after the first."""
    env = SubprocVecEnv([desk] * PROCESSES)
    model = PPO(
        "MultiInputPolicy",
        env,
        n_steps=STEPS // PROCESSES,
        batch_size=UPDATE.minibatch_size,
        n_epochs=UPDATE.epochs,
        policy_kwargs={"net_arch": list(HIDDEN), "activation_fn": torch.nn.ReLU},
        device="cpu",
    )
    clock = Clock([process.pid for process in env.processes])
    model.learn(STEPS * (iterations + 1), callback=clock)
    clock._on_rollout_start()
    env.close()
    return rates(clock.times[1:])


def desk() -> gym.Env:
    """One desk."""
    return make(DESK, task=TASK)


def main() -> None:
    """Take turns, a few iterations each, and record the ratio of the rates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--num-envs", type=int, default=128)
    parser.add_argument("--clocks", nargs="+", choices=CLOCKS, default=list(CLOCKS))
    args = parser.parse_args()
    torch.set_num_threads(TORCH_THREADS)
    os.environ["OMP_NUM_THREADS"] = str(TORCH_THREADS)  # of SB3's processes, which begin with this one's
    pairs = [(ours(args.num_envs, args.iterations), sb3(args.iterations)) for _ in range(args.rounds)]
    write("online", [row(CLOCKS[clock], pairs, args.num_envs) for clock in args.clocks])


def row(index: int, pairs: list[tuple[np.ndarray, np.ndarray]], num_envs: int) -> Row:
    """Compare by one clock; the ratio is taken round by round."""
    clock = "CPU " if index else ""
    ratios = [float(a[index] / b[index]) for a, b in pairs]
    return Row(
        what=f"PPO on {TASK} with learning, environment steps per {clock}second",
        peer_name="SB3, SubprocVecEnv",
        ours=float(statistics.median(a[index] for a, _ in pairs)),
        peer=float(statistics.median(b[index] for _, b in pairs)),
        unit=f"steps/{clock}s",
        ratio=statistics.median(ratios),
        target=None if clock else 3.0,
        ratios=[round(ratio, 3) for ratio in ratios],
        settings={
            "num_envs": num_envs,
            "sb3_processes": PROCESSES,
            "steps_per_update": STEPS,
            "minibatch": UPDATE.minibatch_size,
            "epochs": UPDATE.epochs,
            "hidden": list(HIDDEN),
            "physics_threads": PHYSICS_THREADS,
            "torch_threads": TORCH_THREADS,
        },
    )


if __name__ == "__main__":
    main()
