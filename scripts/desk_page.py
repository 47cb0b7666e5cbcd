"""Write the tables of docs/desk.md anew, as the code has them: `python scripts/desk_page.py`."""

import inspect
import json
import re
from pathlib import Path

from envs.desk import instructions
from envs.desk.grammar import TASK_NAMES
from envs.desk.parameters import table
from envs.desk.scene import shared_model
from envs.desk.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "desk.md"


def rows(*lines: tuple[object, ...]) -> str:
    """Markdown table; the first line is its head."""
    text = [f"| {' | '.join(map(str, line))} |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(lines[0]), *text[1:]])


def tasks() -> str:
    """Every task with its predicate in words and how many plain sentences ask for it."""
    human = instructions.load(instructions.HUMAN_PATH) if instructions.HUMAN_PATH.exists() else {}
    lines = []
    for name, task in TASKS.items():
        done = (inspect.getdoc(task.success) or "").split("\n")[0]
        known = len(instructions.paraphrases(name)) if name in TASK_NAMES else len(task.instructions)
        lines.append((f"`{name}`", done, known, len(human.get(name, ()))))
    return rows(("task", "done when", "sentences", "of people, beside them"), *lines)


def splits() -> str:
    """Every split with the number of its tasks."""
    lines = [(f"`{name}`", what, len(instructions.tasks(name))) for name, what in instructions.SPLITS.items()]
    return rows(("split", "what it holds", "tasks"), *lines)


def parameters() -> str:
    """Every parameter with unit, nominal value and bounds."""
    lines = [
        (f"`{p.name}`", p.unit, f"{p.nominal:.4g}", f"{p.low:.4g} to {p.high:.4g}", p.doc)
        for p in table(shared_model()).values()
    ]
    return rows(("parameter", "unit", "nominal", "bounds", "what it is"), *lines)


def measured(name: str) -> list[dict]:
    """Rows of a recorded benchmark."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["rows"]


def cameras() -> str:
    """Images per second by size, beside those of `mujoco.Renderer`."""
    found: dict[str, dict[str, dict]] = {}
    for row in measured("cameras"):
        found.setdefault(row["what"].split()[3], {})[row["peer_name"]] = row
    lines = []
    for size, peers in found.items():
        shipped, fast = (peers.get(f"mujoco.Renderer {name}") for name in ("as shipped", "fast profile"))
        if shipped and fast:
            ours = f"{fast['settings']['our_images_per_second']} ({fast['ours']:.2g})"
            beside = [
                f"{1e3 / row['peer']:.3g} ({row['peer']:.3g}), {row['ratio']:.3g}x" for row in (shipped, fast)
            ]
            lines.append((size, ours, *beside))
    return rows(("pixels", "images per second", "as shipped, ratio", "fast profile, ratio"), *lines)


def speed() -> str:
    """Actions per second by number of simulations and threads."""
    lines = []
    for row in measured("desk"):
        if "envs" in row["settings"]:
            done = row["settings"]
            tasks = row["what"].split(", ")[1]
            rate = done["env_steps_per_second"]
            lines.append((done["envs"], done["threads"], tasks, rate, f"{row['ratio']:.2f}"))
    return rows(("simulations", "threads", "tasks", "actions per second", "share of bare physics"), *lines)


def main() -> None:
    """Replace what stands between the marks of each table."""
    text = PAGE.read_text()
    for write in (tasks, splits, cameras, speed, parameters):
        name, content = write.__name__, write()
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, new=content: f"{m[1]}{new}\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
