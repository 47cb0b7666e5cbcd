"""Loading a Minari dataset against Minari's own iterator, and the memory of two million transitions.

python benchmarks/bench_data.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import torch
from minari.data_collector import EpisodeBuffer

from benchmarks.record import Row, compare, write
from embodied_rl.data import minari_io
from embodied_rl.data.recorder import Info, Recorder
from embodied_rl.data.transitions import Config, Transitions

OBS = gym.spaces.Box(-np.inf, np.inf, (17,), np.float64)
ACTION = gym.spaces.Box(-1.0, 1.0, (6,), np.float32)
SMALL = {"episodes": 400, "steps": 500, "obs": 17, "action": 6}
LARGE = {"episodes": 2000, "steps": 1000, "obs": 17, "action": 6}


def episode(rng: np.random.Generator, steps: int) -> dict[str, np.ndarray]:
    return {
        "observations": rng.normal(size=(steps + 1, 17)),
        "actions": rng.uniform(-1, 1, (steps, 6)).astype(np.float32),
        "rewards": rng.normal(size=steps),
        "terminations": np.zeros(steps, bool),
        "truncations": np.arange(steps) == steps - 1,
    }


def write_with_minari(dataset_id: str, num_infos: int) -> None:
    """The layout users download: written by Minari, float64 observations."""
    rng = np.random.default_rng(0)
    buffers = []
    for _ in range(SMALL["episodes"]):
        infos = {f"x{i}": rng.normal(size=SMALL["steps"] + 1) for i in range(num_infos)}
        buffers.append(EpisodeBuffer(**episode(rng, SMALL["steps"]), infos=infos or None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(dataset_id, buffers, observation_space=OBS, action_space=ACTION)


def loading(root: Path, dataset_id: str, what: str) -> list[Row]:
    def iterate() -> list[minari.EpisodeData]:
        return list(minari.load_dataset(dataset_id).iterate_episodes())

    def cached() -> None:
        minari_io.load(dataset_id)

    def first() -> None:
        shutil.rmtree(root / dataset_id / minari_io.CACHE_NAME, ignore_errors=True)
        minari_io.load(dataset_id)

    peer = "iterate_episodes"
    return [
        compare(f"first load, {what}", first, iterate, peer_name=peer, rounds=15, target=4, settings=SMALL),
        compare(
            f"cached load, {what}", cached, iterate, peer_name=peer, rounds=15, target=50, settings=SMALL
        ),
    ]


def memory(root: Path) -> Row:
    """Peak memory a process gains by making two million transitions resident, normalised, and sampling."""
    dataset_id = "bench/large-v0"
    rng = np.random.default_rng(0)
    with Recorder(dataset_id, Info(observation_space=OBS, action_space=ACTION), root) as recorder:
        one = episode(rng, LARGE["steps"])
        for _ in range(LARGE["episodes"]):
            recorder.add_episode(**one | {"rewards": rng.normal(size=LARGE["steps"])})
    minari_io.load(dataset_id, root)
    flat = sum(path.stat().st_size for path in (root / dataset_id / minari_io.CACHE_NAME).glob("*/*")) / 1e6
    command = [sys.executable, "-m", "benchmarks.bench_data", "--resident", dataset_id]
    peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    file = (root / dataset_id / "data" / minari_io.HDF5_NAME).stat().st_size / 1e6
    return Row(
        what="memory of 2 M resident transitions",
        peer_name="the dataset itself, float32",
        ours=peak,
        peer=flat,
        unit="MB",
        ratio=flat / peak,
        target=round(1 / 1.3, 3),
        settings={**LARGE, "hdf5_megabytes": round(file, 1), "of_hdf5": round(peak / file, 3)},
    )


def resident(dataset_id: str) -> None:
    """In a process of its own: print the megabytes gained."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    before = _status("VmRSS")
    data = Transitions(minari_io.load(dataset_id), Config(id=dataset_id, normalize_obs=True, n_step=3))
    for _ in range(100):
        data.sample(generator, 256)
    print(_status("VmHWM") - before)


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(key))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        root = Path(folder)
        write_with_minari("bench/plain-v0", 0)
        write_with_minari("bench/infos-v0", 6)
        rows = loading(root, "bench/plain-v0", "400 episodes x 500 steps")
        rows += loading(root, "bench/infos-v0", "the same with 6 infos a step, as Walker2d-v5 gives")
        write("data", [*rows, memory(root)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--resident"]:
        resident(sys.argv[2])
    else:
        main()
