"""When a task is done, and how far it is: one pair of functions per family of tasks.

Success follows CALVIN (Mees et al. 2022, arXiv:2112.03227; its predicates compare the scene with that at the
start of the task). Departure: contacts are read from geometry, which costs nothing, instead of from the
solver. Reward terms are unscaled numbers in [0, 1].
"""

from __future__ import annotations

import numpy as np

from envs.desk import furniture as place
from envs.desk.scene import GRIPPER_OPEN
from envs.desk.state import Bools, Floats, State, apart, in_cabinet, in_drawer, length, on_desk, stacked

Terms = dict[str, Floats]

LIFT_HEIGHT = 0.05  # clearance under a lifted block, metres
PLACE_RADIUS = 0.04  # metres between block and goal, in the plane of the desk
_DRAWER, _SLIDER = 0, 1  # columns of `State.furniture`
_LED, _BULB = 0, 1  # columns of `State.lights`
_STILL = 0.2  # metres per second below which a block counts as set down
_SAME_HEIGHT = 0.01  # metres a block may rise or sink and still rest on what it rested on


def _near(distance: Floats) -> Floats:
    return 1.0 - np.tanh(6.0 * distance)


def grasp_terms(state: State) -> Terms:
    """Reach the block's centre, then close on it.

    Nearness alone is best satisfied by hovering with closed fingers; so closing counts only around the block,
    and counts gradually from the open hand to the block's width.
    """
    reach = state.reach()
    size = state.of_target(state.block_size)
    closed = np.clip((2 * GRIPPER_OPEN - state.width) / (2 * GRIPPER_OPEN - size), 0.0, 1.0)
    around = np.clip((0.04 - reach) / 0.025, 0.0, 1.0)
    return {"reach": _near(reach), "grasp": around * closed}


def lifted(state: State) -> Bools:
    """The target is more than 5 cm above the desk, in the gripper."""
    return (state.clearance() > LIFT_HEIGHT) & state.held()


def lift_terms(state: State) -> Terms:
    """Reach, grasp, raise."""
    lift = np.clip(state.clearance() / LIFT_HEIGHT, 0.0, 1.0) * state.held()
    return grasp_terms(state) | {"lift": lift}


def raised(state: State) -> Bools:
    """The target is in the gripper, more than `amount` metres above where it started."""
    return (state.moved()[:, 2] > state.amount) & state.held()


def raise_terms(state: State) -> Terms:
    """Reach, grasp, raise from wherever it lay."""
    lift = np.clip(state.moved()[:, 2] / state.amount, 0.0, 1.0) * state.held()
    return grasp_terms(state) | {"lift": lift}


def placed(state: State) -> Bools:
    """The target rests on the desk within 4 cm of the goal, and the gripper has let go of it."""
    resting = (np.abs(state.clearance()) < 0.005) & (state.of_target(state.block_speed) < 0.05)
    return resting & (_goal_distance(state) < PLACE_RADIUS) & state.released()


def place_terms(state: State) -> Terms:
    """Grasp, carry, set down, let go; at the goal the earlier stages count as done."""
    distance = _goal_distance(state)
    return _bring_terms(state, distance, (distance < PLACE_RADIUS) & (state.clearance() < 0.02))


def _goal_distance(state: State) -> Floats:
    return length(state.of_target(state.block_pos)[:, :2] - state.goal)


def _bring_terms(state: State, distance: Floats, there: Bools) -> Terms:
    stages = {name: np.where(there, 1.0, value) for name, value in grasp_terms(state).items()}
    carry = _near(distance) * (state.held() | there)
    return stages | {"carry": carry, "release": (there & state.released()).astype(float)}


def rotated(state: State) -> Bools:
    """Turned by more than `amount` radians (left is positive), tilted < 30 degrees, moved < 10 cm, flat."""
    angle, upright = state.turned()
    moved = state.moved()
    flat = (upright > np.cos(np.pi / 6)) & (np.abs(moved[:, 2]) < _SAME_HEIGHT) & (length(moved) < 0.10)
    return flat & (angle * np.sign(state.amount) > np.abs(state.amount))


def rotate_terms(state: State) -> Terms:
    """Reach, grasp, turn."""
    return grasp_terms(state) | {"turn": np.clip(state.turned()[0] / state.amount, 0.0, 1.0)}


def pushed(state: State) -> Bools:
    """The target has moved by more than `amount` metres along x (right is positive) on the same support."""
    moved = state.moved()
    on_support = np.abs(moved[:, 2]) < _SAME_HEIGHT
    return on_support & (moved[:, 0] * np.sign(state.amount) > np.abs(state.amount))


def push_terms(state: State) -> Terms:
    """Reach, push."""
    return {"reach": _near(state.reach()), "push": np.clip(state.moved()[:, 0] / state.amount, 0.0, 1.0)}


def placed_in_drawer(state: State) -> Bools:
    """The target lies in the drawer and the gripper has let go of it."""
    return _target_in_drawer(state) & state.released() & (state.of_target(state.block_speed) < _STILL)


def _target_in_drawer(state: State) -> Bools:
    return state.of_target(in_drawer(state.block_pos, state.furniture))


def drawer_place_terms(state: State) -> Terms:
    """Grasp, carry to the drawer, let go."""
    middle = np.column_stack(
        [np.full(len(state.width), place.DRAWER_X), place.DRAWER_Y - state.furniture[:, _DRAWER]]
    )
    distance = length(state.of_target(state.block_pos)[:, :2] - middle)
    return _bring_terms(state, distance, _target_in_drawer(state))


def placed_in_slider(state: State) -> Bools:
    """The target lies in the cabinet and the gripper has let go of it."""
    inside = state.of_target(in_cabinet(state.block_pos))
    return inside & state.released() & (state.of_target(state.block_speed) < _STILL)


def slider_place_terms(state: State) -> Terms:
    """Grasp, carry to the uncovered half of the cabinet, let go."""
    covered = state.furniture[:, _SLIDER] > place.SLIDER_RANGE / 2
    x = np.where(covered, place.CABINET_X[1], place.CABINET_X[0])
    middle = np.column_stack([x, np.full(len(x), place.CABINET_Y)])
    block = state.of_target(state.block_pos)
    return _bring_terms(state, length(block[:, :2] - middle), in_cabinet(block))


def pushed_into_drawer(state: State) -> Bools:
    """A block that lay on the desk at the start is in the drawer, and not in the gripper."""
    entered = in_drawer(state.block_pos, state.furniture) & on_desk(state.start_pos, state.block_height)
    free = length(state.block_pos - state.hand_pos[:, None]) > 0.045
    done: Bools = np.any((entered & free), axis=1)
    return done


def push_in_terms(state: State) -> Terms:
    """Reach, push towards the drawer and over the edge."""
    start = state.of_target(state.start_pos)[:, 1] - place.DESK_EDGE
    way = np.clip(-state.moved()[:, 1] / np.maximum(start, 0.01), 0.0, 1.0)
    return {"reach": _near(state.reach()), "push": np.where(_target_in_drawer(state), 1.0, way)}


def stacked_up(state: State) -> Bools:
    """A block that stood on none at the start stands on another one, nearly still and out of the gripper."""
    new = stacked(state.block_pos, state.block_size) & ~stacked(state.start_pos, state.block_size)
    free = (state.width[:, None] > state.block_size + 0.015) | (
        length(state.block_pos - state.hand_pos[:, None]) > 0.06
    )
    done: Bools = np.any((new & free & (state.block_speed < _STILL)), axis=1)
    return done


def stack_terms(state: State) -> Terms:
    """Grasp, carry over the nearest other block on the desk, let go."""
    others = state.block_pos - state.of_target(state.block_pos)[:, None]
    distance = length(others[..., :2])
    distance[~on_desk(state.block_pos, state.block_height)] = np.inf
    distance[np.arange(len(distance)), state.target] = np.inf
    there = state.of_target(stacked(state.block_pos, state.block_size))
    return _bring_terms(state, distance.min(axis=1, initial=10.0), there)


def unstacked(state: State) -> Bools:
    """A block that stood on another one at the start is above none any more (CALVIN: touches none)."""
    free = stacked(state.start_pos, state.block_size) & apart(state.block_pos, state.block_size)
    done: Bools = np.any(free, axis=1)
    return done


def unstack_terms(state: State) -> Terms:
    """Reach, grasp, take away."""
    return grasp_terms(state) | {"apart": np.clip(length(state.moved()[:, :2]) / 0.06, 0.0, 1.0)}


def _slid(state: State, joint: int) -> Bools:
    moved = state.furniture[:, joint] - state.start_furniture[:, joint]
    return moved * np.sign(state.amount) > np.abs(state.amount)


def _slide_terms(state: State, joint: int, handle: Floats) -> Terms:
    moved = state.furniture[:, joint] - state.start_furniture[:, joint]
    return {"reach": _near(length(handle - state.hand_pos)), "slide": np.clip(moved / state.amount, 0.0, 1.0)}


def drawer_moved(state: State) -> Bools:
    """The drawer has moved by more than `amount` metres since the start; opening is positive."""
    return _slid(state, _DRAWER)


def drawer_terms(state: State) -> Terms:
    """Reach the handle, slide."""
    handle = np.asarray(place.DRAWER_HANDLE) - state.furniture[:, [_DRAWER]] * [0.0, 1.0, 0.0]
    return _slide_terms(state, _DRAWER, handle)


def slider_moved(state: State) -> Bools:
    """The sliding door has moved by more than `amount` metres since the start; left is positive."""
    return _slid(state, _SLIDER)


def slider_terms(state: State) -> Terms:
    """Reach the handle, slide."""
    handle = np.asarray(place.SLIDER_HANDLE) - state.furniture[:, [_SLIDER]] * [1.0, 0.0, 0.0]
    return _slide_terms(state, _SLIDER, handle)


def led_switched(state: State) -> Bools:
    """The LED is on where `amount` is 1, off where it is 0, and was not so at the start."""
    return _switched(state, _LED)


def bulb_switched(state: State) -> Bools:
    """The bulb is on where `amount` is 1, off where it is 0, and was not so at the start."""
    return _switched(state, _BULB)


def _switched(state: State, light: int) -> Bools:
    wanted = state.amount > 0.5
    return (state.lights[:, light] == wanted) & (state.start_lights[:, light] != wanted)


def button_terms(state: State) -> Terms:
    """Reach the button, press it."""
    pressed = np.clip(state.furniture[:, 2] / place.BUTTON_PRESSED, 0.0, 1.0)
    return {"reach": _near(length(np.asarray(place.BUTTON) - state.hand_pos)), "press": pressed}


def switch_terms(state: State) -> Terms:
    """Reach the switch, slide it to the wanted side."""
    knob = np.asarray(place.SWITCH) + state.furniture[:, [3]] * [0.0, 1.0, 0.0]
    side = np.where(state.amount > 0.5, 1.0, -1.0)
    slide = np.clip(0.5 + 0.5 * side * state.furniture[:, 3] / place.SWITCH_RANGE, 0.0, 1.0)
    return {"reach": _near(length(knob - state.hand_pos)), "slide": slide}
