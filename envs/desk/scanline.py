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
_FAR = 1e300  # pixels


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

    def take(self, rows: Ints) -> Views:
        """Some of the images."""
        return Views(
            height=self.height,
            width=self.width,
            matrix=self.matrix[rows],
            origin=self.origin[rows],
            eye=self.eye[rows],
            seen=self.seen[rows],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Hits:
    """What the rays met first, and the `M` triangles among which they met it."""

    inverse_depth: NDArray[np.float32]  # [n, height, width] 1/m, 0 for nothing
    triangle: Ints  # [n, height, width] of `M`; any where nothing was met
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
        return self._seen(triangles, sides.inverse_depth, halves)

    def _seen(self, triangles: _Triangles, inverse_depths: Floats, drawn: NDArray[np.int32]) -> Hits:
        """Only the triangles that pixels `[n, height, width, 2]` show, and one for those that show none."""
        triangle = drawn[..., 0].astype(np.int64)
        used = np.zeros(max(len(triangles.image), 1), np.bool_)
        used[triangle] = True
        some = np.flatnonzero(used)
        if not len(triangles.image):
            triangles = _Triangles(image=some, geom=some, plane=some, corners=np.zeros((3, 1), np.int64))
            inverse_depths = np.zeros((3, 1))
        triangles = triangles.take(some)
        plane = self._planes.take(triangles.plane, axis=1)
        return Hits(
            inverse_depth=drawn.view(np.float32)[..., 1],
            triangle=(np.cumsum(used) - 1).take(triangle),
            image=triangles.image,
            geom=triangles.geom,
            normal=plane[:3],
            offset=plane[3],
            inverse_depths=inverse_depths.take(some, axis=1),
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
    outside = _outside(vertices, limit)
    out = outside.take(a) & outside.take(b) & outside.take(c)
    first = np.minimum(np.minimum(low.take(a, axis=1), low.take(b, axis=1)), low.take(c, axis=1))
    last = np.maximum(np.maximum(high.take(a, axis=1), high.take(b, axis=1)), high.take(c, axis=1))
    num = np.maximum(last - first + 1, 0)
    return first[1].astype(np.int64), (num[1] * ((num[0] > 0) & (out == 0))).astype(np.int64)


def _outside(vertices: Floats, limit: Floats) -> NDArray[np.uint8]:
    """A bit for each side of the image, and for behind the eye, that a vertex is beyond.

    What is linear in image coordinates is negative on a whole triangle if it is in its three corners.
    """
    low, high = vertices[:2] + 0.5 * vertices[2] < 0, vertices[:2] - (limit - 0.5) * vertices[2] > 0
    bits = low[0] + 2 * low[1].view(np.uint8) + 4 * high[0].view(np.uint8) + 8 * high[1].view(np.uint8)
    code: NDArray[np.uint8] = bits + 16 * (vertices[2] <= 0).view(np.uint8)
    return code


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sides:
    """Linear functions of `M` triangles."""

    slope: Floats  # [3, M] how a side's column changes from row to row
    begin: Floats  # [3, M] its column in row 0 where it bounds the left, else far out on the left
    end: Floats  # [3, M] its column in row 0 where it bounds the right, else far out on the right
    inverse_depth: Floats  # [3, M] as a function of (u, v, 1)


def _sides(vertices: Floats, corners: Ints) -> _Sides:
    a, b, c = (vertices.take(corner, axis=1) for corner in corners)
    slope, begin, end = (np.empty((3, len(a[0]))) for _ in range(3))
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
        begins = x > 0
        slope[side], start = -y / x, -z / x
        begin[side], end[side] = start - _FAR * ~begins, start + _FAR * begins
    # Each of the three products is the triangle's volume; their mean is the most exact of it.
    return _Sides(slope=slope, begin=begin, end=end, inverse_depth=total / (scale / 3))


def _spans(sides: _Sides, which: Ints, v: Ints, width: int) -> tuple[Ints, Ints]:
    """First pixel and number of pixels, `[S]`, in which row `v` `[S]` meets the triangle `which` `[S]`."""
    left, right = np.full(len(which), -1.0), np.full(len(which), float(width))
    for slope, begin, end in zip(sides.slope, sides.begin, sides.end, strict=True):
        shift = slope.take(which)
        shift *= v
        np.maximum(left, begin.take(which) + shift, out=left)
        shift += end.take(which)
        np.minimum(right, shift, out=right)
    first = np.ceil(np.clip(left - _ROUNDING, 0.0, float(width)))
    last = np.floor(np.clip(right + _ROUNDING, -1.0, width - 1.0))
    return first.astype(np.int64), np.maximum(last - first + 1.0, 0.0).astype(np.int64)


def _draw(
    nearest: NDArray[np.int32],
    first: Ints,
    count: Ints,
    start: NDArray[np.float32],
    slope: NDArray[np.float32],
    which: NDArray[np.int32],
) -> None:
    """Enter `S` spans into the pixels `[..., 2]`, each a triangle and the bits of an inverse depth."""
    before = np.cumsum(count) - count
    total = int(count.sum())
    step = np.arange(total, dtype=np.int32) - np.repeat(before.astype(np.int32), count)
    # One integer of the two: positive floats compare as their bits do.
    keys = np.empty((total, 2), np.int32)
    keys[:, 0] = np.repeat(which, count)
    depth = step.astype(np.float32)
    depth *= np.repeat(slope, count)
    depth += np.repeat(start, count)
    np.maximum(depth, _FARTHEST, out=keys.view(np.float32)[:, 1])
    pixel = np.arange(total) + np.repeat(first - before, count)
    np.maximum.at(nearest.view(np.int64)[:, 0], pixel, keys.view(np.int64)[:, 0])
