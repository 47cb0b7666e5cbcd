"""The tasks of the desk, one table: instructions, goal, success, reward.

Adding a task is one `Task` in `TASKS`. Functions see all simulations of a task at once. Reward terms are
unscaled numbers in [0, 1]; a task's scales sum to 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from envs.desk.scene import GRIPPER_OPEN, Scene

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LIFT_HEIGHT = 0.05  # clearance under a lifted block, metres
PLACE_RADIUS = 0.04  # metres between block and goal, in the plane of the desk
_GOAL_SHIFT = 0.12  # a place goal is at least this far from where the block starts
_GOAL_GAP = 0.10  # and from the other blocks

# Shaping per step against 1 for success. With gamma <= 0.99 a step spent collecting shaping (< 0.01) never
# pays for a success that comes one step later (>= 0.01), so ending the episode on success does not teach a
# policy to wait.
SHAPING = 0.01


@dataclass(kw_only=True, slots=True)
class State:
    """What predicates and rewards may look at: `N` simulations, `K` blocks, all in the world frame."""

    hand_pos: Floats  # [N, 3] grasp centre
    width: Floats  # [N] opening between the fingers
    block_pos: Floats  # [N, K, 3]
    block_speed: Floats  # [N, K] metres per second
    block_size: Floats  # [N, K] edge length
    target: NDArray[np.int64]  # [N] index of the block that the task is about
    goal: Floats  # [N, 2] where it is to be put; zeros for tasks without a goal

    def take(self, rows: NDArray[np.int64]) -> State:
        """The same for some of the simulations."""
        return State(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def of_target(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The target's row of a per-block array `[N, K, ...]`."""
        return values[np.arange(len(self.target)), self.target]

    def clearance(self) -> Floats:
        """Height of the target's underside above the desk, `[N]`, for a block that lies flat."""
        return self.of_target(self.block_pos)[:, 2] - self.of_target(self.block_size) / 2

    def reach(self) -> Floats:
        """Distance `[N]` from the grasp centre to the target's centre."""
        return _length(self.hand_pos - self.of_target(self.block_pos))

    def held(self) -> Bools:
        """Whether the target is between the fingers and they are closed on it, `[N]`."""
        return (self.reach() < 0.025) & (self.width < self.of_target(self.block_size) + 0.006)


GoalSampler = Callable[[np.random.Generator, Floats, int, Scene], Floats]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One row of the table."""

    name: str
    instructions: tuple[str, ...]  # `{color}` is the target's
    success: Callable[[State], Bools]
    terms: Callable[[State], dict[str, Floats]]  # unscaled, in [0, 1]
    scales: Mapping[str, float]
    sample_goal: GoalSampler | None = None  # (generator, block positions [K, 3], target, scene) -> xy


def lifted(state: State) -> Bools:
    """The target is more than 5 cm above the desk, in the gripper."""
    return (state.clearance() > LIFT_HEIGHT) & state.held()


def placed(state: State) -> Bools:
    """The target rests on the desk within 4 cm of the goal, and the gripper has let go of it."""
    resting = (np.abs(state.clearance()) < 0.005) & (state.of_target(state.block_speed) < 0.05)
    return resting & (_goal_distance(state) < PLACE_RADIUS) & _released(state)


def _released(state: State) -> Bools:
    return (state.width > state.of_target(state.block_size) + 0.015) | (state.reach() > 0.06)


def _goal_distance(state: State) -> Floats:
    return _length(state.of_target(state.block_pos)[:, :2] - state.goal)


def _length(vectors: Floats) -> Floats:
    lengths: Floats = np.sqrt((vectors**2).sum(axis=-1))
    return lengths


def _grasp_terms(state: State) -> dict[str, Floats]:
    """Reach the block's centre, then close on it.

    Nearness alone is best satisfied by hovering with closed fingers; so closing counts only around the block,
    and counts gradually from the open hand to the block's width.
    """
    reach = state.reach()
    size = state.of_target(state.block_size)
    closed = np.clip((2 * GRIPPER_OPEN - state.width) / (2 * GRIPPER_OPEN - size), 0.0, 1.0)
    around = np.clip((0.04 - reach) / 0.025, 0.0, 1.0)
    return {"reach": 1.0 - np.tanh(6.0 * reach), "grasp": around * closed}


def _lift_terms(state: State) -> dict[str, Floats]:
    lift = np.clip(state.clearance() / LIFT_HEIGHT, 0.0, 1.0) * state.held()
    return _grasp_terms(state) | {"lift": lift}


def _place_terms(state: State) -> dict[str, Floats]:
    """Grasp, carry, set down, let go; at the goal the earlier stages count as done."""
    distance = _goal_distance(state)
    at_goal = (distance < PLACE_RADIUS) & (state.clearance() < 0.02)
    stages = {name: np.where(at_goal, 1.0, value) for name, value in _grasp_terms(state).items()}
    carry = (1.0 - np.tanh(6.0 * distance)) * (state.held() | at_goal)
    return stages | {"carry": carry, "release": (at_goal & _released(state)).astype(float)}


def _sample_place_goal(rng: np.random.Generator, blocks: Floats, target: int, scene: Scene) -> Floats:
    """A free spot on the desk: away from the target's start and clear of the other blocks."""
    spots = rng.uniform(scene.start_low, scene.start_high, size=(256, 2))
    distance = _length(spots[:, None] - blocks[None, :, :2])
    least = np.where(np.arange(len(blocks)) == target, _GOAL_SHIFT, _GOAL_GAP)
    free = (distance > least).all(axis=1)
    if not free.any():
        raise ValueError(
            f"scene.start_low={scene.start_low}, scene.start_high={scene.start_high}: no free spot for a "
            f"place goal beside {len(blocks)} blocks; enlarge the rectangle"
        )
    goal: Floats = spots[free.argmax()]
    return goal


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="lift_block",
            instructions=(
                "lift the {color} block",
                "pick up the {color} block",
                "grasp and lift the {color} block",
            ),
            success=lifted,
            terms=_lift_terms,
            scales={"reach": 0.3, "grasp": 0.3, "lift": 0.4},
        ),
        Task(
            name="place_block",
            instructions=(
                "put the {color} block on the mark",
                "move the {color} block to the mark",
                "pick up the {color} block and place it on the mark",
            ),
            success=placed,
            terms=_place_terms,
            scales={"reach": 0.2, "grasp": 0.2, "carry": 0.4, "release": 0.2},
            sample_goal=_sample_place_goal,
        ),
    )
}


def find_tasks(task: str | Sequence[str]) -> tuple[Task, ...]:
    """Look up one task or several by name; ValueError with the nearest names where there is none."""
    names = (task,) if isinstance(task, str) else tuple(task)
    return tuple(TASKS[check_choice("task", name, TASKS)] for name in at_least_one("task", names))


def at_least_one(field: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, or a ValueError where there is none or one stands twice."""
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{field}={names}: expected at least one name, each once")
    return names


def check_choice(field: str, value: str, accepted: Sequence[str] | Mapping[str, object]) -> str:
    """Return `value` if it is accepted, else raise a ValueError that names the nearest accepted ones."""
    if value in accepted:
        return value
    near = difflib.get_close_matches(str(value), list(accepted), n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"{field}={value!r}: expected one of {list(accepted)}{hint}")


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
    for index, task in enumerate(tasks):
        rows = np.flatnonzero(task_of == index)
        if not len(rows):
            continue
        part = state if len(tasks) == 1 else state.take(rows)
        success[rows] = task.success(part)
        for name, value in task.terms(part).items():
            terms[name][rows] = value
            reward[rows] += SHAPING * task.scales[name] * value
    return np.where(success, 1.0, reward), success, terms
