"""Where a result comes from: the command, the code's revision, the versions of what it ran on."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "numpy", "mujoco", "gymnasium", "gymnasium-robotics", "minari", "transformers")


def collect(argv: Sequence[str]) -> dict[str, Any]:
    """Return command, start time, git revision and package versions as JSON values."""
    return {
        "command": shlex.join(["python", *argv]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _revision() -> str | None:
    """The commit of the source tree, with a `+` when it was changed; None for an installed package."""
    root = str(Path(__file__).resolve().parents[1])
    try:
        command = ["git", "-C", root, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
