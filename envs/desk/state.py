"""What tasks look at: the desk now and at the start of the task, with the measures that predicates share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from envs.desk import furniture as place

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

T = TypeVar("T", bound=np.generic)
Record = TypeVar("Record")

_ASIDE = 0.01  # metres between two blocks' sides from which neither is above the other
_RESTING = 0.006  # metres a resting block's underside may be off its support


def take(record: Record, rows: NDArray[np.int64] | slice) -> Record:
    """The same for some of the simulations; `record` is a dataclass of arrays `[N, ...]`."""
    return type(record)(**{f.name: getattr(record, f.name)[rows] for f in fields(record)})  # type: ignore[arg-type]


@dataclass(kw_only=True, slots=True)
class State:
    """What predicates and rewards may look at: `N` simulations, `K` blocks, all in the world frame."""

    hand_pos: Floats  # [N, 3] grasp centre
    width: Floats  # [N] opening between the fingers
    block_pos: Floats  # [N, K, 3]
    block_quat: Floats  # [N, K, 4] w first
    block_speed: Floats  # [N, K] metres per second
    block_size: Floats  # [N, K] width
    block_height: Floats  # [N, K]
    furniture: Floats  # [N, 4] positions of `furniture.JOINTS`
    lights: Bools  # [N, 2] which of `furniture.LIGHTS` are on
    target: NDArray[np.int64]  # [N] index of the block that the task is about
    goal: Floats  # [N, 2] where it is to be put; zeros for tasks without a goal
    amount: Floats  # [N] what the task asks for, in its family's unit (see `Task.amount`)
    start_pos: Floats  # [N, K, 3] `block_pos` when the task began
    start_quat: Floats  # [N, K, 4]
    start_furniture: Floats  # [N, 4]
    start_lights: Bools  # [N, 2]

    def of_target(self, values: NDArray[T]) -> NDArray[T]:
        """The target's row of a per-block array `[N, K, ...]`."""
        return values[np.arange(len(self.target)), self.target]

    def clearance(self) -> Floats:
        """Height of the target's underside above the desk, `[N]`, for a block that lies flat."""
        return self.of_target(self.block_pos)[:, 2] - self.of_target(self.block_height) / 2

    def reach(self) -> Floats:
        """Distance `[N]` from the grasp centre to the target's centre."""
        return length(self.hand_pos - self.of_target(self.block_pos))

    def held(self) -> Bools:
        """Whether the target is between the fingers and they are closed on it, `[N]`."""
        return (self.reach() < 0.025) & (self.width < self.of_target(self.block_size) + 0.006)

    def released(self) -> Bools:
        """Whether the fingers have let go of the target, `[N]`."""
        return (self.width > self.of_target(self.block_size) + 0.015) | (self.reach() > 0.06)

    def moved(self) -> Floats:
        """How far the target's centre is from where it started, `[N, 3]`."""
        return self.of_target(self.block_pos) - self.of_target(self.start_pos)

    def turned(self) -> tuple[Floats, Floats]:
        """The target's rotation since the start: about the vertical in [-pi, pi], and its tilt's cosine."""
        w, x, y, z = (part[:, 0] for part in np.split(self._rotation(), 4, axis=1))
        return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)), 1 - 2 * (x * x + y * y)

    def _rotation(self) -> Floats:
        """Quaternion `[N, 4]` of the target's orientation now times the inverse of the one at the start."""
        a, b = self.of_target(self.block_quat), self.of_target(self.start_quat)
        vector = b[:, :1] * a[:, 1:] - a[:, :1] * b[:, 1:] - np.cross(a[:, 1:], b[:, 1:])
        return np.concatenate([(a * b).sum(axis=1, keepdims=True), vector], axis=1)


def length(vectors: Floats) -> Floats:
    """Euclidean length along the last axis."""
    lengths: Floats = np.sqrt((vectors**2).sum(axis=-1))
    return lengths


def in_drawer(pos: Floats, furniture: Floats) -> Bools:
    """Which blocks `[N, K, 3]` are inside the drawer, `[N, K]`."""
    x = np.abs(pos[..., 0] - place.DRAWER_X) < place.DRAWER_HALF[0]
    y = np.abs(pos[..., 1] + furniture[:, :1] - place.DRAWER_Y) < place.DRAWER_HALF[1]
    return x & y & (pos[..., 2] < -0.02) & (pos[..., 2] > place.DRAWER_FLOOR)


def in_cabinet(pos: Floats) -> Bools:
    """Which blocks `[..., 3]` are inside the cabinet, in either half."""
    x = np.abs(pos[..., 0] - sum(place.CABINET_X) / 2) < 2 * place.CABINET_HALF[0]
    y = np.abs(pos[..., 1] - place.CABINET_Y) < place.CABINET_HALF[1]
    return x & y & (pos[..., 2] > place.CABINET_FLOOR) & (pos[..., 2] < place.CABINET_TOP)


def on_desk(pos: Floats, height: Floats) -> Bools:
    """Which blocks `[N, K, 3]` of `height` `[N, K]` rest on the desk's surface, `[N, K]`."""
    return (np.abs(pos[..., 2] - height / 2) < _RESTING) & (pos[..., 1] > place.DESK_EDGE)


def stacked(pos: Floats, size: Floats) -> Bools:
    """Which cubes `[N, K, 3]` stand on another one, `[N, K]`."""
    offset, reach = pos[:, :, None] - pos[:, None], (size[:, :, None] + size[:, None]) / 2
    beside = length(offset[..., :2]) < 0.6 * reach
    above: Bools = np.any((beside & (np.abs(offset[..., 2] - reach) < _RESTING)), axis=2)
    return above


def apart(pos: Floats, size: Floats) -> Bools:
    """Which blocks `[N, K, 3]` are neither above nor below another one, `[N, K]`."""
    beside = length(pos[:, :, None, :2] - pos[:, None, :, :2]) - (size[:, :, None] + size[:, None]) / 2
    beside[:, np.arange(pos.shape[1]), np.arange(pos.shape[1])] = np.inf
    free: Bools = np.all(beside > _ASIDE, axis=2)
    return free


def quarter_turn(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """The angle modulo a quarter turn, in [-pi/4, pi/4]: a cube has four equal sides."""
    return angle - np.round(angle / (np.pi / 2)) * (np.pi / 2)
