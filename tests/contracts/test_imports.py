"""Who may import whom: the two halves stand on `rl_core` and `envs` and never on each other."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"rl_core", "envs", "embodied_rl", "llm_align", "scripts", "tests", "benchmarks"}
MAY_IMPORT = {
    "rl_core": set(),
    "envs": set(),
    "embodied_rl": {"rl_core", "envs"},
    "llm_align": {"rl_core"},
}


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """Top-level packages that a file imports, anywhere in it, with the line."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0] if node.level == 0 else file.name, node.lineno


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_down(package: str):
    allowed = MAY_IMPORT[package] | {package}
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in sorted((ROOT / package).rglob("*.py"))
        for name, line in imported(file)
        if name in OURS - allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_environments_never_import_torch():
    wrong = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in sorted((ROOT / "envs").rglob("*.py"))
        for name, line in imported(file)
        if name == "torch"
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("package", "absent"),
    [("envs", ["torch"]), ("llm_align", ["mujoco", "gymnasium", "gymnasium_robotics", "minari"])],
)
def test_a_package_works_without_the_other_halfs_libraries(package: str, absent: list[str]):
    modules = [name for _, name, _ in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")]
    program = "\n".join(
        ["import sys, importlib"]
        + [f"sys.modules[{name!r}] = None" for name in absent]
        + [f"importlib.import_module({name!r})" for name in modules]
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_module_imports(package: str):
    for _, name, _ in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
        assert importlib.import_module(name).__doc__, f"{name} has no docstring: what is it for?"


def test_scripts_are_short():
    long = {
        path.name: lines
        for path in (ROOT / "scripts").glob("*.py")
        if (lines := len(path.read_text().splitlines())) > 60
    }
    assert not long
