"""Peak memory of one call, in a process of its own.

What is counted is the highest resident size during the call less the resident size just before it, when
model, data and trainer stand. `ru_maxrss` would not do: a child inherits its parent's through exec.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


class Peak:
    """Between `start` and `stop`; `mebibytes` is what the process grew by at most."""

    def __init__(self) -> None:
        self._before = 0
        self.mebibytes = 0.0

    def start(self) -> None:
        """Forget what was; the highest resident size is now the present one."""
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _highest()

    def stop(self) -> None:
        """Take the highest resident size since `start`."""
        self.mebibytes = (_highest() - self._before) / 1024


def peak(call: Callable[[], object]) -> float:
    """MiB that `call` adds to the process at most."""
    found = Peak()
    found.start()
    call()
    found.stop()
    return found.mebibytes


def in_its_own_process(module: str, *arguments: object) -> float:
    """The number that `python -m module arguments...` prints last."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def _highest() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
