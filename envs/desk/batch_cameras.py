"""Cameras of many simulations at once: colour, depth and segmentation on threads, without OpenGL.

The picture is that of `envs.desk.cameras.render`, some ten times as fast: `envs.desk.scanline` finds what all
pixels of several images see, and their light is computed in one go. Only round shapes differ, which are
polyhedra here, and the edges of shadows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from envs.desk import shading
from envs.desk.backgrounds import Background, is_still
from envs.desk.cameras import Quality, check_size, find_camera, geom_colors, sky, thread_pool
from envs.desk.scanline import Surfaces
from envs.desk.shapes import Shapes, shapes_of
from envs.desk.textures import Textures

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_AT_ONCE = 2**17  # pixels of images that are worked on together: more would leave the processor's cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Images of one camera in `n` simulations, `H` rows of `W` pixels."""

    rgb: NDArray[np.uint8]  # [n, H, W, 3]
    depth: NDArray[np.float32]  # [n, H, W] metres along the optical axis; inf where nothing was hit
    segmentation: NDArray[np.int32]  # [n, H, W] geom id, -1 where nothing was hit


class BatchCameras:
    """Draws the simulations of a `mujoco.batch.Batch` as they are after its last call.

    Colours, materials, lights and camera poses are those of each simulation. Raises ValueError for geoms that
    are neither primitive shapes nor meshes, and for textures that `Textures` cannot draw.
    """

    def __init__(self, batch: Batch, *, quality: Quality, num_threads: int) -> None:
        self._batch, self._model = batch, batch.model
        self._pool, self._num_threads = thread_pool(num_threads), num_threads
        self._geoms = np.flatnonzero(np.isin(batch.model.geom_group, quality.groups))
        still = is_still(batch.model)[batch.model.geom_bodyid[self._geoms]]
        self._still = np.flatnonzero(still)
        fixed, moving = self._shapes(self._geoms[still]), self._shapes(self._geoms[~still])
        self._surfaces = Surfaces([*fixed, *moving])
        self._layers = (Surfaces(moving), Surfaces(fixed)) if fixed and moving else None
        self._backgrounds: dict[tuple[int, int, int], Background] = {}  # by camera, height and width
        self._shadows = self._surfaces if quality.shadows else None
        self._textures = Textures(batch.model, self._geoms) if quality.textures else None
        self._lights = np.flatnonzero(batch.model.light_active)
        self._bound = {
            name: batch.bind(name)
            for name in ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")
        }

    def _shapes(self, geoms: Ints) -> list[Shapes]:
        """Surfaces of some geoms, which they number as this class does."""
        shapes = shapes_of(self._model, geoms)
        return [replace(shape, geoms=np.searchsorted(self._geoms, shape.geoms)) for shape in shapes]

    def draw(self, camera: str | int, height: int, width: int, sims: Ints | None = None) -> Images:
        """Images of the simulations `sims`, or of all.

        Raises ValueError for an unknown camera and for sizes below 1.
        """
        check_size(width, height)
        number = find_camera(self._model, camera)
        if sims is None:
            sims = np.arange(self._batch.nsim)
        background = self._background(number, height, width)
        at_once = max(1, min(_AT_ONCE // (height * width), -(-len(sims) // self._num_threads)))
        parts = [sims[first : first + at_once] for first in range(0, len(sims), at_once)]
        images = list(self._pool.map(lambda part: self._draw(number, height, width, part, background), parts))
        return Images(
            rgb=np.concatenate([part.rgb for part in images]),
            depth=np.concatenate([part.depth for part in images]),
            segmentation=np.concatenate([part.segmentation for part in images]),
        )

    def _background(self, camera: int, height: int, width: int) -> Background | None:
        """What is kept of the camera's images; None for one that moves."""
        model, key = self._model, (camera, height, width)
        fixed = model.cam_mode[camera] == mujoco.mjtCamLight.mjCAMLIGHT_FIXED.value
        if not (self._layers and fixed and is_still(model)[model.cam_bodyid[camera]]):
            return None
        if key not in self._backgrounds:
            self._backgrounds[key] = Background(*self._layers, self._still, self._batch.nsim)
        return self._backgrounds[key]

    def _draw(
        self, camera: int, height: int, width: int, sims: Ints, background: Background | None
    ) -> Images:
        eyes = shading.Eyes(
            pos=self._bound["cam_xpos"][sims, camera],
            axes=self._bound["cam_xmat"][sims, camera].reshape(-1, 3, 3),
            pixel=2 * np.tan(np.radians(self._field("cam_fovy", sims)[:, camera]) / 2) / height,
            height=height,
            width=width,
        )
        things = self._things(sims)
        views = shading.views(eyes, things)
        hits = background.cast(views, sims) if background else self._surfaces.cast(views)
        nothing = hits.inverse_depth == 0
        with np.errstate(divide="ignore"):
            depth = np.float32(1) / hits.inverse_depth
        segmentation = self._geoms.astype(np.int32)[hits.geom].take(hits.triangle)
        segmentation[nothing] = -1
        # A finite depth for what is not there, so that nothing invalid is computed on the way.
        color = shading.shade(eyes, things, hits, np.where(nothing, np.float32(1), depth), self._shadows)
        image, row, column = np.nonzero(nothing)
        color[nothing] = sky(eyes.upwards(image, row, column))
        return Images(
            rgb=(color * 255 + np.float32(0.5)).astype(np.uint8), depth=depth, segmentation=segmentation
        )

    def _field(self, name: str, sims: Ints) -> Floats:
        """A field of the model in the given simulations, `[n, ...]`."""
        own = self._batch.expanded(name)
        shared = getattr(self._model, name)
        values = own[sims] if own is not None else np.broadcast_to(shared, (len(sims), *shared.shape))
        return values.astype(np.float64)

    def _things(self, sims: Ints) -> shading.Things:
        model, lights, head = self._model, self._lights, self._model.vis.headlight
        ambient = head.ambient + self._field("light_ambient", sims)[:, lights].sum(axis=1, keepdims=True)
        first = np.broadcast_to(np.asarray(head.diffuse) * bool(head.active), (len(sims), 1, 3))
        own = self._field("light_diffuse", sims)[:, lights]
        return shading.Things(
            pos=self._bound["geom_xpos"][sims[:, None], self._geoms],
            rot=self._bound["geom_xmat"][sims[:, None], self._geoms].reshape(len(sims), -1, 3, 3),
            radius=model.geom_rbound[self._geoms],
            colors=geom_colors(model, self._field("geom_rgba", sims))[:, self._geoms],
            materials=self._field("geom_matid", sims)[:, self._geoms].astype(np.int64),
            textures=self._textures,
            light_pos=self._bound["light_xpos"][sims[:, None], lights],
            light_dir=self._bound["light_xdir"][sims[:, None], lights],
            directional=model.light_type[lights] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL.value,
            casting=model.light_castshadow[lights].astype(np.bool_),
            brightness=np.concatenate([ambient, first, own], axis=1),
        )
