"""Pictures by OpenGL, where a library for it is installed: smoother than rays, for videos.

The fast profile is used: no shadows, no reflections, one sample per pixel. As MuJoCo ships it, with shadow
maps of 4096 x 4096 and 4 samples, a software rasteriser takes ten times as long. Nothing else in the project
needs OpenGL.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.desk.cameras import check_size, find_camera
from envs.desk.choices import check_choice

BACKENDS = ("egl", "osmesa")
_PACKAGES = {"egl": "libegl1 and libgl1-mesa-dri", "osmesa": "libosmesa6"}  # of Debian and Ubuntu
_MAX_GEOMS = 10_000


class GLRenderer:
    """Draws a model's simulations in `width` x `height` pixels; use as a context manager, or `close` it.

    `gl` is `egl` or `osmesa`; a process can use only one of them. Raises ValueError for another name and
    RuntimeError where the library is missing or does not work, with what to install.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        width: int,
        height: int,
        *,
        gl: str = "egl",
        groups: Sequence[int] = (0, 1, 2),
        textures: bool = False,
    ) -> None:
        check_size(width, height)
        self._context = _context(gl, width, height)
        fast = copy.copy(model)
        fast.vis.quality.offsamples, fast.vis.quality.shadowsize = 0, 0
        fast.vis.global_.offwidth, fast.vis.global_.offheight = width, height
        self._size, self._model = (height, width), model
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = np.isin(np.arange(mujoco.mjNGROUP), groups)
        self._options.sitegroup[:] = False
        self._options.flags[mujoco.mjtVisFlag.mjVIS_TEXTURE] = textures
        self._gl = mujoco.MjrContext(fast, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._gl)

    def rgb(
        self, data: mujoco.MjData, camera: str | int, model: mujoco.MjModel | None = None
    ) -> NDArray[np.uint8]:
        """Colours `[H, W, 3]`; `model` is one with the same geoms whose colours, lights or cameras differ."""
        return self._draw(data, camera, model)

    def segmentation(
        self, data: mujoco.MjData, camera: str | int, model: mujoco.MjModel | None = None
    ) -> NDArray[np.int32]:
        """Geom ids `[H, W]`, -1 for nothing."""
        flags = [mujoco.mjtRndFlag.mjRND_SEGMENT.value, mujoco.mjtRndFlag.mjRND_IDCOLOR.value]
        self._scene.flags[flags] = True
        coded = self._draw(data, camera, model).astype(np.int32)
        self._scene.flags[flags] = False
        # Colours count the scene's geoms from 1.
        number = coded[..., 0] + 256 * coded[..., 1] + 65536 * coded[..., 2]
        geoms = np.full(self._scene.ngeom + 1, -1, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM.value:
                geoms[geom.segid + 1] = geom.objid
        return geoms[number]

    def _draw(
        self, data: mujoco.MjData, camera: str | int, model: mujoco.MjModel | None
    ) -> NDArray[np.uint8]:
        if self._gl is None:
            raise RuntimeError("this renderer has been closed")
        model = model or self._model
        view = mujoco.MjvCamera()
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, find_camera(model, camera)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._options, mujoco.MjvPerturb(), view, everything, self._scene)
        self._context.make_current()
        rect = mujoco.MjrRect(0, 0, self._size[1], self._size[0])
        mujoco.mjr_render(rect, self._scene, self._gl)
        pixels = np.empty((*self._size, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, rect, self._gl)
        return pixels[::-1]  # OpenGL counts rows from below

    def close(self) -> None:
        """Free what OpenGL holds."""
        if self._gl is not None:
            self._context.make_current()
            self._gl.free()
            self._context.free()
            self._gl = None

    def __enter__(self) -> GLRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _context(gl: str, width: int, height: int) -> Any:
    """A current context of MuJoCo's own class for this backend."""
    check_choice("gl", gl, BACKENDS)
    try:
        context = importlib.import_module(f"mujoco.{gl}").GLContext(width, height)
        context.make_current()
    # PyOpenGL fails on a missing library with whatever its first use of it raises.
    except (ImportError, AttributeError, OSError, RuntimeError, TypeError) as error:
        raise RuntimeError(
            f"gl={gl!r}: OpenGL cannot be used here ({error}); install a library for it ({_PACKAGES[gl]} on "
            f"Debian), or leave gl away: rays need none"
        ) from error
    return context
