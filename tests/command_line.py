"""The scripts as modules: what tests of the command line call and compose without a new process."""

import importlib.util
import sys
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
