"""Things that lie free on the desk: cubes, and for held-out scenes a bowl, a cup, a mug.

A round thing is drawn as a hollow mesh made here, and collides as the box around it: where a cylinder or a
prism touched them, in a line or in narrow faces, the fingers lost it whenever the hand turned. The mug's
handle points to a corner of that box, so that it is in the way of no grasp.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.desk.choices import check_choice
from envs.desk.furniture import DRAWN, FURNITURE, ROBOT, WORLD

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HULLS = 5  # geom group of collision shapes that are not drawn
_SEGMENTS = 36  # of a round thing's circumference
_HANDLE = {"out": 0.016, "up": 0.014, "thick": 0.0042}  # of the mug, metres: half axes and half thickness
_FREE = {
    "contype": WORLD,
    "conaffinity": ROBOT | WORLD | FURNITURE,
    "friction": [0.9, 0.005, 0.0001],
}
# Outline of one half from the middle of the underside over the rim to the middle of the inside, as shares of
# half the width and of the height.
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "bowl": (
        (0.0, 0.0), (0.48, 0.0), (0.52, 0.10), (0.78, 0.36), (0.93, 0.66), (1.0, 1.0), (0.93, 1.0),
        (0.85, 0.68), (0.70, 0.42), (0.45, 0.22), (0.0, 0.16),
    ),
    "cup": ((0.0, 0.0), (0.72, 0.0), (0.76, 0.04), (1.0, 1.0), (0.90, 1.0), (0.68, 0.10), (0.0, 0.08)),
    "mug": (
        (0.0, 0.0), (0.92, 0.0), (1.0, 0.05), (1.0, 0.97), (0.97, 1.0), (0.87, 1.0), (0.84, 0.96),
        (0.84, 0.10), (0.0, 0.09),
    ),
}  # fmt: skip
SHAPES = ("block", *_OUTLINES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A thing that lies free on the desk, a cube unless `shape` says bowl, cup or mug."""

    name: str
    rgba: tuple[float, float, float, float]
    half_size: float = 0.025  # half its width, between the fingers
    mass: float = 0.08
    shape: str = "block"
    flatness: float = 1.0  # height over width

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, SHAPES)
        if self.shape == "block" and self.flatness != 1.0:
            raise ValueError(f"flatness={self.flatness}: a block is a cube")

    @property
    def half_height(self) -> float:
        """Half its height, metres."""
        return self.half_size * self.flatness


def add_block(spec: mujoco.MjSpec, block: Block) -> None:
    """Add a free body of the block's name, its geoms first among them the one that is seen."""
    body = spec.worldbody.add_body(name=block.name, pos=[0.5, 0, block.half_height])
    body.add_freejoint(name=block.name)
    if block.shape == "block":
        body.add_geom(
            name=block.name, type=mujoco.mjtGeom.mjGEOM_BOX, size=[block.half_size] * 3, mass=block.mass,
            rgba=block.rgba, **_FREE,
        )  # fmt: skip
        return
    vertices, faces = _mesh(block)
    spec.add_mesh(name=block.name, uservert=vertices.ravel().tolist(), userface=faces.ravel().tolist())
    body.add_geom(
        name=block.name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=block.name, rgba=block.rgba, mass=0.0,
        friction=_FREE["friction"], **DRAWN,
    )  # fmt: skip
    body.add_geom(
        name=f"{block.name}_hull", type=mujoco.mjtGeom.mjGEOM_BOX, mass=block.mass, rgba=block.rgba,
        size=[block.half_size, block.half_size, block.half_height], group=_HULLS, **_FREE,
    )  # fmt: skip


def _mesh(block: Block) -> tuple[Floats, Ints]:
    """Vertices `[V, 3]` and triangles `[F, 3]` of a round thing, its middle at the origin."""
    outline = np.array(_OUTLINES[block.shape]) * (block.half_size, 2 * block.half_height)
    angle = np.arange(_SEGMENTS) * (2 * np.pi / _SEGMENTS)
    radius, height = outline[:, 0, None], outline[:, 1, None] - block.half_height
    rings = np.stack([radius * np.cos(angle), radius * np.sin(angle), height + 0 * angle], axis=2)
    # The first and the last ring are points on the axis: one vertex each, or triangles would be degenerate.
    inner = rings[1:-1]
    bottom, top = inner.size // 3, inner.size // 3 + 1
    vertices = np.concatenate([inner.reshape(-1, 3), rings[0, :1], rings[-1, :1]])
    here = np.arange(_SEGMENTS)
    after = (here + 1) % _SEGMENTS
    last = (len(inner) - 1) * _SEGMENTS
    faces = [
        _tube(len(inner), closed=False),
        np.column_stack([np.full(_SEGMENTS, bottom), after, here]),
        np.column_stack([np.full(_SEGMENTS, top), last + here, last + after]),
    ]
    if block.shape == "mug":
        handle, sides = _handle(block.half_size)
        faces.append(sides + len(vertices))
        vertices = np.concatenate([vertices, handle])
    return vertices, np.concatenate(faces)


def _handle(radius: float) -> tuple[Floats, Ints]:
    """A closed ring beside a mug of that radius, in the vertical plane between x and y."""
    along = np.arange(_SEGMENTS) * (2 * np.pi / _SEGMENTS)
    out = np.cos(along)[:, None] * (_HANDLE["out"] - _HANDLE["thick"] + _HANDLE["thick"] * np.cos(along))
    up = np.sin(along)[:, None] * (_HANDLE["up"] - _HANDLE["thick"] + _HANDLE["thick"] * np.cos(along))
    side = np.broadcast_to(_HANDLE["thick"] * np.sin(along), out.shape)
    distance = radius - 0.002 + out
    x, y = (distance - side) / np.sqrt(2), (distance + side) / np.sqrt(2)
    return np.stack([x, y, up], axis=2).reshape(-1, 3), _tube(_SEGMENTS, closed=True)


def _tube(rings: int, *, closed: bool) -> Ints:
    """Triangles `[F, 3]` between consecutive rings of `_SEGMENTS` vertices, facing outwards."""
    ring = np.arange(rings if closed else rings - 1)[:, None]
    here = np.arange(_SEGMENTS)
    after = (here + 1) % _SEGMENTS
    low, high = ring * _SEGMENTS, (ring + 1) % rings * _SEGMENTS
    a, b, c, d = low + here, low + after, high + after, high + here
    return np.concatenate([np.stack([a, b, c], axis=2), np.stack([a, c, d], axis=2)]).reshape(-1, 3)
