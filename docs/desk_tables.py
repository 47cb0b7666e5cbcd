"""Write the tables of docs/desk.md anew, as the code has them: `python docs/desk_tables.py`."""

import inspect
import json
import re
from pathlib import Path

import numpy as np

from envs.desk import instructions
from envs.desk.parameters import table
from envs.desk.scene import DESK, SCENES, shared_model
from envs.desk.tasks import TASKS, tasks_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "desk.md"
EXPERTS = ROOT / "benchmarks" / "results" / "tables" / "desk_experts.json"


def rows(*lines: tuple[object, ...]) -> str:
    """Markdown table; the first line is its head."""
    text = [f"| {' | '.join(map(str, line))} |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(lines[0]), *text[1:]])


def experts() -> dict[tuple[str, str], dict[str, float]]:
    """What `benchmarks.bench_desk_experts` recorded, by scene and task."""
    content = json.loads(EXPERTS.read_text())
    return {(row["scene"], row["task"]): row for row in content["tasks"]}


def chains() -> str:
    """How far the experts got in chains of tasks."""
    content = json.loads(EXPERTS.read_text())["chains"]
    done = [f"{rate:.0%}" for rate in content["success"]]
    head = ("chains", *(f"at least {k}" for k in range(1, len(done) + 1)), "mean length")
    return rows(head, (content["number"], *done, f"{content['mean_length']:.2f}"))


def tasks() -> str:
    """Every task of the default scene: predicate, how many plain sentences ask for it, its expert."""
    human = instructions.load(instructions.CALVIN)
    known_experts, lines = experts(), []
    for name in tasks_of(DESK):
        task = TASKS[name]
        done = (inspect.getdoc(task.success) or "").split("\n")[0]
        size = abs(task.amount)
        done = done.replace("`amount` radians", f"{np.degrees(size):.0f} degrees")
        done = done.replace("`amount` metres", f"{100 * size:.0f} cm")
        known = len(instructions.paraphrases(task.asked.format(thing="red_block") or name))
        row = known_experts.get(("calvin", name))
        rate = f"{row['success']:.0%} [{row['low']:.0%}, {row['high']:.0%}]" if row else ""
        lines.append((f"`{name}`", done, known, len(human.get(name, ())), rate))
    return rows(("task", "done when", "sentences", "of people, beside them", "expert, of 100 seeds"), *lines)


def scenes() -> str:
    """Every scene: what is on the desk, how many tasks it allows, and the worst expert among them."""
    known_experts, lines = experts(), []
    for name, scene in SCENES.items():
        names = tasks_of(scene)
        rates = [known_experts[name, task]["success"] for task in names if (name, task) in known_experts]
        worst = f"{np.mean(rates):.1%}, worst {min(rates):.0%}" if len(rates) == len(names) else ""
        things = (block.name if block.shape != "block" else f"{block.name} block" for block in scene.blocks)
        lines.append((f"`{name}`", ", ".join(things), len(names), worst))
    return rows(("scene", "on the desk", "tasks", "experts, mean over tasks"), *lines)


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
    for write in (tasks, scenes, chains, splits, cameras, speed, parameters):
        name, content = write.__name__, write()
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, new=content: f"{m[1]}{new}\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
