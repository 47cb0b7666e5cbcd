"""Rays through all pixels of many images at once, one row of pixels of one triangle at a time.

The rays that meet a triangle form a cone with three flat sides. In a row of pixels they are one span, whose
ends are two divisions; along it the inverse depth is linear. So what a ray caster tests ray by ray is
computed here for whole arrays of spans, and only pixels that are hit cost anything. Nothing is clipped:
triangles may reach behind the eye. Every number is a function of its own image alone, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.desk.shapes import Shapes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BEHIND = 1e-9  # metres in front of the eye from which a vertex has a place in the image
_ROUNDING = 1e-9  # pixels by which spans are widened, so that neighbours leave no gap between them
_FARTHEST = np.float32(1e-9)  # inverse metres


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """`n` images of `height` x `width` pixels that look at `G` geoms.

    Image coordinates of a point are (u, v, 1) times its depth, with u the column and v the row of a pixel's
    centre, and depth the distance in metres along the optical axis.
    """

    height: int
    width: int
    matrix: Floats  # [n, G, 3, 3] from a geom's frame to image coordinates
    origin: Floats  # [n, G, 3] the geom's origin there
    eye: Floats  # [n, G, 3] in the geom's frame
    seen: NDArray[np.bool_]  # [n, G] False where the geom cannot be in the image


@dataclass(frozen=True, kw_only=True, slots=True)
class Hits:
    """What the rays met first, and the `M` triangles among which they met it; the last stands for nothing."""

    inverse_depth: NDArray[np.float32]  # [n, height, width] 1/m, 0 for nothing
    triangle: NDArray[np.int32]  # [n, height, width] of `M`; any where nothing was met
    image: Ints  # [M] of `n`
    geom: Ints  # [M] of `G`
    normal: Floats  # [3, M] unit vector towards the eye, in the geom's frame
    offset: Floats  # [M] distance along it from the geom's origin to the triangle's plane
    inverse_depths: Floats  # [3, M] of the triangle's plane as a linear function of (u, v, 1)


@dataclass(kw_only=True, slots=True)
class _Triangles:
    """`M` triangles that face the eye."""

    image: Ints  # [M]
    geom: Ints  # [M]
    plane: Ints  # [M] column in `Surfaces.planes`, counted from the end where it is seen from behind
    corners: Ints  # [3, M] columns of an array of vertices

    def take(self, rows: Ints) -> _Triangles:
        return _Triangles(
            image=self.image.take(rows),
            geom=self.geom.take(rows),
            plane=self.plane.take(rows),
            corners=self.corners.take(rows, axis=1),
        )


class Surfaces:
    """Triangles of all geoms, ready to be cast."""

    def __init__(self, shapes: Sequence[Shapes]) -> None:
        self._shapes = shapes
        planes = [
            np.concatenate([shape.normals.transpose(1, 0, 2).reshape(3, -1), shape.offsets.reshape(1, -1)])
            for shape in shapes
        ]
        first = np.cumsum([0, *(part.shape[1] for part in planes)])
        self._first = first[:-1]
        # [4, ...] normal and offset, and once more from behind
        self._planes = np.concatenate([*planes, *(-part for part in planes)], axis=1)
        self._behind = int(first[-1])

    def cast(self, views: Views) -> Hits:
        """Find what is seen in every pixel; `Shapes.geoms` are indices of `G`."""
        vertices, triangles = self._facing(views)
        top, num_rows = _extent(vertices, triangles.corners, views)
        some = np.flatnonzero(num_rows)
        triangles, top, num_rows = triangles.take(some), top.take(some), num_rows.take(some)
        which, row = _expand(num_rows)
        v = top.take(which) + row
        sides = _sides(vertices, triangles.corners)
        left, count = _spans(sides, which, v, views.width)
        some = np.flatnonzero(count)
        which, v, left, count = which.take(some), v.take(some), left.take(some), count.take(some)
        slope, along, start = sides.inverse_depth.take(which, axis=1)
        start = (start + along * v + slope * left).astype(np.float32)
        first = (triangles.image.take(which) * views.height + v) * views.width + left
        nearest = np.zeros((len(views.eye) * views.height * views.width, 2), np.int32)
        _draw(nearest, first, count, start, slope.astype(np.float32), which.astype(np.int32))
        halves = nearest.reshape(len(views.eye), views.height, views.width, 2)
        plane = self._planes.take(triangles.plane, axis=1)
        return Hits(
            inverse_depth=halves.view(np.float32)[..., 1],
            triangle=halves[..., 0],
            image=np.append(triangles.image, 0),
            geom=np.append(triangles.geom, 0),
            normal=np.pad(plane[:3], ((0, 0), (0, 1))),
            offset=np.append(plane[3], 0.0),
            inverse_depths=np.pad(sides.inverse_depth, ((0, 0), (0, 1))),
        )

    def _facing(self, views: Views) -> tuple[Floats, _Triangles]:
        """Vertices `[3, ...]` in image coordinates of all geoms in view; the triangles that face the eye."""
        vertices, parts, first_vertex = [], [], 0
        for shape, first in zip(self._shapes, self._first, strict=True):
            image, member = np.nonzero(views.seen[:, shape.geoms])
            geom = shape.geoms[member]
            own = shape.vertices if len(shape.geoms) == 1 else shape.vertices[member]
            placed = views.matrix[image, geom] @ own + views.origin[image, geom, :, None]
            normals = shape.normals if len(shape.geoms) == 1 else shape.normals[member]
            height = (views.eye[image, geom, None] @ normals)[:, 0] - shape.offsets[member]
            pair, face = np.nonzero(height if shape.two_sided else height > 0)
            plane = (first + member * shape.faces.shape[1]).take(pair) + face
            corners = shape.faces.take(face, axis=1) + (first_vertex + pair * placed.shape[2])
            if shape.two_sided:
                behind = height[pair, face] < 0
                plane[behind] += self._behind
                corners[1:, behind] = corners[2:0:-1, behind]
            vertices.append(placed.transpose(1, 0, 2).reshape(3, -1))
            parts.append(
                _Triangles(image=image.take(pair), geom=geom.take(pair), plane=plane, corners=corners)
            )
            first_vertex += placed.shape[0] * placed.shape[2]
        return np.concatenate(vertices, axis=1), _Triangles(
            image=np.concatenate([part.image for part in parts]),
            geom=np.concatenate([part.geom for part in parts]),
            plane=np.concatenate([part.plane for part in parts]),
            corners=np.concatenate([part.corners for part in parts], axis=1),
        )


def _expand(counts: Ints) -> tuple[Ints, Ints]:
    """Index of the group and number within it, for groups of so many members."""
    group = np.repeat(np.arange(len(counts)), counts)
    return group, np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)


def _extent(vertices: Floats, corners: Ints, views: Views) -> tuple[Ints, Ints]:
    """First row of pixels that each triangle may be met in and the number of rows, `[M]`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = vertices[:2] / vertices[2]
    behind = vertices[2] <= _BEHIND
    limit = np.array([[views.width], [views.height]], np.float64)
    low, high = (
        np.ceil(np.clip(place - _ROUNDING, 0.0, limit)),
        np.floor(np.clip(place + _ROUNDING, -1.0, limit - 1)),
    )
    # A triangle with a corner behind the eye may be anywhere.
    low[:, behind], high[:, behind] = 0.0, limit - 1
    low, high = low.astype(np.int32), high.astype(np.int32)
    a, b, c = corners
    first = np.minimum(np.minimum(low.take(a, axis=1), low.take(b, axis=1)), low.take(c, axis=1))
    last = np.maximum(np.maximum(high.take(a, axis=1), high.take(b, axis=1)), high.take(c, axis=1))
    num = np.maximum(last - first + 1, 0)
    return first[1].astype(np.int64), (num[1] * (num[0] > 0)).astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sides:
    """Linear functions of `M` triangles."""

    begin: Floats  # [3, 2, M] each side's column as slope * row + start where it bounds the left, else -inf
    end: Floats  # [3, 2, M] and where it bounds the right, else inf
    inverse_depth: Floats  # [3, M] as a function of (u, v, 1)


def _sides(vertices: Floats, corners: Ints) -> _Sides:
    a, b, c = (vertices.take(corner, axis=1) for corner in corners)
    begin, end = np.empty((3, 2, len(a[0]))), np.empty((3, 2, len(a[0])))
    total, scale = np.zeros_like(a), np.zeros_like(a[0])
    for side, (p, q, r) in enumerate(((b, a, c), (c, b, a), (a, c, b))):
        # The plane through the eye and the side; x u + y v + z is positive inside. Two triangles at an edge
        # compute the same numbers but for the sign, so that no pixel is lost between them.
        x = p[1] * q[2] - p[2] * q[1]
        y = p[2] * q[0] - p[0] * q[2]
        z = p[0] * q[1] - p[1] * q[0]
        total += (x, y, z)
        scale += x * r[0] + y * r[1] + z * r[2]
        x[x == 0] = 1e-30
        line = np.stack([-y / x, -z / x])
        begins = x > 0
        begin[side], end[side] = line, line
        begin[side, 0, ~begins], begin[side, 1, ~begins] = 0.0, -np.inf
        end[side, 0, begins], end[side, 1, begins] = 0.0, np.inf
    # Each of the three products is the triangle's volume; their mean is the most exact of it.
    return _Sides(begin=begin, end=end, inverse_depth=total / (scale / 3))


def _spans(sides: _Sides, which: Ints, v: Ints, width: int) -> tuple[Ints, Ints]:
    """First pixel and number of pixels, `[S]`, in which row `v` `[S]` meets the triangle `which` `[S]`."""
    slope, start = sides.begin.take(which, axis=2).swapaxes(0, 1)
    left = (slope * v + start).max(axis=0)
    slope, start = sides.end.take(which, axis=2).swapaxes(0, 1)
    right = (slope * v + start).min(axis=0)
    left = np.ceil(np.clip(left - _ROUNDING, 0.0, float(width)))
    right = np.floor(np.clip(right + _ROUNDING, -1.0, width - 1.0))
    return left.astype(np.int64), np.maximum(right - left + 1.0, 0.0).astype(np.int64)


def _draw(
    nearest: NDArray[np.int32],
    first: Ints,
    count: Ints,
    start: NDArray[np.float32],
    slope: NDArray[np.float32],
    which: NDArray[np.int32],
) -> None:
    """Enter `S` spans into the pixels `[..., 2]`, each a triangle and the bits of an inverse depth."""
    total = int(count.sum())
    step = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    # One integer of the two: positive floats compare as their bits do.
    keys = np.empty((total, 2), np.int32)
    keys[:, 0] = np.repeat(which, count)
    depth = np.repeat(slope, count) * step.astype(np.float32)
    depth += np.repeat(start, count)
    np.maximum(depth, _FARTHEST, out=keys.view(np.float32)[:, 1])
    step += np.repeat(first, count)
    np.maximum.at(nearest.view(np.int64)[:, 0], step, keys.view(np.int64)[:, 0])
