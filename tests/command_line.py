"""The scripts as modules: what tests of the command line call and compose without a new process."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

from rl_core import config

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    """`scripts/<name>.py`, which is no package's module."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def groups(module: ModuleType) -> dict[str, dict[str, type]]:
    """The choices of `algo`, as the script gives them to Hydra."""
    found = getattr(module, "ALGORITHMS", {})
    named = {name: getattr(algorithm, "Config", algorithm) for name, algorithm in found.items()}
    return {"algo": named} if named else {}


def call(name: str, *arguments: str) -> None:
    """Run a script in this process, which spares its imports."""
    module = load(name)
    config.main(name, module.Config, groups(module), module.main, arguments)


def interrupt(name: str, folder: Path, number: signal.Signals, *arguments: str) -> None:
    """Run a script in a process of its own and stop it after the first row of metrics in its `folder`.

    It must say how to go on, and exit with that signal's status.
    """
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not (folder / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number, error
    assert "run.resume=true" in error
