"""The desk on threads against Gymnasium's vectorisation of the single environment, one process for each.

Processor time is compared, of all threads and processes together: 64 processes get more of a machine that
does other work too than 2 threads do, and on an idle one both keep all its cores busy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gymnasium.vector import AsyncVectorEnv

from benchmarks.record import compare, write
from envs.desk.env import DeskEnv
from envs.desk.vector import DeskVectorEnv

NUM_ENVS = 64
NUM_THREADS = 2


def processor_seconds(processes: Sequence[int]) -> float:
    """Time that this process and some of its children have spent computing."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])  # in user and in kernel mode
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    # Before there are threads, which a fork would not copy.
    peer = AsyncVectorEnv([lambda: DeskEnv("place_block")] * NUM_ENVS)
    ours = DeskVectorEnv(NUM_ENVS, "place_block", num_threads=NUM_THREADS)
    peer.reset(seed=0), ours.reset(seed=0)
    action = np.zeros((NUM_ENVS, 7), np.float32)
    children = [process.pid for process in peer.processes]
    row = compare(
        f"{NUM_ENVS} desks, place_block, one action each, processor time",
        lambda: ours.step(action),
        lambda: peer.step(action),
        peer_name="gymnasium AsyncVectorEnv",
        rounds=11,
        repeats=4,
        target=5.0,
        settings={"threads": NUM_THREADS, "processes": NUM_ENVS},
        clock=lambda: processor_seconds(children),
    )
    peer.close()
    write("desk_processes", [row])


if __name__ == "__main__":
    main()
