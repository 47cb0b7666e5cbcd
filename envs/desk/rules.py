"""Rules that solve the tasks: from what is observed to a wish for the hand, for many simulations at once.

The rules are memoryless. What a phase machine would remember (grasped, carried, let go) is read from the
observation, so an expert recovers from any disturbance, needs no word about resets, and is a policy that
imitation can represent. Everything is gripped by one movement: go above, line up, sink, close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.desk import furniture as place
from envs.desk.control import MAX_ROTATION, MAX_TRANSLATION
from envs.desk.state import in_drawer, length, on_desk, quarter_turn, stacked, take

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_HOVER = 0.09  # height of the grasp centre above the thing while it is not yet lined up, metres
_TRAVEL = 0.115  # least height of the grasp centre above the desk while it crosses it
_TRAVEL_CABINET = 0.17  # and while it crosses the cabinet
_CABINET_FRONT = place.CABINET_Y - place.CABINET_HALF[1] - 0.04  # y from which the fingers are over it
_CARRY = 0.10  # height of a carried block's underside above what it will stand on
_FUNNEL = 4.0  # the hand may sink once the sideways error is below height / _FUNNEL
_FREE_SPOTS = np.array([[x, y] for x in (0.40, 0.48, 0.56) for y in (-0.14, 0.0, 0.12)])
_BEHIND = 0.065  # metres from a block's centre to where the hand comes down to push it
_X, _Y = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])


@dataclass(kw_only=True, slots=True)
class View:
    """The parts of an observation that rules read, `N` rows; metres and radians."""

    hand: Floats  # [N, 3] grasp centre
    yaw: Floats  # [N] heading of the hand
    width: Floats  # [N]
    block: Floats  # [N, 3] target relative to the hand
    turn: Floats  # [N] yaw to the target's nearest side
    turned: Floats  # [N] the target's yaw since the start of the task; 0 where the observation lacks it
    to_goal: Floats  # [N, 2] from the target to its goal
    size: Floats  # [N] width of the target
    height: Floats  # [N] of the target
    blocks: Floats  # [N, K, 3] all blocks, world frame
    sizes: Floats  # [N, K]
    target: NDArray[np.int64]  # [N]
    furniture: Floats  # [N, 4] positions of `furniture.JOINTS`
    lights: Bools  # [N, 2]
    amount: Floats  # [N] `Task.amount`

    def grasped(self) -> Bools:
        """Whether the fingers are closed on the target."""
        return (length(self.block) < 0.025) & (self.width < self.size + 0.006)

    def others(self) -> Floats:
        """World positions `[N, K, 3]` of the blocks, with the target moved far away."""
        others = self.blocks.copy()
        others[np.arange(len(others)), self.target] = 9.0
        return others


@dataclass(kw_only=True, slots=True)
class Command:
    """A rule's wish: move [N, 3] in metres, turn [N] about the vertical in radians, gripper open [N]."""

    move: Floats
    turn: Floats
    open: Bools


def _approach(view: View, to: Floats, turn: Floats, open_gripper: bool = True) -> Command:
    """Go above the point `to` `[N, 3]` (relative to the hand), line up and turn, sink to it."""
    sideways = length(to[:, :2])
    above = _FUNNEL * np.maximum(sideways - 0.008, 0.0) + 0.3 * np.maximum(np.abs(turn) - 0.06, 0.0)
    # Over the cabinet the fingers must pass above the handle of its door.
    over_cabinet = np.maximum(view.hand[:, 1], view.hand[:, 1] + to[:, 1]) > _CABINET_FRONT
    travel = np.where(over_cabinet, _TRAVEL_CABINET, _TRAVEL)
    hover = np.maximum(_HOVER, travel - (view.hand[:, 2] + to[:, 2]))
    move = to.copy()
    move[:, 2] += np.minimum(above, hover)
    # A hand that is low and off to the side rises before it moves across, lest it knock things away.
    high = np.clip(1.0 - (move[:, 2] - 0.02) / 0.04, 0.0, 1.0)
    move[:, :2] *= high[:, None]
    return Command(move=move, turn=turn * high, open=np.full(len(to), open_gripper))


def _grip(view: View, to: Floats, turn: Floats) -> Command:
    """Approach with open fingers and close them at the point."""
    command = _approach(view, to, turn)
    command.open = ~((length(to[:, :2]) < 0.012) & (np.abs(to[:, 2]) < 0.012))
    return command


def _leave(command: Command, rows: Bools) -> None:
    """Open the gripper and rise."""
    command.move[rows] = (0.0, 0.0, MAX_TRANSLATION)
    command.turn = np.where(rows, 0.0, command.turn)
    command.open |= rows


def _turn_to(view: View, yaw: float, bias: float = 0.0) -> Floats:
    """Shortest turn to a heading of the fingers, which look the same after half a turn.

    `bias` moves the turn that is too far from a quarter either way: without one, a hand that needs exactly
    a quarter would dither between both.
    """
    return (yaw - view.yaw + bias + np.pi / 2) % np.pi - np.pi / 2 - bias


def _across(view: View) -> Floats:
    """Turn so that the fingers open along x, as in the drawer, whose depth leaves no room for them."""
    return _turn_to(view, np.pi / 2, bias=-0.4)


def _grasp_turn(view: View) -> Floats:
    """Turn to grasp the target: to its nearest side, but in drawer and cabinet to the one that fits."""
    inside = view.hand + view.block
    fits = np.where(inside[:, 2] < 0.0, _across(view), _turn_to(view, 0.0))
    confined = (inside[:, 2] < 0.0) | (inside[:, 1] > place.CABINET_Y - place.CABINET_HALF[1])
    return np.where(confined, fits + quarter_turn(view.turn - fits), view.turn)


def _grasp(view: View) -> Command:
    """Grasp the target, by its upper part where it lies between walls."""
    to = view.block.copy()
    height = view.hand[:, 2] + to[:, 2]
    confined = (height < 0.0) | (view.hand[:, 1] + to[:, 1] > place.CABINET_Y - place.CABINET_HALF[1])
    to[:, 2] += np.where(confined, 0.008, 0.0)
    return _grip(view, to, _grasp_turn(view))


def lift(view: View) -> Command:
    """Grasp the block and raise it."""
    command, grasped = _grasp(view), view.grasped()
    command.move[grasped] = (0.0, 0.0, MAX_TRANSLATION)
    command.open &= ~grasped
    return command


def _bring(view: View, to: Floats, base: Floats, carry: float, turn: Floats) -> Command:
    """Grasp the target, carry it by `to` `[N, 2]`, set it down on height `base` `[N]`, let go, retreat."""
    command, grasped = _grasp(view), view.grasped()
    distance = length(to)
    height = view.hand[:, 2] + view.block[:, 2] - view.height / 2 - base
    there = (distance < 0.02) & (height < 0.008) & (height > -0.02)
    above = _FUNNEL * (distance - 0.012) + 0.3 * np.maximum(np.abs(turn) - 0.06, 0.0)
    move = np.column_stack([to, np.clip(above, 0.0, carry) - height])
    move[:, :2] *= np.clip(1.0 - (move[:, 2] - 0.02) / 0.04, 0.0, 1.0)[:, None]
    carrying = grasped & ~there
    command.move[carrying] = move[carrying]
    command.open &= ~carrying
    leave = there & (view.width > view.size + 0.006)
    command.move[there] = 0.0
    command.move[leave, 2] = MAX_TRANSLATION
    command.turn = np.where(carrying, turn, np.where(there, 0.0, command.turn))
    command.open |= there
    return command


def put_on_mark(view: View) -> Command:
    """Carry the target over the other blocks to its goal."""
    return _bring(view, view.to_goal, np.zeros(len(view.width)), _CARRY, np.zeros(len(view.width)))


def put_in_drawer(view: View) -> Command:
    """Carry the target to the freer side of the open drawer, turned so that the fingers fit."""
    # Between the drawer's front and the desk's edge, both of which the hand must miss.
    front = place.DRAWER_Y - place.DRAWER_HALF[1] - view.furniture[:, 0]
    y = (front + 0.032 + place.DESK_EDGE - 0.038) / 2
    spot = _free_spot(view, np.full(len(y), place.DRAWER_X), y, place.DRAWER_SPOT)
    base = np.full(len(y), place.DRAWER_FLOOR)
    return _bring(view, spot, base, 0.17, np.where(view.grasped(), _across(view), 0.0))


def put_in_slider(view: View) -> Command:
    """Carry the target into the half of the cabinet that the door does not cover."""
    middle = np.where(_door_is_left(view), place.CABINET_X[1], place.CABINET_X[0])
    spot = _free_spot(view, middle, np.full(len(middle), place.CABINET_Y), place.CABINET_SPOT)
    return _bring(view, spot, np.full(len(middle), place.CABINET_FLOOR), 0.13, _turn_to(view, 0.0))


def _door_is_left(view: View) -> Bools:
    return view.furniture[:, 1] > place.SLIDER_RANGE / 2


def _free_spot(view: View, x: Floats, y: Floats, side: float) -> Floats:
    """From the target to the one of two spots, `side` metres beside `x`, `y`, that is further from others."""
    spots = np.stack([np.column_stack([x + shift, y]) for shift in (-side, side)], axis=1)
    gap = length(spots[:, :, None] - view.others()[:, None, :, :2]).min(axis=2)
    chosen = spots[np.arange(len(x)), np.minimum(gap, 0.2).argmax(axis=1)]
    spot: Floats = chosen - (view.hand + view.block)[:, :2]
    return spot


def stack(view: View) -> Command:
    """Set the target on the nearest other block that lies on the desk."""
    offset = view.others() - (view.hand + view.block)[:, None]
    offset[~on_desk(view.blocks, view.sizes)] = 9.0
    nearest = length(offset[..., :2]).argmin(axis=1)
    rows = np.arange(len(nearest))
    base = view.blocks[rows, nearest, 2] + view.sizes[rows, nearest] / 2
    return _bring(view, offset[rows, nearest, :2], base, 0.07, np.zeros(len(rows)))


def unstack(view: View) -> Command:
    """Put whichever block stands on another one, or else the target, where the desk is freest."""
    top = stacked(view.blocks, view.sizes)
    chosen = np.where(top.any(axis=1), top.argmax(axis=1), view.target)
    rows = np.arange(len(chosen))
    view = take(view, rows)
    # Only the target's own heading is observed relative to the hand; another block's is near the start's.
    view.turn = np.where(chosen == view.target, view.turn, 0.0)
    view.block = view.blocks[rows, chosen] - view.hand
    view.target, view.size, view.height = chosen, view.sizes[rows, chosen], view.sizes[rows, chosen]
    gap = length(_FREE_SPOTS[:, None] - view.others()[:, None, :, :2]).min(axis=2)
    to = _FREE_SPOTS[gap.argmax(axis=1)] - (view.hand + view.block)[:, :2]
    return _bring(view, to, np.zeros(len(rows)), _CARRY, np.zeros(len(rows)))


def rotate(view: View) -> Command:
    """Grasp the block and turn it where it lies; let go once it has turned enough."""
    sign = np.sign(view.amount)
    # Of the four sides take one that leaves the wrist room to turn: the hand first goes the other way.
    bias = 0.45 * sign
    command = _grip(view, view.block, quarter_turn(view.turn + bias) - bias)
    grasped = view.grasped()
    command.move[grasped] = 0.0
    command.turn = np.where(grasped, MAX_ROTATION * sign, command.turn)
    command.open &= ~grasped
    _leave(command, view.turned * sign > np.abs(view.amount) + 0.06)
    return command


def push(view: View) -> Command:
    """Come down behind the block and push it along x."""
    direction = np.sign(view.amount)[:, None] * _X[:2]
    return _push_along(view, direction, _turn_to(view, 0.0))


def push_into_drawer(view: View) -> Command:
    """Push the block over the desk's edge where the drawer is."""
    block = view.hand + view.block
    x = np.clip(block[:, 0], place.DRAWER_X - 0.06, place.DRAWER_X + 0.06)
    aim = np.column_stack([x, np.full(len(x), place.DESK_EDGE - 0.05)]) - block[:, :2]
    command = _push_along(view, aim / length(aim)[:, None], _across(view))
    inside = in_drawer(view.blocks, view.furniture)[np.arange(len(x)), view.target]
    _leave(command, inside | (block[:, 2] < 0.0))
    return command


def _push_along(view: View, direction: Floats, turn: Floats) -> Command:
    """Push with the broad side of the closed fingers, which also keeps the wide palm out of the way."""
    to = view.block[:, :2]
    along = (to * direction).sum(axis=1)
    aside = to - along[:, None] * direction
    behind = view.block.copy()
    behind[:, :2] -= _BEHIND * direction
    command = _approach(view, behind, turn, open_gripper=False)
    low = np.abs(view.block[:, 2]) < 0.02
    pushing = low & (along > 0.02) & (length(aside) < 0.02)
    move = np.column_stack([MAX_TRANSLATION * direction + 0.6 * aside, view.block[:, 2]])
    command.move[pushing] = move[pushing]
    _leave(command, _holding(view))
    return command


def _slide(view: View, to: Floats, width: float, turn: Floats, way: Floats) -> Command:
    """Grip a handle at `to` `[N, 3]`, move it along `way` `[N, 3]`; where that is zero, let go and rise."""
    command = _grip(view, to, turn)
    gripped = (length(to) < 0.02) & (view.width < width + 0.006)
    axis = np.sign(way)
    hold = to * (1.0 - np.abs(axis))
    command.move[gripped] = (way + hold)[gripped]
    command.open &= ~gripped
    _leave(command, (way == 0.0).all(axis=1) & (length(to[:, :2]) < 0.08) & (view.hand[:, 2] < 0.2))
    return command


def _remaining(way: Floats) -> Floats:
    """Step of at most one action towards the end of the way `[N]`, 0 within half a centimetre of it."""
    return np.where(np.abs(way) < 0.005, 0.0, np.clip(way, -MAX_TRANSLATION, MAX_TRANSLATION))


def slide_drawer(view: View) -> Command:
    """Grip the drawer's handle by its ends; pull or push."""
    opening = view.furniture[:, 0]
    end = np.where(view.amount > 0, place.DRAWER_RANGE - 0.008, 0.004)
    handle = np.asarray(place.DRAWER_HANDLE) - opening[:, None] * _Y
    way = -_remaining(end - opening)[:, None] * _Y
    return _slide(view, handle - view.hand, place.HANDLE_WIDTH["drawer"], _across(view), way)


def slide_door(view: View) -> Command:
    """Grip the sliding door's handle and move it left or right."""
    shift = view.furniture[:, 1]
    end = np.where(view.amount > 0, place.SLIDER_RANGE - 0.004, 0.004)
    handle = np.asarray(place.SLIDER_HANDLE) - shift[:, None] * _X
    way = -_remaining(end - shift)[:, None] * _X
    return _slide(view, handle - view.hand, place.HANDLE_WIDTH["slider"], _turn_to(view, 0.0), way)


def slide_switch(view: View) -> Command:
    """Grip the switch's knob and move it up or down."""
    position = view.furniture[:, 3]
    end = np.where(view.amount > 0.5, 1.0, -1.0) * (place.SWITCH_RANGE - 0.006)
    handle = np.asarray(place.SWITCH) + (0.0, 0.0, 0.006) + position[:, None] * _Y
    way = _remaining(end - position)[:, None] * _Y
    return _slide(view, handle - view.hand, place.HANDLE_WIDTH["switch"], _turn_to(view, 0.0), way)


def press_button(view: View) -> Command:
    """Press with closed fingers until the LED is as wanted; come off the button to press again."""
    to = np.asarray(place.BUTTON) - view.hand
    down = view.furniture[:, 2] < place.BUTTON_PRESSED
    done = view.lights[:, 0] == (view.amount > 0.5)
    command = _approach(view, to, _turn_to(view, 0.0), open_gripper=False)
    rise = (done | down) & (length(to[:, :2]) < 0.05) & (view.hand[:, 2] < 0.15)
    command.move[rise] = (0.0, 0.0, MAX_TRANSLATION)
    _leave(command, _holding(view) & ~rise)
    return command


def _holding(view: View) -> Bools:
    """Whether any block is between or right under the fingers: to be let go of before they close."""
    offset = view.blocks - view.hand[:, None]
    return np.any((length(offset[..., :2]) < 0.02) & (np.abs(offset[..., 2]) < 0.045), axis=1)
