"""Run benchmarks, all or `python scripts/bench.py name ...`, and draw `benchmarks/RESULTS.md`."""

import argparse
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = sorted(path.stem.removeprefix("bench_") for path in BENCHMARKS.glob("bench_*.py"))
NAMES.remove("gpu")  # `make bench-gpu`, where there is a CUDA device


def main() -> int:
    """Run each benchmark in a process of its own; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="name", help=", ".join(NAMES))
    failed = []
    for name in parser.parse_args().names or NAMES:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.bench_{name}"]
        if subprocess.run(command, check=False, cwd=BENCHMARKS.parent).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else f"written: {BENCHMARKS / 'RESULTS.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
