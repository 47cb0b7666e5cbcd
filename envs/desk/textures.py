"""Textures of MuJoCo materials where rays hit, mapped onto geoms as MuJoCo's own renderer does.

A 2d texture lies on each face of a box, on a plane from corner to corner, on a mesh along its z axis from its
middle. It repeats `texrepeat` times over the geom, with `texuniform` so many times over two metres. A cube
texture is looked up in the direction from the geom's middle, in which the geom is stretched to a cube unless
`texuniform` is set. A pixel gets the one texel that its centre hits: there is no filter, and patterns finer
than pixels flicker.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Singles = NDArray[np.float32]

_RGB = mujoco.mjtTextureRole.mjTEXROLE_RGB.value
_CUBE = mujoco.mjtTexture.mjTEXTURE_CUBE.value
_MESH = mujoco.mjtGeom.mjGEOM_MESH.value
_BOX = mujoco.mjtGeom.mjGEOM_BOX.value
_FLAT = (mujoco.mjtGeom.mjGEOM_PLANE.value, _BOX, _MESH)
_SPHERE = mujoco.mjtGeom.mjGEOM_SPHERE.value
_CYLINDER = mujoco.mjtGeom.mjGEOM_CYLINDER.value
_CAPSULE = mujoco.mjtGeom.mjGEOM_CAPSULE.value
# Of the faces +x, -x, +y, -y, +z, -z: signs of the two axes below, from OpenGL's table of cube maps.
_RIGHT = np.array([-1, 1, 1, 1, 1, -1])
_DOWN = np.array([-1, -1, 1, -1, -1, -1])
_ACROSS = np.array([[2, 1], [0, 2], [0, 1]])  # axes to the right and down, where x, y, z is the greatest


class Textures:
    """Textures of a model, for those of its geoms that are drawn.

    Raises ValueError for textures that it does not know how to lay on a geom: any on a capsule or on a mesh
    with texture coordinates of its own, a 2d one on other round shapes.
    """

    def __init__(self, model: mujoco.MjModel, geoms: Ints) -> None:
        self._model, self._texture = model, model.mat_texid[:, _RGB].astype(np.int64)
        self._kind, size = model.geom_type[geoms], model.geom_size[geoms].copy()
        size[self._kind == _SPHERE, 1:] = size[self._kind == _SPHERE, :1]
        size[self._kind == _CYLINDER, 1:] = size[self._kind == _CYLINDER, :2]
        size[size == 0] = 1.0  # planes without end count as two metres
        self._size = size
        images = [np.zeros((0, 3), np.uint8), *(_texels(model, texture) for texture in range(model.ntex))]
        self._texels = np.concatenate(images).astype(np.float32) / np.float32(255)
        self._first = np.cumsum([len(image) for image in images])
        for geom in geoms[self.on(model.geom_matid[geoms].astype(np.int64))]:
            self._check(int(geom))

    def _check(self, geom: int) -> None:
        model, kind = self._model, self._model.geom_type[geom]
        shape = mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower()
        known = kind in _FLAT or model.tex_type[self._texture[model.geom_matid[geom]]] == _CUBE
        if kind == _MESH and model.mesh_texcoordnum[model.geom_dataid[geom]]:
            known, shape = False, "mesh with texture coordinates"
        if kind == _CAPSULE or not known:
            raise ValueError(f"geom {model.geom(geom).name!r}: cameras cannot draw its texture on a {shape}")

    def on(self, material: Ints) -> NDArray[np.bool_]:
        """Whether materials, -1 for none, have a texture."""
        textured = np.append(self._texture >= 0, [False])  # what -1 finds
        result: NDArray[np.bool_] = textured[material]
        return result

    def colors(self, geom: Ints, material: Ints, point: Floats) -> Singles:
        """What multiplies the colour, `[P, 3]` in [0, 1], at points `[3, P]` in the frames of the geoms.

        `geom` `[P]` counts those given, `material` `[P]` has textures.
        """
        model, texture = self._model, self._texture[material]
        width, height = model.tex_width[texture], model.tex_height[texture]
        cube, kind = model.tex_type[texture] == _CUBE, self._kind[geom]
        uniform, size = model.mat_texuniform[material], self._size[geom].T
        whole = point / size
        repeat = model.mat_texrepeat[material].T * np.where(uniform, size[:2], 1.0)
        row, column = _on_face(whole, kind, repeat, width, height)
        if cube.any():
            # Meshes are drawn in metres, other shapes as unit ones; "uniform" multiplies by the size.
            place = np.where(kind == _MESH, point, whole) * np.where(uniform, size, 1.0)
            row[cube], column[cube] = _on_cube(place[:, cube], width[cube], (height > width)[cube])
        texels: Singles = self._texels.take(self._first[texture] + row * width + column, axis=0)
        return texels


def _texels(model: mujoco.MjModel, texture: int) -> NDArray[np.uint8]:
    """Colours `[H * W, 3]` of a texture, row by row."""
    channels, first = model.tex_nchannel[texture], model.tex_adr[texture]
    num = model.tex_height[texture] * model.tex_width[texture] * channels
    # A texture of one channel is grey; the fourth is how transparent it is, which rays do not see.
    texels: NDArray[np.uint8] = model.tex_data[first : first + num].reshape(-1, channels)
    return texels[:, np.minimum(np.arange(3), channels - 1)]


def _texel(place: Floats, size: Ints) -> Ints:
    """Number of the texel at a place in [0, 1)."""
    return np.minimum((place * size).astype(np.int64), size - 1)


def _on_face(place: Floats, kind: Ints, repeat: Floats, width: Ints, height: Ints) -> tuple[Ints, Ints]:
    """Row and column of the texel at points `[3, P]` of geoms whose surface is within [-1, 1]."""
    axis = np.where(kind == _BOX, np.abs(place).argmax(axis=0), 2)
    right, up = np.where(axis == 0, place[1], place[0]), np.where(axis == 2, place[1], place[2])
    start = np.where(kind == _MESH, 1.0, repeat)
    u, v = (start[0] + repeat[0] * right) / 2, (start[1] - repeat[1] * up) / 2
    return _texel(v - np.floor(v), height), _texel(u - np.floor(u), width)


def _on_cube(direction: Floats, width: Ints, six: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Row and column of the texel in directions `[3, P]`; images of all `six` faces lie below each other."""
    rows = np.arange(direction.shape[1])
    axis = np.abs(direction).argmax(axis=0)
    along = direction[axis, rows]
    face = 2 * axis + (along < 0)
    right, down = _ACROSS[axis].T
    across = _RIGHT[face] * direction[right, rows] / np.abs(along)
    below = _DOWN[face] * direction[down, rows] / np.abs(along)
    row, column = _texel((below + 1) / 2, width), _texel((across + 1) / 2, width)
    return row + np.where(six, face * width, 0), column
