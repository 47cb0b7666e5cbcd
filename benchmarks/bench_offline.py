"""Updates per second of IQL, CQL and TD3+BC against d3rlpy, on the same data, batch, networks and threads.

    python -m benchmarks.bench_offline --threads 1 --rounds 5

An update includes drawing the batch. d3rlpy has its own environment (`peers/requirements-d3rlpy.txt`) and
process, which waits between its rounds; the rounds of the two libraries and of our modes take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import record
from benchmarks.learning_offline import MODULES, OURS, PEERS
from benchmarks.transitions import Transitions
from embodied_rl.offline import td3_bc
from rl_core import accelerate

CPU = torch.device("cpu")
TARGETS = {"float32": 1.4, "bfloat16": 2.5}
ASKED = ("iql", "cql")  # the targets are theirs; TD3+BC is shown for comparison


def random_data(file: Path, obs_dim: int = 17, action_dim: int = 6) -> Path:
    """Write 40 episodes of 500 steps, half of them terminated; the shapes of HalfCheetah."""
    rng = np.random.default_rng(0)
    lengths = np.full(40, 500)
    steps = int(lengths.sum())
    terminations = np.zeros(steps, bool)
    terminations[np.cumsum(lengths)[::2] - 1] = True
    np.savez(
        file,
        observations=rng.normal(size=(steps + 40, obs_dim)).astype(np.float32),
        actions=np.tanh(rng.normal(size=(steps, action_dim))).astype(np.float32),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminations=terminations,
        lengths=lengths,
    )
    return file


class Peer:
    """d3rlpy in its own process, updating only when asked."""

    def __init__(self, python: str, algo: str, data: Path, threads: int) -> None:
        command = [python, str(PEERS / "d3rlpy_runner.py"), "speed", "--algo", algo, "--data", str(data)]
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            text=True,
        )
        self._read()

    def rate(self, seconds: float) -> float:
        """Updates per second, sampling included."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"train {seconds}\n")
        self._process.stdin.flush()
        return float(self._read()["rate"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError("d3rlpy ended; run peers/d3rlpy_runner.py by hand to see why")


def stepper(algo: str, data: Transitions, *, bf16: bool, compiled: bool) -> Callable[[], None]:
    """One training step of ours, as `train` does it."""
    module = MODULES[algo]
    cfg = module.Config(**OURS[algo])
    generator = torch.Generator().manual_seed(0)
    agent = module.Agent(cfg, data.spec, generator)

    def wrap(update: accelerate.Update) -> accelerate.Update:
        update = accelerate.autocast(update, CPU, torch.bfloat16) if bf16 else update
        return torch.compile(update) if compiled else update

    update = wrap(module.update)
    delayed = wrap(module.update_actor) if module is td3_bc else None
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        batch = data.sample(generator, cfg.batch_size)
        update(agent, batch, module.draw_noise(cfg, batch, generator), cfg)
        if delayed is not None and count % cfg.policy_delay == 0:
            delayed(agent, batch, cfg)

    for _ in range(4):  # compilation and autotuning
        step()
    return step


def rate(step: Callable[[], None], seconds: float) -> float:
    """Steps per second over about `seconds`."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - start)


def bench(algo: str, args: argparse.Namespace, file: Path) -> list[record.Row]:
    """Measure one algorithm in every mode, in turns with d3rlpy."""
    data = Transitions(file, env_id="HalfCheetah-v5")
    modes = {
        f"{precision}{', compiled' if compiled else ''}": stepper(
            algo, data, bf16=precision == "bfloat16", compiled=compiled
        )
        for precision in TARGETS
        for compiled in ([False, True] if args.compile else [False])
    }
    peer = Peer(args.d3rlpy_python, algo, file, args.threads)
    rounds: list[tuple[float, dict[str, float]]] = []
    for _ in range(args.rounds):
        peer_rate = peer.rate(args.seconds)
        rounds.append((peer_rate, {mode: rate(step, args.seconds) for mode, step in modes.items()}))
    peer.close()
    rows = []
    for mode in modes:
        ratios = [ours[mode] / theirs for theirs, ours in rounds]
        rows.append(
            record.Row(
                what=f"{algo} update, {mode}, {args.threads} thread{'s' if args.threads > 1 else ''}",
                peer_name="d3rlpy 2.8.1 float32",
                ours=statistics.median(ours[mode] for _, ours in rounds),
                peer=statistics.median(theirs for theirs, _ in rounds),
                unit="updates/s",
                ratio=statistics.median(ratios),
                target=TARGETS[mode.split(",")[0]] if algo in ASKED else None,
                ratios=[round(ratio, 3) for ratio in ratios],
                settings={"batch": 256, "obs": 17, "action": 6, "seconds": args.seconds},
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algos", nargs="+", choices=list(MODULES), default=list(MODULES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="per round and mode")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--d3rlpy-python", default=".venv-d3rlpy/bin/python")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        file = random_data(Path(temporary) / "random.npz")
        rows = [row for algo in args.algos for row in bench(algo, args, file)]
    record.write(f"offline_{args.threads}_threads" if args.threads > 1 else "offline_1_thread", rows)


if __name__ == "__main__":
    main()
