"""`docs/alignment.md` lists every algorithm there is, each with a test that exists."""

import ast
import re

import pytest

from llm_align.feedback.reward_model import EXAMPLES
from rl_core import config
from tests.command_line import ROOT, groups, load

PAGE = (ROOT / "docs" / "alignment.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \|.*\| `([\w/]+\.py)::(\w+)` \|$", PAGE, flags=re.MULTILINE)


def presets() -> set[str]:
    """Recipes of the online algorithms, without those of a dataset."""
    module, found = load("align_online"), set()
    for path in (ROOT / "configs" / "experiment").glob("*.yaml"):
        if "override /algo: " in path.read_text() and not path.stem.startswith("hh_"):
            try:
                config.parse("align_online", module.Config, groups(module), [f"+experiment={path.stem}"])
                found.add(path.stem)
            except ValueError:
                continue  # another script's recipe
    return found


def test_every_algorithm_has_its_row():
    named = {"align_offline", "align_online"}
    words = set().union(*(load(name).ALGORITHMS for name in named), EXAMPLES, presets())
    rows = [name for name, _, _ in ROWS]
    assert sorted(rows) == sorted(words)


@pytest.mark.parametrize(("name", "file", "test"), ROWS)
def test_every_row_names_a_test(name: str, file: str, test: str):
    tree = ast.parse((ROOT / "tests" / "llm_align" / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_command_of_the_walk_composes(monkeypatch: pytest.MonkeyPatch):
    pattern = r"^ {4,6}(?:python|torchrun --nproc_per_node=(\d)) scripts/(\w+)\.py ((?:.*\\\n)*.*)$"
    commands = re.findall(pattern, PAGE, flags=re.MULTILINE)
    assert len(commands) >= 10
    for count, name, words in commands:
        monkeypatch.setenv("WORLD_SIZE", count or "1")
        module = load(name)
        arguments = words.replace("\\\n", " ").replace("'", "").split()
        config.parse(name, module.Config, groups(module), arguments)
