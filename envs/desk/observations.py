"""What a policy sees as numbers, and where in the vectors each of them stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.desk.control import Hand
from envs.desk.furniture import JOINTS, LIGHTS
from envs.desk.scene import Scene
from envs.desk.state import State, quarter_turn
from envs.desk.tasks import ANY, NONE, Task

Layout = dict[str, slice]

# The hand's axes when it points straight down at the desk, as in the home pose.
_HAND_DOWN = np.diag([1.0, -1.0, -1.0])


def observation_layout(scene: Scene) -> Layout:
    """Fields of `observation` in order.

    joints [7] rad · hand_pos [3] m · hand_yaw [2] cosine and sine of the hand's heading · hand_tilt [3] sine
    times axis of the rotation from pointing down · hand_velocity [6] m/s, rad/s · width [1] m, opening of the
    gripper · blocks [K*3] m, centres relative to the hand · block_yaws [K*2] cosine and sine · target [3] m,
    the target's centre relative to the hand, repeated so that a network need not learn to select it ·
    target_turn [1] rad in [-pi/4, pi/4], from the hand's yaw to the nearest side of the target · furniture
    [4] m, positions of `furniture.JOINTS` · lights [2] 0 or 1, `furniture.LIGHTS`.
    """
    k = len(scene.blocks)
    sizes = {
        "joints": 7,
        "hand_pos": 3,
        "hand_yaw": 2,
        "hand_tilt": 3,
        "hand_velocity": 6,
        "width": 1,
        "blocks": 3 * k,
        "block_yaws": 2 * k,
        "target": 3,
        "target_turn": 1,
        "furniture": len(JOINTS),
        "lights": len(LIGHTS),
    }
    return _layout(sizes)


def goal_layout(tasks: Sequence[Task], scene: Scene) -> Layout:
    """Fields of `desired_goal` in order; which there are depends on the set of tasks.

    color [K] one-hot of the target, where it is not the same for all (zeros for tasks without a target) ·
    task [number of tasks] one-hot, where there are several · goal [2] x and y on the desk in metres, where
    any task has one (zeros for the others) · start [6] where any task's success is relative to its start:
    the target's x, y and the cosine and sine of its yaw, the drawer's and the sliding door's position.
    """
    sizes = {}
    if len({task.color for task in tasks}) > 1 or tasks[0].color == ANY:
        sizes["color"] = len(scene.blocks)
    if len(tasks) > 1:
        sizes["task"] = len(tasks)
    if any(task.sample_goal for task in tasks):
        sizes["goal"] = 2
    if any(task.relative for task in tasks):
        sizes["start"] = 6
    return _layout(sizes)


def _layout(sizes: Mapping[str, int]) -> Layout:
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def layout_size(layout: Layout) -> int:
    """Length of the vector that a layout describes."""
    return max(int(part.stop) for part in layout.values())


def observation_space(tasks: Sequence[Task], scene: Scene) -> spaces.Dict:
    """`Dict(observation=[D], desired_goal=[G])`, float32, unbounded but for the goal's one-hots."""
    goal = goal_layout(tasks, scene)
    low, high = np.zeros(layout_size(goal), np.float32), np.ones(layout_size(goal), np.float32)
    if "goal" in goal:
        low[goal["goal"]] = np.minimum(scene.start_low, 0.0)
        high[goal["goal"]] = np.maximum(scene.start_high, 0.0)
    if "start" in goal:
        low[goal["start"]], high[goal["start"]] = -np.inf, np.inf
    shape = (layout_size(observation_layout(scene)),)
    return spaces.Dict(
        {
            "observation": spaces.Box(-np.inf, np.inf, shape, np.float32),
            "desired_goal": spaces.Box(low, high, dtype=np.float32),
        }
    )


def write_observation(layout: Layout, hand: Hand, state: State) -> NDArray[np.float32]:
    """Observation vectors `[N, D]`."""
    n = len(hand.pos)
    heading_x, heading_y = block_headings(state.block_quat)
    yaw = hand_yaw(hand.rot)
    relative = state.block_pos - hand.pos[:, None]
    yaws = np.stack([np.cos(heading_x), np.sin(heading_x)], axis=2)
    values = {
        "joints": hand.joints,
        "hand_pos": hand.pos,
        "hand_yaw": np.column_stack([np.cos(yaw), np.sin(yaw)]),
        "hand_tilt": hand_tilt(hand.rot),
        "hand_velocity": hand.velocity,
        "width": hand.width[:, None],
        "blocks": relative.reshape(n, -1),
        "block_yaws": yaws.reshape(n, -1),
        "target": state.of_target(relative),
        "target_turn": quarter_turn(state.of_target(heading_y) - yaw)[:, None],
        "furniture": state.furniture,
        "lights": state.lights,
    }
    out = np.empty((n, layout_size(layout)), np.float32)
    for name, part in layout.items():
        out[:, part] = values[name]
    return out


def write_goal(
    layout: Layout, state: State, tasks: Sequence[Task], task: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Goal vectors `[N, G]`; `task` is the index of each simulation's task."""
    rows = np.arange(len(task))
    out = np.zeros((len(task), layout_size(layout)), np.float32)
    if "color" in layout:
        about = np.array([row.color != NONE for row in tasks], np.float32)
        out[rows, layout["color"].start + state.target] = about[task]
    if "task" in layout:
        out[rows, layout["task"].start + task] = 1.0
    if "goal" in layout:
        out[:, layout["goal"]] = state.goal
    if "start" in layout:
        heading = state.of_target(block_headings(state.start_quat)[0])
        pos = state.of_target(state.start_pos)[:, :2]
        start = [pos, np.cos(heading), np.sin(heading), state.start_furniture[:, :2]]
        out[:, layout["start"]] = np.column_stack(start)
    return out


def hand_tilt(rot: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sine times axis `[N, 3]`, world frame, of the rotation from the downward hand to `rot [N, 3, 3]`."""
    turned = rot @ _HAND_DOWN.T
    skew = turned - turned.transpose(0, 2, 1)
    return 0.5 * np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=1)


def hand_yaw(rot: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heading of the hand's x axis in the plane of the desk, radians `[N]`."""
    x, y = rot[:, 0, 0].copy(), rot[:, 1, 0].copy()
    return np.arctan2(y, x)


def block_headings(quats: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Heading of the blocks' x axes, and of whichever side lies most in the plane of the desk; radians, `[N,
    K]`.

    They agree modulo a quarter turn unless the block has been tipped onto another face.
    """
    w, x, y, z = (quats[..., i].copy() for i in range(4))
    x_axis = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z))
    y_axis = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z))
    heading = np.arctan2(x_axis[1], x_axis[0])
    x_is_flatter = x_axis[0] ** 2 + x_axis[1] ** 2 >= y_axis[0] ** 2 + y_axis[1] ** 2
    return heading, np.where(x_is_flatter, heading, np.arctan2(y_axis[1], y_axis[0]))
