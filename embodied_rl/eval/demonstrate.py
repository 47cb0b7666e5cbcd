"""One episode to look at: a smooth video, or live in MuJoCo's web viewer."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from gymnasium.vector import VectorEnv

from embodied_rl.eval.play import as_fields
from embodied_rl.eval.video import Mp4Writer, captioned
from embodied_rl.models.policy import Policy
from envs.desk.control import ACTION_DIM
from envs.desk.pictures import Painter
from envs.frames import DESK_FILM, with_camera

BETWEEN = 2  # frames per action: motion between two actions is interpolated, or 10 Hz would stutter
_POOL = ThreadPoolExecutor(BETWEEN)  # casting rays leaves Python free
_AFTER = 8  # actions of standing still at the end, so that one sees what was achieved


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """How the episode went."""

    success: bool
    steps: int  # actions until success, or all
    path: Path


def film(
    policy: Policy,
    env: VectorEnv,
    path: Path,
    *,
    seed: int,
    max_steps: int,
    caption: str = "",
    size: tuple[int, int] = (640, 448),
    viewer: Any = None,
) -> Shown:
    """Play one episode of a desk (`num_envs=1`, not ending on success) and write it as a video.

    A line below the picture, which has `size`, says `caption`, or else the episode's instruction, and when
    it was done. `viewer` is a handle from `web_viewer`, which then shows the same live.
    """
    obs, infos = env.reset(seed=seed)
    policy.reset(1)
    fps = env.metadata["render_fps"]
    writer = Mp4Writer(path, fps=fps * BETWEEN)
    raw: Any = env.unwrapped
    gl = raw.episodes.options.gl
    painter, frames = Painter(gl), map if gl else _POOL.map  # OpenGL belongs to one thread
    caption = caption or str(infos["instruction"][0])
    success, steps, still = bool(infos["is_success"][0]), 0, 0
    action, before = np.zeros((1, ACTION_DIM)), _state(env)
    model = with_camera(raw.episodes.model(0), DESK_FILM)  # in place of the static camera, its first
    while still < _AFTER and (success or steps < max_steps):
        start = time.perf_counter()
        if success:
            action = np.concatenate([np.zeros((1, 6)), action[:, 6:]], axis=1)  # the gripper stays as it is
            still += 1
        else:
            action = policy.act(as_fields(obs), True)
            steps += 1
        obs, _, _, _, infos = env.step(action)
        success = success or bool(infos["is_success"][0])
        after = _state(env)
        shares = [part / BETWEEN for part in range(1, BETWEEN + 1)]
        done = f"done in {steps / fps:.1f} s" if success else ""
        for frame in frames(partial(_frame, model, painter, before, after, size), shares):
            writer.add(captioned(frame, caption, done))
        before = after
        if viewer is not None:
            _show(viewer, env)
            time.sleep(max(0.0, 1 / fps - (time.perf_counter() - start)))
    writer.close()
    painter.close()
    return Shown(success=success, steps=steps, path=path)


def _state(env: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = env.unwrapped.episodes.sim.batch.get_data(0)
    return data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()


def _frame(
    model: mujoco.MjModel, painter: Painter, before: Any, after: Any, size: tuple[int, int], share: float
) -> np.ndarray:
    """Draw the state a share of the way from one to the other."""
    data = mujoco.MjData(model)
    # Quaternions are close to each other: interpolated as numbers, and made unit again by the kinematics.
    data.qpos[:] = before[0] + share * (after[0] - before[0])
    data.mocap_pos[:], data.mocap_quat[:] = after[1:]
    return painter.draw(model, data, size)


@contextmanager
def web_viewer(env: Any, port: int) -> Iterator[Any]:
    """Serve MuJoCo's web viewer on `port` (0: the first free one from 8080) while the block runs.

    It prints its address and needs no display. One at a time in a process. Raises ValueError where the
    installed MuJoCo lacks it or it cannot start.
    """
    try:
        with socket.socket() as probe:  # a port that is taken would end the viewer's own thread, and Python
            probe.bind(("localhost", port))
        from mujoco.studio import launch_web, viewer_protocol  # optional part of the mujoco package

        handle = launch_web.launch(viewer_protocol.ViewerConfig(gfx="web", title="desk", http_port=port))
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"viewer=true: MuJoCo's web viewer cannot start here ({error})") from error
    with handle:
        episodes = env.unwrapped.episodes
        handle.set_model(episodes.model(0), data=episodes.sim.batch.get_data(0))
        yield handle


def _show(viewer: Any, env: Any) -> None:
    episodes = env.unwrapped.episodes
    data = viewer.data
    episodes.sim.batch.get_data(0, data)
    mujoco.mj_forward(viewer.model, data)
    viewer.sync()


def keep_open(viewer: Any) -> None:
    """Leave the last state in the viewer until the user interrupts."""
    try:
        while viewer.is_running():
            viewer.sync()
            time.sleep(0.05)
    except KeyboardInterrupt:
        return
