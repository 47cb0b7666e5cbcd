"""Patterns of the desk's top and of the floor, computed rather than read from files.

A texture multiplies a geom's colour, so that the colours of `envs.desk.parameters` keep their meaning.
Cameras show them with `textures=true`; the first material of each geom is the scene's own.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

_SIZE = 128  # texels to each side
_GRAIN = (0.75, 0.95, 1.15)  # dark wood is redder

# Geom: materials, the first of which it has; the metres after which each repeats itself.
MATERIALS = {
    "desk": {"wood": 0.5, "planks": 0.6, "cloth": 0.16},
    "floor": {"checker": 1.0, "tiles": 0.5, "boards": 1.2},
}


def add_materials(spec: mujoco.MjSpec) -> None:
    """Add all materials and give the desk and the floor theirs."""
    for geom, materials in MATERIALS.items():
        for name, period in materials.items():
            image = np.round(255 * np.clip(_PATTERNS[name](), 0.0, 1.0)).astype(np.uint8)
            texture = spec.add_texture(
                name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=_SIZE, height=_SIZE, nchannel=3
            )
            texture.data = image.tobytes()
            # MuJoCo takes a geom painted in this grey for one without colour, and gives it its material's.
            material = spec.add_material(
                name=name, rgba=[0.5, 0.5, 0.5, 1], texuniform=True, texrepeat=[2 / period] * 2
            )
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
        spec.geom(geom).material = next(iter(materials))


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of the texels in [0, 1), `[_SIZE, _SIZE]`: to the right and down."""
    down, right = np.mgrid[:_SIZE, :_SIZE] / _SIZE
    return right, down


def _tinted(darkness: NDArray[np.float64], tint: tuple[float, ...] = (1.0, 1.0, 1.0)) -> NDArray[np.float64]:
    """Colours `[_SIZE, _SIZE, 3]` as dark as `[_SIZE, _SIZE]` says, white where 0."""
    return 1.0 - darkness[..., None] * np.array(tint)


def _rings() -> NDArray[np.float64]:
    """The grain of a board cut along its fibres, which run to the right; in [0, 1]."""
    x, y = (2 * np.pi * part for part in _grid())
    bend = 1.3 * np.sin(x + 0.7 * np.sin(y)) + 0.5 * np.sin(2 * x + 3 * y)
    return 0.35 * (1 + np.sin(6 * y + bend)) + 0.15 * (1 + np.sin(17 * y + 2 * bend))


def _wood() -> NDArray[np.float64]:
    return _tinted(0.45 * _rings(), _GRAIN)


def _planks() -> NDArray[np.float64]:
    """Four boards of different shades with dark gaps between them."""
    _, y = _grid()
    shade = np.array([0.05, 0.30, 0.15, 0.40])[(4 * y).astype(np.int64)]
    gap = (4 * y) % 1 < 0.08
    return _tinted(np.where(gap, 0.7, shade + 0.15 * _rings()), _GRAIN)


def _boards() -> NDArray[np.float64]:
    return _planks().transpose(1, 0, 2)


def _cloth() -> NDArray[np.float64]:
    """A check: stripes both ways, dark where they cross."""
    x, y = _grid()
    return _tinted(0.35 * (x < 0.5) + 0.35 * (y < 0.5), (0.8, 1.0, 0.7))


def _checker() -> NDArray[np.float64]:
    x, y = _grid()
    return _tinted(0.3 * ((x < 0.5) == (y < 0.5)))


def _tiles() -> NDArray[np.float64]:
    """A light tile with a dark joint on two sides."""
    x, y = _grid()
    return _tinted(np.where((x < 0.06) | (y < 0.06), 0.5, 0.05 * (1 + np.sin(2 * np.pi * (x + y)))))


_PATTERNS = {
    "wood": _wood, "planks": _planks, "cloth": _cloth,
    "checker": _checker, "tiles": _tiles, "boards": _boards,
}  # fmt: skip
