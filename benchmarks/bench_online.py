"""PPO on the desk, steps per second with learning: ours against Stable-Baselines3 as its users run it.

SB3 steps one desk per process (`SubprocVecEnv`, two processes); we step a batch on two threads. Networks,
minibatches, epochs and the steps between two updates are the same, so both do the same learning per step.
Both get the same number of CPU threads for torch. `python -m benchmarks.bench_online`
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gymnasium as gym
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


class Clock(BaseCallback):
    """Notes when each rollout of SB3 begins."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def _on_rollout_start(self) -> None:
        self.times.append(time.perf_counter())

    def _on_step(self) -> bool:
        return True


def ours(num_envs: int, iterations: int) -> list[float]:
    """Seconds of every iteration after the first."""
    cfg = ppo.Config(hidden=HIDDEN, ppo=UPDATE)
    rollout = Config(num_envs=num_envs, horizon=STEPS // num_envs)
    times: list[float] = []
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
            ppo.train(cfg, world, run, lambda agent: times.append(time.perf_counter()) or {})
    return [after - before for before, after in zip(times, times[1:], strict=False)]


def sb3(iterations: int) -> list[float]:
    """Seconds of every iteration after the first."""
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
    clock = Clock()
    model.learn(STEPS * (iterations + 1), callback=clock)
    times = [*clock.times, time.perf_counter()]
    env.close()
    return [after - before for before, after in zip(times[1:], times[2:], strict=False)]


def desk() -> gym.Env:
    """One desk."""
    return make(DESK, task=TASK)


def main() -> None:
    """Take turns, a few iterations each, and record the ratio of the rates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--num-envs", type=int, default=128)
    args = parser.parse_args()
    run_ours: Callable[[], list[float]] = partial(ours, args.num_envs, args.iterations)
    pairs = [
        (STEPS / statistics.mean(run_ours()), STEPS / statistics.mean(sb3(args.iterations)))
        for _ in range(args.rounds)
    ]
    ratios = [a / b for a, b in pairs]
    row = Row(
        what=f"PPO on {TASK}, environment steps with learning",
        peer_name="SB3, SubprocVecEnv",
        ours=statistics.median(a for a, _ in pairs),
        peer=statistics.median(b for _, b in pairs),
        unit="steps/s",
        ratio=statistics.median(ratios),
        target=3.0,
        ratios=[round(ratio, 3) for ratio in ratios],
        settings={
            "num_envs": args.num_envs,
            "sb3_processes": PROCESSES,
            "steps_per_update": STEPS,
            "minibatch": UPDATE.minibatch_size,
            "epochs": UPDATE.epochs,
            "hidden": list(HIDDEN),
            "torch_threads": torch.get_num_threads(),
        },
    )
    write("online", [row])


if __name__ == "__main__":
    main()
