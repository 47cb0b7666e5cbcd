"""The tasks of the desk, one table: success, reward, what they need and bring about, and how an expert acts.

Adding a task is one `Task` in `TASKS`; the environment, the expert, the chains and the contract tests find
it there. The 34 tasks of CALVIN (Mees et al. 2022, arXiv:2112.03227) have its names and thresholds. Functions
see all simulations of a family at once. Reward terms are unscaled numbers in [0, 1]; a task's scales sum to
1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from envs.desk import instructions, predicates, rules
from envs.desk.choices import at_least_one, check_choice
from envs.desk.grammar import COLORS, HELDOUT_COLORS, HELDOUT_OBJECTS, SEEN_COLORS
from envs.desk.scene import DESK, SCENES, Room, Scene
from envs.desk.situations import DRAWER, GRIPPER, STACKED, TABLE, Conditions, Situation, holds
from envs.desk.state import Bools, Floats, State, length, take

_GOAL_SHIFT = 0.12  # a place goal is at least this far from where the block starts
_GOAL_GAP = 0.10  # and from the other blocks

# Shaping per step against 1 for success. With gamma <= 0.99 a step spent collecting shaping (< 0.01) never
# pays for a success that comes one step later (>= 0.01), so ending the episode on success does not teach a
# policy to wait.
SHAPING = 0.01

GoalSampler = Callable[[np.random.Generator, Floats, int, Scene], Floats]
ANY, NONE = "any", "none"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """One row of the table."""

    name: str
    success: Callable[[State], Bools]
    terms: Callable[[State], dict[str, Floats]]  # unscaled, in [0, 1]
    scales: Mapping[str, float]
    rule: Callable[[rules.View], rules.Command]  # of the scripted expert
    color: str = ANY  # of the target: one colour, `ANY` (drawn per episode) or `NONE`
    amount: float = 0.0  # how much, and by its sign which way: metres, radians, or 1 for on
    needs: Conditions = field(default_factory=dict)  # what must hold when it begins
    effects: Conditions = field(default_factory=dict)  # what holds once it has succeeded
    room: Room | None = None  # where on the desk the target starts
    relative: bool = False  # whether success depends on the start, which observations then show
    sample_goal: GoalSampler | None = None  # (generator, block positions [K, 3], target, scene) -> xy
    asked: str = ""  # the grammar's task with these sentences, `{thing}` in it; empty for the task's own name
    named: bool | None = False  # whether sentences name a target that is `ANY`; None: they may
    cubes: bool = False  # only where every thing on the desk is a cube


def _sample_place_goal(rng: np.random.Generator, blocks: Floats, target: int, scene: Scene) -> Floats:
    """A free spot on the desk: away from the target's start and clear of the other blocks."""
    spots = rng.uniform(scene.start_low, scene.start_high, size=(256, 2))
    distance = length(spots[:, None] - blocks[None, :, :2])
    least = np.where(np.arange(len(blocks)) == target, _GOAL_SHIFT, _GOAL_GAP)
    free = (distance > least).all(axis=1)
    if not free.any():
        raise ValueError(
            f"scene.start_low={scene.start_low}, scene.start_high={scene.start_high}: no free spot for a "
            f"place goal beside {len(blocks)} blocks; enlarge the rectangle"
        )
    goal: Floats = spots[free.argmax()]
    return goal


_GRASP = {"reach": 0.3, "grasp": 0.3}
_BRING = {"reach": 0.2, "grasp": 0.2, "carry": 0.4, "release": 0.2}
_SLIDE = {"reach": 0.4, "slide": 0.6}
_PUSH_RIGHT = Room(low=(0.40, -0.15), high=(0.47, 0.13), lane=(1.0, 0.0))
_PUSH_LEFT = Room(low=(0.49, -0.15), high=(0.58, 0.13), lane=(-1.0, 0.0))
_PUSH_IN = Room(low=(0.41, -0.17), high=(0.52, -0.08), lane=(0.0, -1.0))


def _object_tasks(color: str) -> Iterator[Task]:
    """What can be done with one thing, named by its colour or, where it is no block, by what it is.

    Rotated by > 60 degrees, pushed by > 10 cm.
    """
    thing = f"{color}_block" if color in COLORS else color
    table = {"target": TABLE}
    for side, sign in (("right", -1), ("left", 1)):
        yield Task(
            name=f"rotate_{thing}_{side}", color=color, amount=sign * np.radians(60), relative=True,
            success=predicates.rotated, terms=predicates.rotate_terms, scales=_GRASP | {"turn": 0.4},
            rule=rules.rotate, needs=table, effects=table,
        )  # fmt: skip
    for side, sign, room in (("right", 1, _PUSH_RIGHT), ("left", -1, _PUSH_LEFT)):
        yield Task(
            name=f"push_{thing}_{side}", color=color, amount=sign * 0.10, relative=True, room=room,
            success=predicates.pushed, terms=predicates.push_terms, scales={"reach": 0.4, "push": 0.6},
            rule=rules.push, needs=table, effects=table,
        )  # fmt: skip
    # Lifted by > 5 cm, out of the cabinet by > 3 cm.
    for where, height, needs in (
        ("table", 0.05, table),
        ("slider", 0.03, {"target": "slider"}),
        ("drawer", 0.05, {"target": DRAWER, "drawer": "open"}),
    ):
        yield Task(
            name=f"lift_{thing}_{where}", color=color, amount=height, relative=True,
            success=predicates.raised, terms=predicates.raise_terms, scales=_GRASP | {"lift": 0.4},
            rule=rules.lift, needs=needs, effects={"target": GRIPPER},
        )  # fmt: skip


def _furniture_tasks() -> Iterator[Task]:
    """Drawer moved by > 12 cm, door by > 15 cm, lights switched."""
    for name, state, amount in (("open_drawer", "open", 0.12), ("close_drawer", "closed", -0.12)):
        yield Task(
            name=name, color=NONE, amount=amount, relative=True, success=predicates.drawer_moved,
            terms=predicates.drawer_terms, scales=_SLIDE, rule=rules.slide_drawer,
            needs={"drawer": "closed" if state == "open" else "open"}, effects={"drawer": state},
        )  # fmt: skip
    for side, other, amount in (("left", "right", 0.15), ("right", "left", -0.15)):
        yield Task(
            name=f"move_slider_{side}", color=NONE, amount=amount, relative=True,
            success=predicates.slider_moved, terms=predicates.slider_terms, scales=_SLIDE,
            rule=rules.slide_door, needs={"slider": other}, effects={"slider": side},
        )  # fmt: skip
    for state, other, on in (("on", "off", 1.0), ("off", "on", 0.0)):
        yield Task(
            name=f"turn_{state}_lightbulb", color=NONE, amount=on, relative=True,
            success=predicates.bulb_switched, terms=predicates.switch_terms, scales=_SLIDE,
            rule=rules.slide_switch, needs={"bulb": other}, effects={"bulb": state},
        )  # fmt: skip
        yield Task(
            name=f"turn_{state}_led", color=NONE, amount=on, relative=True, success=predicates.led_switched,
            terms=predicates.button_terms, scales={"reach": 0.5, "press": 0.5}, rule=rules.press_button,
            needs={"led": other}, effects={"led": state},
        )  # fmt: skip


def _arranging_tasks() -> Iterator[Task]:
    """About any block; `place` and `stack` begin with it in the gripper, as in CALVIN."""
    held = {"target": GRIPPER, "others": TABLE}
    yield Task(
        name="place_in_slider", success=predicates.placed_in_slider, terms=predicates.slider_place_terms,
        scales=_BRING, rule=rules.put_in_slider, needs={"target": GRIPPER}, effects={"target": "slider"},
        relative=True, named=None,
    )  # fmt: skip
    yield Task(
        name="place_in_drawer", success=predicates.placed_in_drawer, terms=predicates.drawer_place_terms,
        scales=_BRING, rule=rules.put_in_drawer, needs={"target": GRIPPER, "drawer": "open"},
        effects={"target": DRAWER}, relative=True, named=None,
    )  # fmt: skip
    yield Task(
        name="push_into_drawer", success=predicates.pushed_into_drawer, terms=predicates.push_in_terms,
        scales={"reach": 0.4, "push": 0.6}, rule=rules.push_into_drawer, room=_PUSH_IN, relative=True,
        needs={"target": TABLE, "drawer": "open", "others": TABLE}, effects={"target": DRAWER},
    )  # fmt: skip
    yield Task(
        name="stack_block", success=predicates.stacked_up, terms=predicates.stack_terms, scales=_BRING,
        rule=rules.stack, needs=held, effects={"target": STACKED}, relative=True, cubes=True,
    )  # fmt: skip
    yield Task(
        name="unstack_block", success=predicates.unstacked, terms=predicates.unstack_terms,
        scales=_GRASP | {"apart": 0.4}, rule=rules.unstack, relative=True, cubes=True,
        needs={"target": STACKED, "others": TABLE}, effects={"target": TABLE},
    )  # fmt: skip


def _basic_tasks() -> Iterator[Task]:
    """The two of this project: about a block of any colour among blocks on the desk."""
    needs = {"target": TABLE, "others": TABLE}
    yield Task(
        name="lift_block", success=predicates.lifted, terms=predicates.lift_terms,
        scales=_GRASP | {"lift": 0.4}, rule=rules.lift, needs=needs, effects={"target": GRIPPER},
        asked="lift_{thing}_table", named=True,
    )  # fmt: skip
    yield Task(
        name="place_block", success=predicates.placed, terms=predicates.place_terms, scales=_BRING,
        rule=rules.put_on_mark, needs=needs, effects={"target": TABLE}, sample_goal=_sample_place_goal,
        named=True,
    )  # fmt: skip


def _about(things: Sequence[str]) -> Iterator[Task]:
    return (task for thing in things for task in _object_tasks(thing))


_CALVIN = (*_about(SEEN_COLORS), *_furniture_tasks(), *_arranging_tasks())
CALVIN_TASKS = tuple(task.name for task in _CALVIN)
TASKS: dict[str, Task] = {
    task.name: task for task in (*_basic_tasks(), *_CALVIN, *_about(HELDOUT_COLORS), *_about(HELDOUT_OBJECTS))
}
# Names for several tasks at once: of CALVIN, and of each split of `envs.desk.instructions`.
GROUPS = {"calvin": CALVIN_TASKS} | {split: instructions.tasks(split) for split in instructions.SPLITS}


def tasks_of(scene: Scene) -> tuple[str, ...]:
    """Names of the tasks that a scene allows: what they are about is on the desk."""
    return tuple(name for name, task in TASKS.items() if _allows(scene, task))


def _allows(scene: Scene, task: Task) -> bool:
    return (task.color in (ANY, NONE) or task.color in scene.colors) and (scene.cubes or not task.cubes)


def find_tasks(task: str | Sequence[str], scene: Scene = DESK) -> tuple[Task, ...]:
    """Look up one task or several by name, or those of a group that the scene allows.

    Raises ValueError with the nearest names for an unknown one, and with the scenes that allow it for one
    that this scene does not.
    """
    if isinstance(task, str) and task in GROUPS:
        allowed = set(tasks_of(scene))
        # Where none is allowed, the first one's error says which scene it needs.
        names = tuple(name for name in GROUPS[task] if name in allowed) or GROUPS[task][:1]
    else:
        names = at_least_one("task", task)
    found = tuple(TASKS[check_choice("task", name, TASKS)] for name in names)
    for one in found:
        if not _allows(scene, one):
            others = [name for name, other in SCENES.items() if _allows(other, one)]
            raise ValueError(
                f"task={one.name!r}: cannot be done with {', '.join(scene.colors)}; it can in "
                f"scene={' or '.join(map(repr, others))}"
            )
    return found


def possible_tasks(
    tasks: Sequence[Task], colors: Sequence[str], situation: Situation
) -> list[tuple[int, int]]:
    """Which tasks (indices) can begin in a situation, each with the index of a block it can be about."""
    possible = []
    for number, task in enumerate(tasks):
        targets: Sequence[int] = range(len(colors))
        if task.color != ANY:
            targets = [0 if task.color == NONE else colors.index(task.color)]
        possible += [(number, target) for target in targets if holds(situation, task.needs, target)]
    return possible


def evaluate(
    tasks: Sequence[Task], task_of: NDArray[np.int64], state: State
) -> tuple[Floats, Bools, dict[str, Floats]]:
    """Reward `[N]`, success `[N]` and unscaled terms (name to `[N]`, 0 where a task lacks the term).

    `task_of` is `[N]`, indices into `tasks`. The reward is 1 on success, before it `SHAPING` times the
    scaled terms.
    """
    n = len(task_of)
    reward, success = np.zeros(n), np.zeros(n, np.bool_)
    terms = {name: np.zeros(n) for task in tasks for name in task.scales}
    for task, rows, part in _by_family(tasks, task_of, state):
        success[rows] = task.success(part)
        for name, value in task.terms(part).items():
            terms[name][rows] = value
            reward[rows] += SHAPING * task.scales[name] * value
    return np.where(success, 1.0, reward), success, terms


def succeeded(tasks: Sequence[Task], task_of: NDArray[np.int64], state: State) -> Bools:
    """Success alone, `[N]`, as in `evaluate`."""
    success = np.zeros(len(task_of), np.bool_)
    for task, rows, part in _by_family(tasks, task_of, state):
        success[rows] = task.success(part)
    return success


def _by_family(
    tasks: Sequence[Task], task_of: NDArray[np.int64], state: State
) -> Iterator[tuple[Task, NDArray[np.int64], State]]:
    groups = families(tuple(tasks))
    if len(groups) == 1:
        yield groups[0][0], np.arange(len(task_of)), state
        return
    # Sorted once, every family is a slice, which costs no copy.
    family = np.argmax([members for _, members in groups], axis=0)[task_of]
    order = np.argsort(family, kind="stable")
    state, ends = take(state, order), np.cumsum(np.bincount(family, minlength=len(groups)))
    for (task, _), start, end in zip(groups, [0, *ends], ends, strict=False):
        if start < end:
            yield task, order[start:end], take(state, slice(start, end))


@cache
def families(tasks: tuple[Task, ...]) -> list[tuple[Task, Bools]]:
    """One task of each family (same functions) and which of the tasks belong to it, `[number of tasks]`.

    Tasks of a family differ by target and amount alone, and are judged and acted on together.
    """
    keys = [(task.success, task.terms, task.rule) for task in tasks]
    first = [keys.index(key) for key in keys]
    return [(tasks[i], np.array(first) == i) for i in sorted(set(first))]
