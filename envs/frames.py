"""Pictures of any environment of `envs.suites` by ray casting: no OpenGL, no display."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from envs.desk.cameras import Quality, render
from envs.desk.pictures import RENDER_QUALITY


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A place to look from, as in MuJoCo's free camera: metres and degrees."""

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


# What shows the task where the model's first camera does not: another camera of the model, or a place.
VIEWS: dict[str, str | View] = {
    "Desk": "static",
    "AdroitHand": "vil_camera",
    "Fetch": "external_camera_0",
    "HandReach": View(lookat=(1.0, 0.96, 0.14), distance=0.5, azimuth=55.0, elevation=-25.0),  # upstream's
    "FrankaKitchen": View(lookat=(-0.2, 0.5, 2.0), distance=2.2, azimuth=70.0, elevation=-35.0),
    "AntMaze_UMaze": View(lookat=(0.0, 0.0, 0.0), distance=30.0, azimuth=90.0, elevation=-65.0),
    "AntMaze": View(lookat=(0.0, 0.0, 0.0), distance=55.0, azimuth=90.0, elevation=-65.0),
    "PointMaze_UMaze": View(lookat=(0.0, 0.0, 0.0), distance=7.0, azimuth=90.0, elevation=-80.0),
    "PointMaze": View(lookat=(0.0, 0.0, 0.0), distance=13.0, azimuth=90.0, elevation=-80.0),
}


# Desk and robot whole, and both lights seen from their bright side: for videos that are shown to people.
DESK_FILM = View(lookat=(0.42, 0.06, 0.20), distance=1.43, azimuth=119.0, elevation=-30.0)


def render_frame(
    env: gym.Env | VectorEnv,
    index: int = 0,
    *,
    width: int = 320,
    height: int = 240,
    camera: str | None = None,
) -> np.ndarray:
    """Draw the state of simulation `index` as `[height, width, 3]` uint8.

    `camera` names a camera of the model; None takes the environment's entry in `VIEWS`, else the model's
    first, and a model without any is shown whole. Raises a ValueError for an unknown camera, and where
    `check_drawable` does.
    """
    raw = _simulation(env, index)
    model, data = raw.model, raw.data
    assert env.spec is not None
    name = env.spec.id.rsplit("/", 1)[-1]
    view = camera or next((view for prefix, view in VIEWS.items() if name.startswith(prefix)), 0)
    if camera is None and _needs_more(model):
        view = view if isinstance(view, View) else _whole(model)
        model = _for_pictures(raw.fullpath)
        if _goal_site(model) >= 0:
            model = copy.copy(model)
            model.geom("goal").pos = raw.model.site_pos[_goal_site(raw.model)]
    if isinstance(view, View):
        model, view = with_camera(model, view), 0
    # On a copy: bringing the kinematics up to date in the simulation itself would change Fetch's next step,
    # which starts from the positions that the last one left behind.
    shown = mujoco.MjData(model)
    shown.qpos[:], shown.mocap_pos[:], shown.mocap_quat[:] = data.qpos, data.mocap_pos, data.mocap_quat
    quality = RENDER_QUALITY if name.startswith("Desk") else Quality(samples=2)
    return render(model, shown, view, width, height, quality=quality).rgb


def check_drawable(env: gym.Env | VectorEnv) -> None:
    """Raise a ValueError for environments without MuJoCo, and for those that run in other processes."""
    raw = _simulation(env, 0)
    if _needs_more(raw.model):
        _for_pictures(raw.fullpath)  # a maze's file is a temporary one, and may be gone


def before_reset(env: VectorEnv, index: int, call: Callable[[], None]) -> Callable[[], None]:
    """Call `call` before each reset of simulation `index`, also those within a step; returns what ends it.

    SAME_STEP autoreset leaves no other moment in which the state that an episode ended in can be drawn.
    """
    if isinstance(env, SyncVectorEnv):
        inner = env.envs[index]
        env.envs[index] = _BeforeReset(inner, call)
        return lambda: env.envs.__setitem__(index, inner)
    hooks: dict[int, Callable[[], None]] = env.unwrapped.before_reset  # type: ignore[attr-defined]
    hooks[index] = call
    return lambda: hooks.__delitem__(index)


class _BeforeReset(gym.Wrapper):
    def __init__(self, env: gym.Env, call: Callable[[], None]) -> None:
        super().__init__(env)
        self._call = call

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._call()
        return self.env.reset(**kwargs)


def _simulation(env: gym.Env | VectorEnv, index: int) -> Any:
    """The object that holds `model` and `data` of simulation `index`."""
    if isinstance(env, AsyncVectorEnv):
        raise ValueError(
            "parallel=True: the simulations live in other processes and cannot be drawn from here"
        )
    raw: Any = env.envs[index].unwrapped if isinstance(env, SyncVectorEnv) else env.unwrapped
    if hasattr(raw, "episodes"):  # the desk, single or vectorised
        return SimpleNamespace(model=raw.episodes.model(index), data=raw.episodes.sim.batch.get_data(index))
    for inner in ("point_env", "ant_env"):  # mazes keep their simulation one level down
        raw = getattr(raw, inner, raw)
    if not hasattr(raw, "model"):
        raise ValueError(f"{env.spec and env.spec.id}: is no MuJoCo environment and cannot be drawn")
    return raw


def _needs_more(model: mujoco.MjModel) -> bool:
    return model.ncam == 0 or _goal_site(model) >= 0


def _goal_site(model: mujoco.MjModel) -> int:
    """Index of the site that shows a maze's goal, -1 elsewhere."""
    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, "target")


@lru_cache(maxsize=4)
def _for_pictures(path: str) -> mujoco.MjModel:
    """Compile a model again with what a compiled one cannot get: a camera, and a geom for a maze's goal.

    Rays hit geoms only: PointMaze's ball is invisible under a site, and the goal of all mazes is a site.
    """
    spec = mujoco.MjSpec.from_file(path)
    spec.worldbody.add_camera()
    for geom in spec.geoms:
        geom.rgba[3] = geom.rgba[3] or 1.0
    goal = spec.site("target")
    if goal is not None:
        # Off the origin, or MuJoCo compiles it as fixed to the body's frame, not to be moved.
        pos, rgba = goal.pos + [0.0, 0.0, 1e-3], [*goal.rgba[:3], 1.0]
        spec.worldbody.add_geom(name="goal", type=goal.type, size=goal.size, pos=pos, rgba=rgba)
    return spec.compile()


def _whole(model: mujoco.MjModel) -> View:
    """What MuJoCo's viewer shows at first."""
    lookat = (float(model.stat.center[0]), float(model.stat.center[1]), float(model.stat.center[2]))
    return View(lookat=lookat, distance=1.5 * float(model.stat.extent), azimuth=90.0, elevation=-45.0)


def with_camera(model: mujoco.MjModel, view: View) -> mujoco.MjModel:
    """Return a copy of the model whose camera number 0 stands still at `view`."""
    model = copy.copy(model)
    azimuth, elevation = np.radians(view.azimuth), np.radians(view.elevation)
    forward = np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    axes = np.stack([right, np.cross(right, forward), -forward], axis=1)  # a camera looks along its -z
    model.cam_bodyid[0], model.cam_mode[0] = 0, mujoco.mjtCamLight.mjCAMLIGHT_FIXED
    model.cam_pos[0] = np.array(view.lookat) - view.distance * forward
    model.cam_fovy[0] = 45.0
    mujoco.mju_mat2Quat(model.cam_quat[0], axes.ravel())
    return model
