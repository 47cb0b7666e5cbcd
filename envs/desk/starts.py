"""From a situation in words to positions: one random desk in which it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.desk import furniture as place
from envs.desk.scene import Room, Scene
from envs.desk.situations import DRAWER, GRIPPER, LEFT, RIGHT, STACKED, TABLE, Situation

Floats = NDArray[np.float64]

_CANDIDATES = 64  # start layouts drawn at once; the first that keeps the blocks apart is used
_LANE = (-0.11, 0.20)  # from where to where along a lane, metres from the block, others must keep out
_LANE_GAP = 0.085  # metres between a lane's middle and the other blocks' centres
_CONFINED_YAW = 0.2  # blocks in drawer and cabinet start turned by up to this much: the walls are near


@dataclass(kw_only=True, slots=True)
class Start:
    """Where everything stands when an episode begins."""

    pos: Floats  # [K, 3]; for a block in the gripper where it would stand on the desk
    yaw: Floats  # [K]
    furniture: Floats  # [4]
    lights: NDArray[np.bool_]  # [2]
    held: int | None  # the block in the gripper


def draw_start(
    rng: np.random.Generator, scene: Scene, situation: Situation, room: Room | None, target: int
) -> Start:
    """Draw positions in which the situation holds; `room` confines the target.

    Raises ValueError if the scene's rectangle is too small for its blocks.
    """
    k = len(scene.blocks)
    half = np.array([block.half_height for block in scene.blocks])
    pos = np.column_stack([draw_positions(rng, scene, room, target), half])
    yaw = rng.uniform(-scene.start_yaw, scene.start_yaw, k)
    furniture = _draw_furniture(rng, situation)
    for i, where in enumerate(situation.places):
        if where in (LEFT, RIGHT):
            yaw[i] = rng.uniform(-_CONFINED_YAW, _CONFINED_YAW)
            middle = place.CABINET_X[where == RIGHT] + place.CABINET_SPOT * rng.choice((-1, 1))
            pos[i] = (middle, place.CABINET_Y, place.CABINET_FLOOR + half[i]) + rng.uniform(
                -0.01, 0.01, 3
            ) * (1, 1, 0)
        elif where == DRAWER:
            yaw[i] = rng.uniform(-_CONFINED_YAW, _CONFINED_YAW)
            x = place.DRAWER_X + place.DRAWER_SPOT * rng.choice((-1, 1))
            y = place.DRAWER_Y - 0.02 - furniture[0]
            pos[i] = (x, y, place.DRAWER_FLOOR + half[i]) + rng.uniform(-0.01, 0.01, 3) * (1, 1, 0)
    if STACKED in situation.places:
        top = situation.places.index(STACKED)
        base = rng.choice([i for i, where in enumerate(situation.places) if where == TABLE])
        pos[top] = pos[base] + (0.0, 0.0, half[base] + half[top])
        pos[top, :2] += rng.uniform(-0.005, 0.005, 2)
    held = situation.places.index(GRIPPER) if GRIPPER in situation.places else None
    lights = np.array([situation.led == "on", situation.bulb == "on"])
    return Start(pos=pos, yaw=yaw, furniture=furniture, lights=lights, held=held)


def _draw_furniture(rng: np.random.Generator, situation: Situation) -> Floats:
    """Positions `[4]` near one end or the other; the button is up."""
    drawer, slider, switch = rng.uniform(0.0, 0.012, 3)
    return np.array(
        [
            place.DRAWER_RANGE - drawer if situation.drawer == "open" else drawer,
            place.SLIDER_RANGE - slider if situation.slider == "left" else slider,
            0.0,
            (place.SWITCH_RANGE - switch) * (1 if situation.bulb == "on" else -1),
        ]
    )


def draw_positions(
    rng: np.random.Generator, scene: Scene, room: Room | None = None, target: int = 0
) -> Floats:
    """Centres `[K, 2]` for the blocks, uniform among those that keep `scene.start_gap` and the room's lane.

    Raises ValueError if the rectangle is too small for that.
    """
    num_blocks = len(scene.blocks)
    low, high = np.tile(scene.start_low, (num_blocks, 1)), np.tile(scene.start_high, (num_blocks, 1))
    if room is not None:
        low[target], high[target] = room.low, room.high
    pairs = np.triu_indices(num_blocks, k=1)
    for _ in range(20):
        xy = rng.uniform(low, high, size=(_CANDIDATES, num_blocks, 2))
        distance = np.sqrt(((xy[:, pairs[0]] - xy[:, pairs[1]]) ** 2).sum(axis=2))
        fits = (distance >= scene.start_gap).all(axis=1)
        if room is not None:
            fits &= _lane_is_free(xy, room.lane, target)
        if fits.any():
            positions: Floats = xy[fits.argmax()]
            return positions
    raise ValueError(
        f"scene.start_gap={scene.start_gap}: {num_blocks} blocks do not fit that far apart between "
        f"{scene.start_low} and {scene.start_high}"
    )


def _lane_is_free(xy: Floats, lane: Sequence[float], target: int) -> NDArray[np.bool_]:
    """For layouts `[C, K, 2]` whether all but the target keep off the way it is to be pushed, `[C]`."""
    offset = np.delete(xy, target, axis=1) - xy[:, target, None]
    nearest = np.clip(offset @ np.asarray(lane), *_LANE)[..., None] * lane
    free: NDArray[np.bool_] = (np.sqrt(((offset - nearest) ** 2).sum(axis=2)) > _LANE_GAP).all(axis=1)
    return free
