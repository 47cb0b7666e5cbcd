"""What is said in an episode: a sentence for its task and target, in the chosen wording."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.desk import instructions
from envs.desk.choices import check_choice
from envs.desk.grammar import COLORS
from envs.desk.meaning import Meaning
from envs.desk.scene import DESK, SCENES, Scene
from envs.desk.tasks import ANY, TASKS, Task, find_tasks

_LONGEST = 200  # characters of an instruction, beside longer ones of a YAML


class Speaker:
    """Draws the instructions of episodes.

    `wording` is one of `instructions.WORDINGS`, `human` the path of a YAML of further sentences, "" for none.
    Raises ValueError as `instructions.load` does.
    """

    def __init__(
        self, tasks: Sequence[Task], scene: Scene, *, wording: str = "seen", human: str = ""
    ) -> None:
        check_choice("instructions", wording, instructions.WORDINGS)
        self._tasks, self._scene, self._wording = tuple(tasks), scene, wording
        self._human = instructions.load(human) if human else None

    def say(self, task: int, target: int, rng: np.random.Generator) -> str:
        """A sentence for the task of that number about the thing of that number."""
        row, name = self._tasks[task], self._scene.colors[target]
        named = rng.random() < 0.5 if row.named is None else row.named
        # "The block" is for cubes: what is none is always called by its name.
        named = row.color == ANY and (named or not self._scene.cubes)
        thing = f"{name}_block" if name in COLORS else name
        asked, about = (row.asked.format(thing=thing), "") if row.asked else (row.name, name if named else "")
        return instructions.say(
            asked, rng, self._wording, target=about, human=self._human, things=self._scene.colors
        )

    def space(self) -> spaces.Text:
        """Every instruction that may be said."""
        said = [text for texts in (self._human or {}).values() for text in texts]
        charset = set(string.printable).union(*said)
        return spaces.Text(_LONGEST + max(map(len, said), default=0), charset=frozenset(charset))


def environment(meaning: Meaning) -> dict[str, Any]:
    """Arguments of `DeskVectorEnv` for what an instruction means: `task`, `scene`, and `colors` for a target.

    Raises ValueError where the task cannot be done with that thing (a stack of bowls).
    """
    task = TASKS[meaning.task]
    about = meaning.color or (meaning.object if meaning.object != "block" else "")
    name = next(name for name, scene in SCENES.items() if about in ("", *scene.colors))
    find_tasks(task.name, SCENES[name])
    options: dict[str, Any] = {"task": task.name}
    if SCENES[name] is not DESK:
        options["scene"] = name
    return options | ({"colors": [about]} if about and task.color == ANY else {})
