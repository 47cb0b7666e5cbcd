"""The desk's cameras against `mujoco.Renderer`: milliseconds per image, 64 simulations, two cameras.

Both draw the same triangles of the same simulations; kinematics are ready before either starts. The renderer
draws one simulation after another, as it ships (4096 x 4096 shadow maps, 4 samples) and in its fast profile
(neither). Needs an OpenGL library: `MUJOCO_GL=egl` or `osmesa`, egl if unset.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is imported

import mujoco  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.record import Row, compare, write  # noqa: E402
from envs.desk.batch_cameras import BatchCameras  # noqa: E402
from envs.desk.cameras import Quality, render  # noqa: E402
from envs.desk.scene import COARSE_GROUPS, DESK  # noqa: E402
from envs.desk.tasks import tasks_of  # noqa: E402
from envs.desk.vector import DeskVectorEnv  # noqa: E402

NUM_SIMS = 64
NUM_THREADS = 2
CAMERAS = ("static", "wrist")
SIZES = (64, 128, 224)


class Peer:
    """`mujoco.Renderer` on the geoms that the desk's cameras draw."""

    def __init__(self, model: mujoco.MjModel, size: int, *, fast: bool) -> None:
        model = copy.copy(model)
        if fast:
            model.vis.quality.offsamples, model.vis.quality.shadowsize = 0, 0
        self._renderer = mujoco.Renderer(model, size, size)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = np.isin(np.arange(mujoco.mjNGROUP), COARSE_GROUPS)
        self._option.flags[mujoco.mjtVisFlag.mjVIS_TEXTURE] = False  # like the desk's cameras unless told
        if fast:
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False

    def draw(self, datas: list[mujoco.MjData]) -> None:
        for camera in CAMERAS:
            for data in datas:
                self._renderer.update_scene(data, camera, self._option)
                self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def per_image(row: Row, ours: int, peer: int, target: float | None) -> Row:
    """The same comparison for one image each, of the numbers of images that the two sides drew."""
    row.ours, row.peer = row.ours / ours, row.peer / peer
    row.ratio *= ours / peer
    row.ratios = [round(ratio * ours / peer, 3) for ratio in row.ratios]
    row.target = target
    row.settings |= {"our_images_per_second": round(1e3 / row.ours)}
    row.settings |= {"peer_images_per_second": round(1e3 / row.peer, 1)}
    return row


def main() -> None:
    env = DeskVectorEnv(NUM_SIMS, tasks_of(DESK), num_threads=NUM_THREADS)
    env.reset(seed=0)
    batch = env.episodes.sim.batch
    cameras = BatchCameras(batch, quality=Quality(groups=COARSE_GROUPS), num_threads=NUM_THREADS)
    shadows = BatchCameras(
        batch, quality=Quality(groups=COARSE_GROUPS, shadows=COARSE_GROUPS), num_threads=NUM_THREADS
    )
    batch.forward(stage=mujoco.mjtStage.mjSTAGE_POS.value)
    datas = [batch.get_data(i) for i in range(NUM_SIMS)]
    for data in datas:
        mujoco.mj_forward(batch.model, data)

    def drawing(drawer: BatchCameras, size: int) -> Callable[[], object]:
        return lambda: [drawer.draw(camera, size, size) for camera in CAMERAS]

    rows = []
    for size in SIZES:
        for name, fast, sims, target in (("as shipped", False, 1, 10.0), ("fast profile", True, 8, 3.0)):
            peer = Peer(batch.model, size, fast=fast)
            row = compare(
                f"an image of {size}x{size} RGB, {NUM_SIMS} simulations, two cameras",
                drawing(cameras, size),
                lambda peer=peer, sims=sims: peer.draw(datas[:sims]),
                peer_name=f"mujoco.Renderer {name}",
                rounds=5,
                settings={"threads": NUM_THREADS, "gl": os.environ["MUJOCO_GL"]},
            )
            wanted = target if size == SIZES[0] else None
            rows.append(per_image(row, NUM_SIMS * len(CAMERAS), sims * len(CAMERAS), wanted))
            peer.close()
    plain, size = Quality(groups=COARSE_GROUPS), SIZES[0]
    for what, drawer, name, call in (
        ("an image", cameras, "envs.desk.cameras.render, a ray for each pixel", lambda: [
            render(batch.model, datas[0], camera, size, size, quality=plain) for camera in CAMERAS
        ]),
        ("an image with shadows", shadows, "the same with rays for shadows", lambda: [
            render(batch.model, datas[0], camera, size, size, quality=Quality(
                groups=COARSE_GROUPS, shadows=COARSE_GROUPS
            )) for camera in CAMERAS
        ]),
    ):  # fmt: skip
        row = compare(
            f"{what} of {size}x{size} RGB, {NUM_SIMS} simulations, two cameras",
            drawing(drawer, size), call, peer_name=name, rounds=5, settings={"threads": NUM_THREADS},
        )  # fmt: skip
        rows.append(per_image(row, NUM_SIMS * len(CAMERAS), len(CAMERAS), None))
    write("cameras", rows)


if __name__ == "__main__":
    main()
