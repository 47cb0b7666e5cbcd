"""Write the tables of docs/desk.md anew, as the code has them: `python scripts/desk_page.py`."""

import inspect
import re
from pathlib import Path

from envs.desk import instructions
from envs.desk.grammar import TASK_NAMES
from envs.desk.parameters import table
from envs.desk.scene import shared_model
from envs.desk.tasks import TASKS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "desk.md"


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


def main() -> None:
    """Replace what stands between the marks of each table."""
    text = PAGE.read_text()
    for name, content in (("tasks", tasks()), ("splits", splits()), ("parameters", parameters())):
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, new=content: f"{m[1]}{new}\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
