"""Geoms as triangles, for `envs.desk.scanline`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SLICES, _STACKS = 24, 12  # of round shapes: their outline is off by 0.9 % of the radius at most
_ENDLESS = 1e3  # metres to each side of a plane without a size


@dataclass(frozen=True, kw_only=True, slots=True)
class Shapes:
    """`B` geoms whose surfaces have the same `F` triangles over `V` vertices, in each geom's own frame."""

    geoms: Ints  # [B]
    vertices: Floats  # [B, 3, V]
    faces: Ints  # [3, F] vertices, counter-clockwise seen from outside
    normals: Floats  # [B, 3, F] unit vectors that point outside
    offsets: Floats  # [B, F] distance of each triangle's plane from the origin
    two_sided: bool  # the surface is not closed, so that its triangles are seen from either side


def shapes_of(model: mujoco.MjModel, geoms: Sequence[int] | Ints) -> list[Shapes]:
    """Surfaces of the given geoms, those of equal triangles together.

    Raises ValueError for a geom that has none of MuJoCo's primitive shapes and no mesh.
    """
    return [
        _shapes(np.array(members), vertices, faces) for members, vertices, faces in _by_kind(model, geoms)
    ]


def _shapes(geoms: Ints, vertices: Floats, faces: Ints) -> Shapes:
    corners = vertices[:, faces.T]  # [B, F, 3, 3] last axis x, y, z
    normals = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    length = np.sqrt((normals**2).sum(axis=2))
    real = (length > 1e-14).all(axis=0)  # scanned meshes contain triangles without any area
    normals = normals[:, real] / length[:, real, None]
    return Shapes(
        geoms=geoms,
        vertices=np.ascontiguousarray(vertices.transpose(0, 2, 1)),
        faces=np.ascontiguousarray(faces[:, real]),
        normals=np.ascontiguousarray(normals.transpose(0, 2, 1)),
        offsets=(normals * corners[:, real, 0]).sum(axis=2),
        two_sided=not _is_closed(faces),
    )


def _is_closed(faces: Ints) -> bool:
    """Whether every edge has a triangle on both sides that runs along it the other way."""
    edges = np.concatenate([faces[[0, 1]], faces[[1, 2]], faces[[2, 0]]], axis=1).T
    return {(a, b) for a, b in edges.tolist()} == {(b, a) for a, b in edges.tolist()}


def _by_kind(model: mujoco.MjModel, geoms: Sequence[int] | Ints) -> Iterator[tuple[list[int], Floats, Ints]]:
    """Geoms of one kind, their vertices `[B, V, 3]`, and their triangles `[3, F]`."""
    kinds: dict[tuple[int, int], list[int]] = {}
    for geom in geoms:
        kinds.setdefault((int(model.geom_type[geom]), int(model.geom_dataid[geom])), []).append(int(geom))
    for (kind, data), members in kinds.items():
        if kind == mujoco.mjtGeom.mjGEOM_MESH:
            vertices, faces = _mesh(model, data)
            yield members, np.repeat(vertices[None], len(members), axis=0), faces
        elif kind in _TEMPLATES:
            vertices, faces, halves = _TEMPLATES[kind]
            sizes = np.array([_half_sizes(kind, model.geom_size[geom]) for geom in members])
            # What lies above the middle is moved up and what lies below it down: the capsule's cylinder.
            yield members, vertices * sizes[:, None, :3] + halves[:, None] * _UP * sizes[:, None, 3:], faces
        else:
            name = mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower()
            raise ValueError(f"geom {model.geom(members[0]).name!r}: cameras cannot draw the type {name}")


def _half_sizes(kind: int, size: Floats) -> tuple[float, float, float, float]:
    """By how much to stretch a template along x, y, z, and how far to pull its halves apart."""
    types = mujoco.mjtGeom
    if kind == types.mjGEOM_SPHERE:
        return size[0], size[0], size[0], 0.0
    if kind == types.mjGEOM_CAPSULE:
        return size[0], size[0], size[0], size[1]
    if kind == types.mjGEOM_CYLINDER:
        return size[0], size[0], size[1], 0.0
    if kind == types.mjGEOM_PLANE:
        return size[0] or _ENDLESS, size[1] or _ENDLESS, 1.0, 0.0
    return size[0], size[1], size[2], 0.0


def _mesh(model: mujoco.MjModel, mesh: int) -> tuple[Floats, Ints]:
    """Vertices, equal ones merged as files of loose triangles need it, and triangles of a mesh."""
    first, last = model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh]
    vertices, number = np.unique(model.mesh_vert[first:last].astype(np.float64), axis=0, return_inverse=True)
    first, last = model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh]
    return vertices, number[model.mesh_face[first:last].T.astype(np.int64)]


_UP = np.array([0.0, 0.0, 1.0])


def _rings(heights: Sequence[float], radii: Sequence[float]) -> tuple[Floats, Ints]:
    """A closed surface of revolution: a pole, rings from below to above, a pole."""
    angles = 2 * np.pi * np.arange(_SLICES) / _SLICES
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(_SLICES)], axis=1)
    rings = [radius * circle + height * _UP for height, radius in zip(heights, radii, strict=True)]
    vertices = np.concatenate([[heights[0] * _UP], *rings, [heights[-1] * _UP]])
    if radii[0] < 1.0:  # a ball, whose poles lie beyond its outermost rings
        vertices[0], vertices[-1] = -_UP, _UP
    here, there = np.arange(_SLICES), np.roll(np.arange(_SLICES), -1)
    faces = [np.stack([np.zeros_like(here), 1 + there, 1 + here])]
    for ring in range(len(heights) - 1):
        low, high = 1 + ring * _SLICES, 1 + (ring + 1) * _SLICES
        faces += [np.stack([low + here, low + there, high + there])]
        faces += [np.stack([low + here, high + there, high + here])]
    top = 1 + (len(heights) - 1) * _SLICES
    faces += [np.stack([np.full_like(here, len(vertices) - 1), top + here, top + there])]
    return vertices, np.concatenate(faces, axis=1)


def _ball() -> tuple[Floats, Ints]:
    # An odd number of stacks: no ring in the middle, so that a capsule's halves can be pulled apart.
    angles = np.pi * (np.arange(1, _STACKS + 1) / (_STACKS + 1) - 0.5)
    return _rings(np.sin(angles).tolist(), np.cos(angles).tolist())


def _box() -> tuple[Floats, Ints]:
    corners = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corners, np.array([triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))]).T


def _plane() -> tuple[Floats, Ints]:
    corners = np.array([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
    return corners, np.array([[0, 1, 2], [0, 2, 3]]).T


def _template(vertices: Floats, faces: Ints) -> tuple[Floats, Ints, Floats]:
    return vertices, faces, np.sign(vertices[:, 2])


_TEMPLATES = {
    int(mujoco.mjtGeom.mjGEOM_PLANE): _template(*_plane()),
    int(mujoco.mjtGeom.mjGEOM_SPHERE): _template(*_ball()),
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): _template(*_ball()),
    int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): _template(*_ball()),
    int(mujoco.mjtGeom.mjGEOM_CYLINDER): _template(*_rings((-1.0, 1.0), (1.0, 1.0))),
    int(mujoco.mjtGeom.mjGEOM_BOX): _template(*_box()),
}
