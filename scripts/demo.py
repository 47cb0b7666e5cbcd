"""From nothing to a trained robot policy in a few minutes: record, train, evaluate, report.

It runs the two commands that it prints; a user's own experiment is the same with other values.
"""

import json
import shlex
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROMISED = 90.0  # per cent success


def run(*command: str) -> None:
    """Print and run one of the project's scripts; its failure ends the demo."""
    print(f"\n$ python {shlex.join(command)}\n", flush=True)
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT)


def main() -> int:
    """Return 0 if the trained policy succeeds as often as promised."""
    start = time.monotonic()
    out = Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"  # of the repository, wherever this is called
    dataset = ["data.id=desk/lift_block/mixed-v0", f"data.root={out / 'datasets'}"]
    run("scripts/collect_demos.py", *dataset, "episodes=1500", "noise=[0,0.15,0.3]", "mistakes=0.02")
    run("scripts/train_offline.py", "+experiment=demo", *dataset, f"run.dir={out / 'iql'}")
    overall = json.loads((ROOT / out / "iql" / "eval.json").read_text())["overall"]
    print(f"\n{overall['n_episodes']} new episodes: {overall['pc_success']:.0f} % success, ", end="")
    print(f"{(time.monotonic() - start) / 60:.1f} minutes in all")
    for name in ["report.html", *overall["video_paths"], "policy"]:
        print(ROOT / out / "iql" / name)
    if overall["pc_success"] < PROMISED:
        print(f"error: the policy should succeed in at least {PROMISED:.0f} % of the episodes")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
