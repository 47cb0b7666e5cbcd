"""Scripted experts: each task as a rule from the observation to an action, for all simulations at once.

The rules are memoryless. What a phase machine would remember (grasped, carried, let go) is read from the
observation, so an expert recovers from any disturbance, needs no word about resets, and is a policy that
imitation can represent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from envs.desk.control import ACTION_DIM, MAX_ROTATION, MAX_TRANSLATION
from envs.desk.observations import goal_layout, layout_size, observation_layout
from envs.desk.scene import DESK, Scene
from envs.desk.tasks import find_tasks

Floats = NDArray[np.float64]

_HOVER = 0.09  # height of the grasp centre above the block while it is not yet lined up, metres
_CARRY = 0.10  # height of a carried block's centre above the desk
_FUNNEL = 4.0  # the hand may sink once the sideways error is below height / _FUNNEL
_MISTAKE_STEPS = (3, 8)  # shortest and longest mistake, in actions


@dataclass(kw_only=True, slots=True)
class View:
    """The parts of an observation that rules read, `N` rows; metres and radians."""

    hand_z: Floats  # [N] height of the grasp centre
    tilt: Floats  # [N, 3]
    width: Floats  # [N]
    block: Floats  # [N, 3] target relative to the hand
    turn: Floats  # [N] yaw to the target's nearest side
    to_goal: Floats  # [N, 2] from the target to its goal
    size: Floats  # [N] edge of the block

    def take(self, rows: NDArray[np.int64]) -> View:
        """The same for some rows."""
        return View(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def grasped(self) -> NDArray[np.bool_]:
        """Whether the fingers are closed on the target."""
        near: NDArray[np.bool_] = np.sqrt((self.block**2).sum(axis=1)) < 0.025
        return near & (self.width < self.size + 0.006)


@dataclass(kw_only=True, slots=True)
class Command:
    """A rule's wish: move [N, 3] in metres, turn [N] about the vertical in radians, gripper open [N]."""

    move: Floats
    turn: Floats
    open: NDArray[np.bool_]


def _grasp(view: View) -> Command:
    """Go above the block, line up, sink, close."""
    sideways = np.sqrt((view.block[:, :2] ** 2).sum(axis=1))
    above = _FUNNEL * np.maximum(sideways - 0.008, 0.0) + 0.3 * np.maximum(np.abs(view.turn) - 0.06, 0.0)
    move = view.block.copy()
    move[:, 2] += np.minimum(above, _HOVER)
    # A hand that is low and off to the side rises before it moves across, lest it knock the block away.
    low = np.clip((move[:, 2] - 0.02) / 0.04, 0.0, 1.0)
    move[:, :2] *= (1.0 - low)[:, None]
    there = (sideways < 0.012) & (np.abs(view.block[:, 2]) < 0.012)
    return Command(move=move, turn=view.turn, open=~there)


def lift(view: View) -> Command:
    """Grasp the block and raise it."""
    command, grasped = _grasp(view), view.grasped()
    command.move[grasped] = (0.0, 0.0, MAX_TRANSLATION)
    command.open &= ~grasped
    return command


def place(view: View) -> Command:
    """Grasp the block, carry it over the other blocks to the goal, set it down, let go, retreat."""
    command, grasped = _grasp(view), view.grasped()
    distance = np.sqrt((view.to_goal**2).sum(axis=1))
    height = view.hand_z + view.block[:, 2] - view.size / 2
    at_goal = (distance < 0.02) & (height < 0.008)
    above = np.clip(_FUNNEL * (distance - 0.012), 0.0, _CARRY)
    carry = np.column_stack([view.to_goal, above - height])
    carry[:, :2] *= np.clip(1.0 - (carry[:, 2] - 0.02) / 0.04, 0.0, 1.0)[:, None]
    carrying = grasped & ~at_goal
    command.move[carrying] = carry[carrying]
    command.open &= ~carrying
    leave = at_goal & (view.width > view.size + 0.006)
    command.move[at_goal] = 0.0
    command.move[leave, 2] = MAX_TRANSLATION
    command.turn = np.where(grasped | at_goal, 0.0, command.turn)
    command.open |= at_goal
    return command


RULES: dict[str, Callable[[View], Command]] = {"lift_block": lift, "place_block": place}


class Expert:
    """Acts on `DeskVectorEnv` or `DeskEnv` observations `{name: [N, d]}`; a policy of the project's protocol.

    `noise` is the standard deviation of Gaussian noise on the six motion components (actions span [-1, 1]);
    `mistakes` the chance per action to start a mistake: some steps of moving in a random direction with the
    gripper in a random state. Both make data of mixed quality, and recoveries. `task`, `scene` are those of
    the environment.
    """

    def __init__(
        self,
        task: str | Sequence[str] = "lift_block",
        *,
        scene: Scene = DESK,
        noise: float = 0.0,
        mistakes: float = 0.0,
        seed: int = 0,
    ) -> None:
        if noise < 0.0:
            raise ValueError(f"noise={noise}: must be at least 0")
        if not 0.0 <= mistakes <= 1.0:
            raise ValueError(f"mistakes={mistakes}: must be between 0 and 1")
        self.tasks = find_tasks(task)
        self.noise = noise
        self.mistakes = mistakes
        self._sizes = np.array([2 * block.half_size for block in scene.blocks])
        self._fields = observation_layout(scene)
        self._goal_fields = goal_layout(self.tasks, scene)
        self._rng = np.random.default_rng(seed)
        self.reset(0)

    def reset(self, batch: int) -> None:
        """Start `batch` episodes afresh; needed only to forget a mistake in progress."""
        self._remaining = np.zeros(batch, np.int64)  # actions of the mistake that are still to come
        self._mistake = np.zeros((batch, ACTION_DIM))

    def act(self, obs: Mapping[str, NDArray[np.float32]], deterministic: bool = False) -> NDArray[np.float32]:
        """Return actions `[N, 7]`; `deterministic` leaves out noise and mistakes."""
        view = self._view(obs)
        action = np.empty((len(view.hand_z), ACTION_DIM))
        for rows, rule in self._rows_of_rules(obs):
            part = view.take(rows)
            command = rule(part)
            action[rows, :3] = command.move / MAX_TRANSLATION
            action[rows, 3:5] = -part.tilt[:, :2] / MAX_ROTATION
            action[rows, 5] = command.turn / MAX_ROTATION
            action[rows, 6] = np.where(command.open, 1.0, -1.0)
        if not deterministic:
            action = self._disturb(action)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _view(self, obs: Mapping[str, NDArray[np.float32]]) -> View:
        vector, goal = np.asarray(obs["observation"], np.float64), np.asarray(obs["desired_goal"], np.float64)
        expected = (layout_size(self._fields), layout_size(self._goal_fields))
        if (vector.shape[1:], goal.shape[1:]) != ((expected[0],), (expected[1],)):
            raise ValueError(
                f"observation {vector.shape} and desired_goal {goal.shape}: this expert for "
                f"{[task.name for task in self.tasks]} reads [N, {expected[0]}] and [N, {expected[1]}]"
            )
        part = {name: vector[:, where] for name, where in self._fields.items()}
        to_goal = np.zeros((len(vector), 2))
        if "goal" in self._goal_fields:
            to_goal = goal[:, self._goal_fields["goal"]] - part["hand_pos"][:, :2] - part["target"][:, :2]
        return View(
            hand_z=part["hand_pos"][:, 2],
            tilt=part["hand_tilt"],
            width=part["width"][:, 0],
            block=part["target"],
            turn=part["target_turn"][:, 0],
            to_goal=to_goal,
            size=goal[:, self._goal_fields["color"]] @ self._sizes,
        )

    def _rows_of_rules(
        self, obs: Mapping[str, NDArray[np.float32]]
    ) -> list[tuple[NDArray[np.int64], Callable[[View], Command]]]:
        if len(self.tasks) == 1:
            return [(np.arange(len(obs["observation"])), RULES[self.tasks[0].name])]
        of_row = np.asarray(obs["desired_goal"])[:, self._goal_fields["task"]].argmax(axis=1)
        return [(np.flatnonzero(of_row == i), RULES[task.name]) for i, task in enumerate(self.tasks)]

    def _disturb(self, action: Floats) -> Floats:
        n = len(action)
        if len(self._remaining) != n:
            self.reset(n)
        if self.noise:
            action[:, :6] += self.noise * self._rng.standard_normal((n, 6))
        if self.mistakes:
            begins = (self._rng.random(n) < self.mistakes) & (self._remaining == 0)
            length = self._rng.integers(_MISTAKE_STEPS[0], _MISTAKE_STEPS[1] + 1, n)
            wrong = self._rng.uniform(-1.0, 1.0, (n, ACTION_DIM))
            self._remaining = np.where(begins, length, self._remaining)
            self._mistake = np.where(begins[:, None], wrong, self._mistake)
            active = self._remaining > 0
            action[active] = self._mistake[active]
            self._remaining -= active
        return action
