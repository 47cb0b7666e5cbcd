"""Does ours learn what d3rlpy learns? Every cell of the comparison on Hopper medium-replay, then the table.

python -m benchmarks.learning_hopper --data hopper/medium-replay-v0 --out runs/hopper-cells
python -m benchmarks.learning_hopper --data hopper/medium-replay-v0 --out runs/quick --quick

`benchmarks/make_hopper_replay.py` says how the data are made. A cell that is there already is kept, so a
stopped comparison goes on; one core needs about two hours. The training is short, the question is whether
both libraries arrive at the same place after the same updates; CQL's batch is smaller because its update
costs thirty times more.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import scores

UPDATES_AND_BATCH = {"iql": (15_000, 256), "td3_bc": (8_000, 256), "cql": (8_000, 64)}
SNAPSHOTS = {"iql": 1, "td3_bc": 1, "cql": 8}  # CQL's policy changes most from update to update
SEEDS = range(3)
QUICK = 20  # updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", required=True, help="Minari id, or an .npz as learning_offline describes it"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a few updates each, and nothing is recorded")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    files = []
    for algo, (updates, batch) in UPDATES_AND_BATCH.items():
        for seed in SEEDS[:1] if args.quick else SEEDS:
            for library in ("ours", "d3rlpy"):
                files.append(args.out / f"{algo}-{library}-{seed}.json")
                options = {"algo": algo, "library": library, "seed": seed, "batch": batch}
                options["snapshots"] = SNAPSHOTS[algo]
                options |= {"updates": QUICK, "episodes": 2} if args.quick else {"updates": updates}
                words = [f"--{name}={value}" for name, value in options.items()]
                command = [sys.executable, "-m", "benchmarks.learning_offline", f"--data={args.data}", *words]
                if not files[-1].exists():
                    subprocess.run([*command, f"--out={files[-1]}"], check=True)
    if not args.quick:
        scores.main("learning_hopper", files)


if __name__ == "__main__":
    main()
