"""Scripted experts: read the observation, follow each task's rule, add noise and mistakes where asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from envs.desk.control import ACTION_DIM, MAX_ROTATION, MAX_TRANSLATION
from envs.desk.observations import goal_layout, layout_size, observation_layout
from envs.desk.rules import View
from envs.desk.scene import DESK, Scene, find_scene
from envs.desk.state import Floats, take
from envs.desk.tasks import ANY, NONE, families, find_tasks

_MISTAKE_STEPS = (3, 8)  # shortest and longest mistake, in actions


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
        scene: str | Scene = DESK,
        noise: float = 0.0,
        mistakes: float = 0.0,
        seed: int = 0,
    ) -> None:
        if noise < 0.0:
            raise ValueError(f"noise={noise}: must be at least 0")
        if not 0.0 <= mistakes <= 1.0:
            raise ValueError(f"mistakes={mistakes}: must be between 0 and 1")
        scene = find_scene(scene)
        self.tasks = find_tasks(task, scene)
        self.noise = noise
        self.mistakes = mistakes
        self._sizes = np.array([2 * block.half_size for block in scene.blocks])
        self._heights = np.array([2 * block.half_height for block in scene.blocks])
        self._fields = observation_layout(scene)
        self._goal_fields = goal_layout(self.tasks, scene)
        self._families = families(self.tasks)
        self._amounts = np.array([task.amount for task in self.tasks])
        # -1 where the target's colour is drawn per episode and read from the goal
        fixed = {name: i for i, name in enumerate(scene.colors)} | {ANY: -1, NONE: 0}
        self._targets = np.array([fixed[task.color] for task in self.tasks])
        self._rng = np.random.default_rng(seed)
        self.reset(0)

    def reset(self, batch: int) -> None:
        """Start `batch` episodes afresh; needed only to forget a mistake in progress."""
        self._remaining = np.zeros(batch, np.int64)  # actions of the mistake that are still to come
        self._mistake = np.zeros((batch, ACTION_DIM))

    def act(self, obs: Mapping[str, NDArray[np.float32]], deterministic: bool = False) -> NDArray[np.float32]:
        """Return actions `[N, 7]`; `deterministic` leaves out noise and mistakes."""
        vector, goal = self._vectors(obs)
        task = self._task(goal)
        tilt = vector[:, self._fields["hand_tilt"]]
        view = self._view(vector, goal, task)
        action = np.empty((len(vector), ACTION_DIM))
        action[:, 3:5] = -tilt[:, :2] / MAX_ROTATION
        for family, members in self._families:
            rows = np.flatnonzero(members[task])
            if not len(rows):
                continue
            command = family.rule(take(view, rows))
            action[rows, :3] = command.move / MAX_TRANSLATION
            action[rows, 5] = command.turn / MAX_ROTATION
            action[rows, 6] = np.where(command.open, 1.0, -1.0)
        if not deterministic:
            action = self._disturb(action)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _vectors(self, obs: Mapping[str, NDArray[np.float32]]) -> tuple[Floats, Floats]:
        if "observation" not in obs:
            raise ValueError(f"observation: not among {sorted(obs)}, and experts read it; add state to obs=")
        vector, goal = np.asarray(obs["observation"], np.float64), np.asarray(obs["desired_goal"], np.float64)
        expected = (layout_size(self._fields), layout_size(self._goal_fields))
        if (vector.shape[1:], goal.shape[1:]) != ((expected[0],), (expected[1],)):
            raise ValueError(
                f"observation {vector.shape} and desired_goal {goal.shape}: this expert for "
                f"{[task.name for task in self.tasks]} reads [N, {expected[0]}] and [N, {expected[1]}]"
            )
        return vector, goal

    def _task(self, goal: Floats) -> NDArray[np.int64]:
        """Index of each row's task."""
        if "task" not in self._goal_fields:
            return np.zeros(len(goal), np.int64)
        return goal[:, self._goal_fields["task"]].argmax(axis=1)

    def _view(self, vector: Floats, goal: Floats, task: NDArray[np.int64]) -> View:
        n = len(vector)
        part = {name: vector[:, where] for name, where in self._fields.items()}
        asked = {name: goal[:, where] for name, where in self._goal_fields.items()}
        target = self._targets[task]
        if "color" in asked:
            target = np.where(target < 0, asked["color"].argmax(axis=1), target)
        to_goal = np.zeros((n, 2))
        if "goal" in asked:
            to_goal = asked["goal"] - part["hand_pos"][:, :2] - part["target"][:, :2]
        blocks = part["blocks"].reshape(n, -1, 3) + part["hand_pos"][:, None]
        return View(
            hand=part["hand_pos"],
            yaw=np.arctan2(part["hand_yaw"][:, 1], part["hand_yaw"][:, 0]),
            width=part["width"][:, 0],
            block=part["target"],
            turn=part["target_turn"][:, 0],
            turned=_turned(part["block_yaws"].reshape(n, -1, 2), target, asked.get("start")),
            to_goal=to_goal,
            size=self._sizes[target],
            height=self._heights[target],
            blocks=blocks,
            sizes=np.broadcast_to(self._sizes, blocks.shape[:2]),
            target=target,
            furniture=part["furniture"],
            lights=part["lights"] > 0.5,
            amount=self._amounts[task],
        )

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


def _turned(yaws: Floats, target: NDArray[np.int64], start: Floats | None) -> Floats:
    """Yaw `[N]` of the targets since the start of their tasks, in [-pi, pi]; `yaws` `[N, K, 2]`."""
    if start is None:
        return np.zeros(len(yaws))
    cosine, sine = yaws[np.arange(len(yaws)), target].T
    start_cosine, start_sine = start[:, 2], start[:, 3]
    return np.arctan2(sine * start_cosine - cosine * start_sine, cosine * start_cosine + sine * start_sine)
