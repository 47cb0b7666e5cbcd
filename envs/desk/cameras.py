"""Cameras by ray casting: colour, depth and segmentation of any MuJoCo model, without OpenGL or a display.

`mj_multiRay` finds for every pixel the geom, the distance and the surface normal. It releases the GIL, so
several can be cast on threads. Shading is Lambert's law per light plus the headlight; the same input
gives the same pixels on every machine. What OpenGL also does and this does not: reflections, highlights.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.desk.textures import Textures

_SKY_TOP, _SKY_BOTTOM = np.array([0.60, 0.71, 0.83]), np.array([0.92, 0.94, 0.96])
_EDGE_CONTRAST = 0.03  # difference in colour, of 1, between neighbours that makes an edge
_FAR = 50.0  # metres from which a directional light is cast
_SHADOW_BIAS = 2e-3  # metres a surface may lie behind the light's first hit and still count as lit


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """One camera image of `H` rows and `W` columns."""

    rgb: NDArray[np.uint8]  # [H, W, 3]
    depth: NDArray[np.float32]  # [H, W] metres along the optical axis; inf where nothing was hit
    segmentation: NDArray[np.int32]  # [H, W] geom id, -1 where nothing was hit


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """How much work goes into an image."""

    samples: int = 1  # rays per side of a pixel on an edge of the image, averaged in colour
    # Groups that cast shadows, one more ray per pixel and shadow-casting light. Only geoms of these groups
    # receive any: a detailed surface would lie in the shadow of the simple shape that stands in for it here.
    shadows: Sequence[int] = ()
    groups: Sequence[int] = (0, 1, 2)  # geom groups to draw; MuJoCo's own viewer draws these too
    textures: bool = False  # of materials; without them geoms have the plain colour that a texture multiplies

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples={self.samples}: must be at least 1")
        for name, groups in (("groups", self.groups), ("shadows", self.shadows)):
            if not set(groups) <= set(range(mujoco.mjNGROUP)):
                raise ValueError(f"{name}={groups}: expected numbers from 0 to {mujoco.mjNGROUP - 1}")


FAST = Quality()


def render(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    camera: str | int,
    width: int,
    height: int,
    *,
    quality: Quality = FAST,
) -> Image:
    """Cast one image; only the state of `data` is read, its kinematics are brought up to date.

    `camera` is the name or number of a camera of the model; an unknown one is a ValueError with the
    nearest names.
    """
    number = find_camera(model, camera)
    check_size(width, height)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    textures = Textures(model, np.arange(model.ngeom)) if quality.textures else None
    world = _World(model, data, _mask(quality.groups), _mask(quality.shadows), textures)
    origin, axes = data.cam_xpos[number].copy(), data.cam_xmat[number].reshape(3, 3).T
    fovy = float(model.cam_fovy[number])
    local = _pixel_rays(fovy, width, height)
    rays = local @ axes
    hits = world.cast(origin, rays)
    color = _shade(world, origin, rays, hits).reshape(height, width, 3)
    if quality.samples > 1:
        edges = _edges(color)
        rays = _subpixel_rays(fovy, edges, quality.samples) @ axes
        fine = _shade(world, origin, rays, world.cast(origin, rays))
        color[edges] = fine.reshape(-1, quality.samples**2, 3).mean(axis=1)
    depth = np.where(hits.geom >= 0, hits.distance * -local[:, 2], np.inf)
    return Image(
        rgb=(color * 255.0 + 0.5).astype(np.uint8),
        depth=depth.astype(np.float32).reshape(height, width),
        segmentation=hits.geom.reshape(height, width),
    )


def _mask(groups: Sequence[int]) -> NDArray[np.uint8]:
    return np.isin(np.arange(mujoco.mjNGROUP), groups).astype(np.uint8)


def _edges(color: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels `[H, W]` of an image `[H, W, 3]` that differ visibly from a neighbour."""
    edges = np.zeros(color.shape[:2], np.bool_)
    down = np.abs(color[1:] - color[:-1]).max(axis=2) > _EDGE_CONTRAST
    right = np.abs(color[:, 1:] - color[:, :-1]).max(axis=2) > _EDGE_CONTRAST
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges


def _subpixel_rays(fovy: float, pixels: NDArray[np.bool_], samples: int) -> NDArray[np.float64]:
    """Unit directions `[P*samples**2, 3]` through a grid inside each of the `P` chosen pixels `[H, W]`."""
    height, width = pixels.shape
    rays = _pixel_rays(fovy, width * samples, height * samples).reshape(height, samples, width, samples, 3)
    return rays.swapaxes(1, 2)[pixels].reshape(-1, 3)


def check_size(width: int, height: int) -> None:
    """Raise a ValueError for an image without pixels."""
    if min(width, height) < 1:
        raise ValueError(f"width={width}, height={height}: each must be at least 1")


@cache
def thread_pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads are kept: starting them anew for every call would cost as much as a small image."""
    if num_threads < 1:
        raise ValueError(f"num_threads={num_threads}: must be at least 1")
    return ThreadPoolExecutor(num_threads, thread_name_prefix="camera")


def find_camera(model: mujoco.MjModel, camera: str | int) -> int:
    """Number of a camera given by name or number; ValueError with the nearest names where there is none."""
    names = [model.camera(i).name for i in range(model.ncam)]
    if isinstance(camera, str) and camera in names:
        return names.index(camera)
    if not isinstance(camera, str) and 0 <= camera < model.ncam:
        return int(camera)
    near = difflib.get_close_matches(str(camera), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"camera={camera!r}: expected one of {names}{hint}")


@lru_cache(maxsize=16)
def _pixel_rays(fovy: float, width: int, height: int) -> NDArray[np.float64]:
    """Unit directions `[H*W, 3]` through the pixel centres, camera frame (x right, y up, -z forward)."""
    extent = np.tan(np.radians(fovy) / 2)
    rays = np.empty((height, width, 3))
    rays[..., 0] = (np.arange(width) + 0.5 - width / 2) * (2 * extent / height)
    rays[..., 1] = (height / 2 - np.arange(height) - 0.5)[:, None] * (2 * extent / height)
    rays[..., 2] = -1.0
    rays /= np.sqrt((rays**2).sum(axis=2, keepdims=True))
    rays.flags.writeable = False
    return rays.reshape(-1, 3)


@dataclass(frozen=True, slots=True)
class _Hits:
    """What `R` rays met first."""

    geom: NDArray[np.int32]  # [R], -1 for nothing
    distance: NDArray[np.float64]  # [R] metres
    normal: NDArray[np.float64]  # [R, 3]

    def take(self, rows: NDArray[np.int64]) -> _Hits:
        return _Hits(self.geom[rows], self.distance[rows], self.normal[rows])


@dataclass(frozen=True, slots=True)
class _World:
    """What rays are cast into."""

    model: mujoco.MjModel
    data: mujoco.MjData
    drawn: NDArray[np.uint8]  # [mjNGROUP] 1 for groups that are seen
    casting: NDArray[np.uint8]  # [mjNGROUP] 1 for groups that cast shadows
    textures: Textures | None

    def cast(
        self, origin: NDArray[np.float64], rays: NDArray[np.float64], groups: NDArray[np.uint8] | None = None
    ) -> _Hits:
        """Follow unit rays `[R, 3]` from one point through what is drawn, or through some other groups."""
        if groups is None:
            groups = self.drawn
        n = len(rays)
        geom, distance, normal = np.full(n, -1, np.int32), np.full(n, -1.0), np.zeros(3 * n)
        vectors = np.ascontiguousarray(rays).reshape(-1)
        mujoco.mj_multiRay(
            self.model,
            self.data,
            origin,
            vectors,
            groups,
            True,
            -1,
            geom,
            distance,
            normal,
            n,
            mujoco.mjMAXVAL,
        )
        return _Hits(geom, distance, normal.reshape(n, 3))


def _shade(
    world: _World, origin: NDArray[np.float64], rays: NDArray[np.float64], hits: _Hits
) -> NDArray[np.float64]:
    """Colours `[R, 3]` in [0, 1]: ambient light, headlight, the model's lights; sky beyond."""
    model = world.model
    color = sky(rays[:, 2])
    rows = np.flatnonzero(hits.geom >= 0)
    if not len(rows):
        return color
    seen, view = hits.take(rows), rays[rows]
    facing = -(seen.normal * view).sum(axis=1)
    # Mesh triangles wound the wrong way report the inner normal: light the side that is seen.
    normal = np.where(facing[:, None] < 0, -seen.normal, seen.normal)
    head = model.vis.headlight
    light = np.tile(np.asarray(head.ambient, np.float64), (len(rows), 1))
    if head.active:
        light += np.abs(facing)[:, None] * np.asarray(head.diffuse, np.float64)
    points = origin + seen.distance[:, None] * view
    receives = world.casting[model.geom_group[seen.geom]] > 0
    for index in np.flatnonzero(model.light_active):
        light += _light(world, int(index), points, normal, receives)
    surface = geom_colors(model, model.geom_rgba.astype(np.float64))[seen.geom, :3]
    if world.textures:
        _paint(world, world.textures, surface, points, seen.geom)
    color[rows] = np.clip(surface * light, 0.0, 1.0)
    return color


def _paint(
    world: _World,
    textures: Textures,
    color: NDArray[np.float64],
    points: NDArray[np.float64],
    geom: NDArray[np.int32],
) -> None:
    """Multiply the colours `[P, 3]` of points `[P, 3]` by the textures of the geoms `[P]` they are on."""
    material = world.model.geom_matid[geom].astype(np.int64)
    on = np.flatnonzero(textures.on(material))
    own = geom[on].astype(np.int64)
    offset = points[on] - world.data.geom_xpos[own]
    local = (offset[:, None] @ world.data.geom_xmat[own].reshape(-1, 3, 3))[:, 0].T
    color[on] *= textures.colors(own, material[on], local)


def _light(
    world: _World,
    index: int,
    points: NDArray[np.float64],
    normal: NDArray[np.float64],
    receives: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """What light `index` adds at the points `[P, 3]`: its colour by Lambert's law, and its ambient part.

    `receives` `[P]` says which points may lie in shadow.
    """
    model, data = world.model, world.data
    source = data.light_xpos[index]
    parallel = model.light_type[index] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    if parallel:
        # Parallel light from the light's own position would start in the middle of the scene: step far back.
        source = points.mean(axis=0) - _FAR * data.light_xdir[index]
    path = points - source
    length = np.sqrt((path**2).sum(axis=1, keepdims=True))
    path /= length
    diffuse = np.maximum(-(normal * (data.light_xdir[index] if parallel else path)).sum(axis=1), 0.0)
    rows = np.flatnonzero(receives & (diffuse > 0) & bool(model.light_castshadow[index]))
    if len(rows):
        # All rays share one origin: cast from the light and see whether the point is what it reaches first.
        reached = world.cast(np.ascontiguousarray(source), path[rows], world.casting).distance
        diffuse[rows[(reached >= 0) & (reached < length[rows, 0] - _SHADOW_BIAS)]] = 0.0
    ambient = np.asarray(model.light_ambient[index], np.float64)
    result: NDArray[np.float64] = (
        diffuse[:, None] * np.asarray(model.light_diffuse[index], np.float64) + ambient
    )
    return result


def sky(upwards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours `[R, 3]` in [0, 1] beyond everything, by the vertical component `[R]` of unit rays."""
    color: NDArray[np.float64] = _SKY_BOTTOM + (_SKY_TOP - _SKY_BOTTOM) * (upwards[:, None] * 0.5 + 0.5)
    return color


def geom_colors(model: mujoco.MjModel, rgba: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colour of every geom, `[..., ngeom, 4]`: its material's where it has one, like MuJoCo's own renderer.

    `rgba` is the model's `geom_rgba`, or those of several simulations.
    """
    # MuJoCo lets an explicitly set geom colour win over the material's; unset means the default grey.
    painted = (model.geom_matid >= 0) & (rgba == (0.5, 0.5, 0.5, 1.0)).all(axis=-1)
    colors = rgba.copy()
    colors[painted] = model.mat_rgba[np.broadcast_to(model.geom_matid, painted.shape)[painted]]
    return colors
