"""`docs/alignment.md` lists every algorithm there is, each with a test that exists."""

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from llm_align.feedback.reward_model import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "alignment.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \|.*\| `([\w/]+\.py)::(\w+)` \|$", PAGE, flags=re.MULTILINE)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"table_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def presets() -> set[str]:
    """Recipes of the online algorithms, without those of a dataset."""
    words = [f"override /algo: {word}\n" for word in script("align_online").ALGORITHMS]
    files = (ROOT / "configs" / "experiment").glob("*.yaml")
    chosen = {path.stem for path in files if any(word in path.read_text() for word in words)}
    return {name for name in chosen if not name.startswith("hh_")}


def test_every_algorithm_has_its_row():
    named = {"align_offline", "align_online"}
    words = set().union(*(script(name).ALGORITHMS for name in named), EXAMPLES, presets())
    rows = [name for name, _, _ in ROWS]
    assert sorted(rows) == sorted(words)


@pytest.mark.parametrize(("name", "file", "test"), ROWS)
def test_every_row_names_a_test(name: str, file: str, test: str):
    tree = ast.parse((ROOT / "tests" / "llm_align" / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_command_of_the_walk_composes():
    from rl_core import config

    commands = re.findall(r"^ {4,6}python scripts/(\w+)\.py ((?:.*\\\n)*.*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) >= 8
    for name, words in commands:
        module = script(name)
        groups = {"algo": getattr(module, "ALGORITHMS", {})}
        if name == "align_online":
            groups = {"algo": {word: algorithm.Config for word, algorithm in module.ALGORITHMS.items()}}
        arguments = words.replace("\\\n", " ").replace("'", "").split()
        config.parse(name, module.Config, groups if groups["algo"] else {}, arguments)
