"""Pictures of a desk for people: by rays with soft edges and shadows, or through OpenGL."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.desk.cameras import Quality, render
from envs.desk.opengl import GLRenderer
from envs.desk.scene import COARSE_GROUPS, FINE_GROUPS

RENDER_SIZE = (400, 304)  # width and height of `render()`, pixels
RENDER_QUALITY = Quality(samples=2, groups=FINE_GROUPS, shadows=COARSE_GROUPS)


class Painter:
    """Draws the static camera's view of desks of one scene; `gl` is empty for rays, or `egl`, `osmesa`."""

    def __init__(self, gl: str, *, textures: bool = False) -> None:
        self._gl, self._textures = gl, textures
        self._renderers: dict[tuple[int, int], GLRenderer] = {}

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Image `[H, W, 3]` of `size` (width, height)."""
        if not self._gl:
            quality = replace(RENDER_QUALITY, textures=self._textures)
            return render(model, data, "static", *size, quality=quality).rgb
        if size not in self._renderers:
            self._renderers[size] = GLRenderer(
                model, *size, gl=self._gl, groups=FINE_GROUPS, textures=self._textures
            )
        return self._renderers[size].rgb(data, "static", model)

    def close(self) -> None:
        """Free what OpenGL holds."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
