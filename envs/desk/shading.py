"""Light on what `envs.desk.scanline` found, for several images at once.

Lambert's law per light plus the headlight, as in `envs.desk.cameras`. On a flat triangle the cosine towards a
light is the light's height above the triangle's plane over its distance, so that a pixel needs no normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.desk.scanline import Hits, Surfaces, Views
from envs.desk.textures import Textures

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Singles = NDArray[np.float32]

_SHADOW_DETAIL = 3  # rays from a light to the scene per pixel of an image, in each direction
_SHADOW_BIAS = 5e-3  # metres a surface may lie behind what a light reaches first and still count as lit
_FAR = 50.0  # metres from which parallel light is cast
_WIDEST = 1.4  # radians to each side that a light's rays spread at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Eyes:
    """Where `n` images are taken from."""

    pos: Floats  # [n, 3]
    axes: Floats  # [n, 3, 3] columns: right, up, backwards
    pixel: Floats  # [n] size of a pixel at one metre
    height: int
    width: int

    def rays(self) -> tuple[Singles, Singles]:
        """Rays (x, y, -1) through the pixels' centres in the eye's axes: x `[n, 1, W]` and y `[n, H, 1]`."""
        x = self.pixel[:, None] * (np.arange(self.width) + 0.5 - self.width / 2)
        y = self.pixel[:, None] * (self.height / 2 - np.arange(self.height) - 0.5)
        return x[:, None, :].astype(np.float32), y[:, :, None].astype(np.float32)

    def upwards(self, image: Ints, row: Ints, column: Ints) -> Floats:
        """Vertical component of the unit rays through some pixels."""
        x, y = self.rays()
        x, y, axes = x[image, 0, column], y[image, row, 0], self.axes[image, 2]
        return (axes[:, 0] * x + axes[:, 1] * y - axes[:, 2]) / np.sqrt(x * x + y * y + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Things:
    """What is looked at: `G` geoms and `L` lights in `n` simulations."""

    pos: Floats  # [n, G, 3]
    rot: Floats  # [n, G, 3, 3]
    radius: Floats  # [G] of bounding spheres, 0 for planes
    colors: Floats  # [n, G, 4]
    materials: Ints  # [n, G] -1 for none
    textures: Textures | None  # None: not drawn
    light_pos: Floats  # [n, L, 3]
    light_dir: Floats  # [n, L, 3]
    directional: NDArray[np.bool_]  # [L] whose rays are parallel
    casting: NDArray[np.bool_]  # [L] whose light things stand in
    brightness: Floats  # [n, 2 + L, 3] colours of the ambient light, the headlight and the lights


def views(eyes: Eyes, things: Things) -> Views:
    """What `Surfaces.cast` needs to know."""
    to_image = np.zeros((len(eyes.pos), 1, 3, 3))
    to_image[:, 0, 0, 0], to_image[:, 0, 1, 1] = 1 / eyes.pixel, -1 / eyes.pixel
    to_image[:, 0, :, 2] = 0.5 - eyes.width / 2, 0.5 - eyes.height / 2, -1.0
    to_eye = eyes.axes.transpose(0, 2, 1)[:, None]
    offset = (things.pos - eyes.pos[:, None])[..., None]
    center = to_eye @ offset
    flat, radius = things.radius == 0, things.radius
    seen = (things.colors[..., 3] > 0) & (flat | (center[..., 2, 0] < radius))
    for axis, size in ((0, eyes.width), (1, eyes.height)):
        extent = (eyes.pixel * size / 2)[:, None]
        beyond = np.abs(center[..., axis, 0]) + center[..., 2, 0] * extent
        seen &= flat | (beyond < radius * np.sqrt(1 + extent**2))
    return Views(
        height=eyes.height,
        width=eyes.width,
        matrix=(to_image @ to_eye) @ things.rot,
        origin=(to_image @ center)[..., 0],
        eye=-(things.rot.transpose(0, 1, 3, 2) @ offset)[..., 0],
        seen=seen,
    )


def shade(eyes: Eyes, things: Things, hits: Hits, depth: Singles, surfaces: Surfaces | None) -> Singles:
    """Colours `[n, H, W, 3]` in [0, 1] of what was hit at `depth`; `surfaces` cast shadows."""
    x, y = eyes.rays()
    along = x * x + y * y + 1  # squared length of a ray to a depth of one metre
    normal, offset = _planes(things, hits)
    num_lights = len(things.directional)
    amount = np.ones((*depth.shape, 2 + num_lights), np.float32)
    above = _dot(normal, eyes.pos.T.take(hits.image, axis=1)) - offset
    amount[..., 1] = above.astype(np.float32).take(hits.triangle) * hits.inverse_depth / np.sqrt(along)
    for light in range(num_lights):
        if things.directional[light]:
            above = -_dot(normal, things.light_dir[:, light].T.take(hits.image, axis=1))
        else:
            above = _dot(normal, things.light_pos[:, light].T.take(hits.image, axis=1)) - offset
        lit = np.maximum(above, 0.0).astype(np.float32).take(hits.triangle)
        if not things.directional[light]:
            to_light = (things.light_pos[:, light] - eyes.pos)[:, None] @ eyes.axes
            a, b, c = to_light.astype(np.float32).transpose(2, 0, 1)[..., None]
            lit /= np.sqrt(depth * (depth * along - 2 * (x * a + y * b - c)) + (a * a + b * b + c * c))
        if surfaces is not None and things.casting[light]:
            lit *= _lit(eyes, things, depth, surfaces, light)
        amount[..., 2 + light] = lit
    total = amount.reshape(len(depth), -1, 2 + num_lights) @ things.brightness.astype(np.float32)
    color = things.colors[hits.image, hits.geom, :3].astype(np.float32).take(hits.triangle, axis=0)
    if things.textures:
        _paint(color, eyes, things, things.textures, hits, depth)
    color *= total.reshape(color.shape)
    return np.minimum(color, 1, out=color)


def _paint(
    color: Singles, eyes: Eyes, things: Things, textures: Textures, hits: Hits, depth: Singles
) -> None:
    """Multiply the colours `[n, H, W, 3]` by the textures of what was hit at `depth`."""
    material = things.materials[hits.image, hits.geom]
    pixel = np.flatnonzero(textures.on(material).take(hits.triangle))
    triangle = hits.triangle.reshape(-1).take(pixel)
    x, y, away = (
        np.broadcast_to(part, depth.shape).reshape(-1).take(pixel) for part in (*eyes.rays(), depth)
    )
    x, y = x * away, y * away
    # From the eye's axes to the geom's, pixel by pixel: a point is depth * (x, y, -1).
    back = things.rot[hits.image, hits.geom].transpose(0, 2, 1)
    turn = (back @ eyes.axes[hits.image]).transpose(1, 2, 0)
    shift = eyes.pos[hits.image] - things.pos[hits.image, hits.geom]
    shift = (back @ shift[..., None])[..., 0].T
    point = np.stack([
        turn[i, 0].take(triangle) * x + turn[i, 1].take(triangle) * y - turn[i, 2].take(triangle) * away
        + shift[i].take(triangle) for i in range(3)
    ])  # fmt: skip
    painted = textures.colors(hits.geom.take(triangle), material.take(triangle), point)
    color.reshape(-1, 3)[pixel] *= painted


def _planes(things: Things, hits: Hits) -> tuple[Floats, Floats]:
    """Normals `[3, M]` in the world and distances of the planes from its origin along them `[M]`."""
    rot, (x, y, z) = things.rot[hits.image, hits.geom], hits.normal
    normal = np.stack([rot[:, axis, 0] * x + rot[:, axis, 1] * y + rot[:, axis, 2] * z for axis in range(3)])
    return normal, hits.offset + _dot(normal, things.pos[hits.image, hits.geom].T)


def _dot(a: Floats, b: Floats) -> Floats:
    """Scalar products of columns; written out, because a library's sum may depend on how many there are."""
    result: Floats = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return result


def _lit(eyes: Eyes, things: Things, depth: Singles, surfaces: Surfaces, light: int) -> NDArray[np.bool_]:
    """Which pixels `[n, H, W]` the light reaches: whether it sees their points first."""
    lamp = _lamp(eyes, things, light)
    hits = surfaces.cast(views(lamp, things))
    x, y = eyes.rays()
    # From one eye's axes to the other's, pixel by pixel: a point is depth * (x, y, -1).
    turn = lamp.axes.transpose(0, 2, 1) @ eyes.axes
    shift = (lamp.axes.transpose(0, 2, 1) @ (eyes.pos - lamp.pos)[..., None])[..., 0]
    a, b, c = (
        depth * (turn[:, i, 0, None, None] * x + turn[:, i, 1, None, None] * y - turn[:, i, 2, None, None])
        + shift[:, i, None, None]
        for i in range(3)
    )
    away = -c
    size = lamp.pixel[:, None, None] * away
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = a / size + (lamp.width / 2 - 0.5), (lamp.height / 2 - 0.5) - b / size
        inside = (away > 0) & (np.abs(a) < size * lamp.width / 2) & (np.abs(b) < size * lamp.height / 2)
    u, v = np.where(inside, u, 0.0), np.where(inside, v, 0.0)
    pixel = (np.arange(len(depth))[:, None, None] * lamp.height + np.rint(v).astype(np.int64)) * lamp.width
    pixel += np.rint(u).astype(np.int64)
    # How far the surface that the light meets is on the way to this very point, not to the pixel's centre.
    inverse = hits.inverse_depths.take(hits.triangle.reshape(-1).take(pixel), axis=1)
    nearer = inverse[0] * u + inverse[1] * v + inverse[2]
    met = hits.inverse_depth.reshape(-1).take(pixel) > 0
    return ~(inside & met & (nearer * (away - _SHADOW_BIAS) > 1))


def _lamp(eyes: Eyes, things: Things, light: int) -> Eyes:
    """The light as an eye that sees everything but planes."""
    solid = things.radius > 0
    low = (things.pos - things.radius[:, None])[:, solid].min(axis=1)
    high = (things.pos + things.radius[:, None])[:, solid].max(axis=1)
    middle, radius = (low + high) / 2, np.sqrt(((high - low) ** 2).sum(axis=1)) / 2
    if things.directional[light]:
        pos = middle - _FAR * things.light_dir[:, light]
    else:
        pos = things.light_pos[:, light]
    backwards = pos - middle
    away = np.sqrt((backwards**2).sum(axis=1))
    backwards = backwards / away[:, None]
    right = np.cross(np.where(np.abs(backwards[:, 2:]) < 0.9, [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]), backwards)
    right /= np.sqrt((right**2).sum(axis=1, keepdims=True))
    side = _SHADOW_DETAIL * max(eyes.height, eyes.width)
    spread = np.tan(np.minimum(np.arcsin(np.minimum(radius / away, 1.0)), _WIDEST))
    axes = np.stack([right, np.cross(backwards, right), backwards], axis=2)
    return Eyes(pos=pos, axes=axes, pixel=2 * spread / side, height=side, width=side)
