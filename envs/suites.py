"""One factory for every environment: Gymnasium MuJoCo, Adroit, Fetch, hands, kitchen, mazes and the desk.

What it adds to `gymnasium.make`: `info["is_success"]` (a bool, on every step and reset), SAME_STEP autoreset
in `make_vec`, near names for an unknown id, and repairs of known upstream defects:

* `AdroitHandDoor-v1`, `Hammer-v1` and `Relocate-v1` of gymnasium-robotics pay `+0.1 * ||palm - object||`, for
  moving away from the object; D4RL pays `-0.1`, and so does `-v2` (Gymnasium-Robotics pull request 220).
  `reward="fixed"` (default) restores the sign, `reward="upstream"` leaves it.
* gymnasium-robotics 1.4.2 on MuJoCo 4 fails an assertion in Fetch, hand and kitchen: `_repair_joint_types`.

Time limits are upstream's (`max_episode_steps=...` changes them): Gymnasium MuJoCo mostly 1000, Adroit 200
(300 replays the human door demonstrations, which are up to 300 steps long), Fetch 50, hands 50 to 100,
kitchen 280, AntMaze 700 to 1000, PointMaze 300 to 800. Mazes run on after success unless
`continuing_task=False`.
"""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

# Importing it prints a notice about the wrong Adroit rewards, which are repaired here.
with contextlib.redirect_stderr(io.StringIO()):
    import gymnasium_robotics
    from gymnasium_robotics.utils import mujoco_utils

DESK = "embodied/Desk-v0"
REWARDS = ("fixed", "upstream")

# Which key of upstream's info says that the task is done; environments that are not listed have no success.
SUCCESS_KEYS = {
    "AdroitHand": "success",
    "Fetch": "is_success",
    "Hand": "is_success",
    "FrankaKitchen": "episode_task_completions",
    "AntMaze": "success",
    "PointMaze": "success",
}

# Where the observation holds palm - object, in the environments that pay for it with the wrong sign.
PALM_TO_OBJECT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "AdroitHandDoor-v1": lambda obs: obs[35:38],
    "AdroitHandHammer-v1": lambda obs: obs[33:36] - obs[36:39],
    "AdroitHandRelocate-v1": lambda obs: obs[30:33],
}


def make(env_id: str, *, reward: str = "fixed", **kwargs: Any) -> gym.Env:
    """Make one environment whose infos carry `is_success`; `kwargs` go to its constructor.

    `metadata["suite"]` says what was changed: `reward`, `has_success` (False: `is_success` is always False
    because the task has no such notion), `repairs`. Raises a ValueError for an unknown id, reward or
    argument.
    """
    if reward not in REWARDS:
        raise ValueError(f"reward={reward!r}: must be one of {list(REWARDS)}")
    if env_id == DESK:
        from envs.desk.env import DeskEnv  # only the desk needs it

        env: gym.Env = DeskEnv(**kwargs)
        env.spec = _desk_spec(kwargs)
        return env
    check_id(env_id)
    robotics = str(gym.spec(env_id).entry_point).startswith("gymnasium_robotics")
    repairs = _repair_joint_types() if robotics else ()
    try:
        env = gym.make(env_id, disable_env_checker=True, **kwargs)
    except TypeError as error:
        raise ValueError(f"{env_id}: does not take {kwargs} ({error})") from error
    return SuiteEnv(env, reward=reward, repairs=repairs)


def make_vec(
    env_id: str,
    num_envs: int,
    *,
    threads: int | None = None,
    parallel: bool = False,
    wrap: Callable[[gym.Env], gym.Env] | None = None,
    **kwargs: Any,
) -> VectorEnv:
    """Make `num_envs` environments with SAME_STEP autoreset; further `kwargs` as for `make`.

    The desk steps all simulations on `threads` threads (None: every core). The other suites step one after
    another, or with `parallel` in one process each, and `wrap` is applied to each of them.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs}: must be at least 1")
    if env_id == DESK:
        from envs.desk.vector import DeskVectorEnv

        assert wrap is None, "the desk has no single environments to wrap"
        if parallel:
            raise ValueError(f"parallel=True: {DESK} is vectorised by itself; set threads instead")
        desk = DeskVectorEnv(num_envs, num_threads=threads, **kwargs)
        desk.spec = _desk_spec(kwargs)
        return desk
    if threads not in (None, 1):
        raise ValueError(f"threads={threads}: only {DESK} steps on threads; use parallel=True for {env_id}")
    factories = [partial(_make_wrapped, env_id, wrap, kwargs)] * num_envs
    env: VectorEnv
    if parallel:
        check_id(env_id)  # here, where the message is not wrapped in a worker's traceback
        env = AsyncVectorEnv(factories, autoreset_mode=AutoresetMode.SAME_STEP)
    else:
        env = SyncVectorEnv(factories, autoreset_mode=AutoresetMode.SAME_STEP)
    env.spec = env.get_attr("spec")[0]
    return env


def _make_wrapped(
    env_id: str, wrap: Callable[[gym.Env], gym.Env] | None, kwargs: Mapping[str, Any]
) -> gym.Env:
    env = make(env_id, **kwargs)
    return wrap(env) if wrap else env


def _desk_spec(kwargs: dict[str, Any]) -> gym.envs.registration.EnvSpec:
    """The desk counts its time limit itself, so `max_episode_steps` is an argument and no wrapper."""
    return gym.envs.registration.EnvSpec(
        DESK,
        entry_point="envs.desk.env:DeskEnv",
        kwargs=kwargs,
        disable_env_checker=True,
        order_enforce=False,
    )


def check_id(env_id: str) -> None:
    """Raise a ValueError with the nearest names if no environment has this id."""
    gym.register_envs(gymnasium_robotics)
    known = [DESK, *gym.registry]
    if env_id in known:
        return
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(env_id.lower(), by_lower, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(by_lower[name] for name in near)}?" if near else ""
    raise ValueError(f"env_id={env_id!r}: no such environment{hint}")


class SuiteEnv(gym.Wrapper):
    """Reports `is_success` uniformly and repairs the sign in Adroit's rewards; nothing else changes."""

    def __init__(self, env: gym.Env, *, reward: str, repairs: tuple[str, ...] = ()) -> None:
        super().__init__(env)
        assert env.spec is not None
        name = env.spec.id.rsplit("/", 1)[-1]
        self._success_key = next(
            (key for prefix, key in SUCCESS_KEYS.items() if name.startswith(prefix)), None
        )
        self._palm_to_object = PALM_TO_OBJECT.get(name) if reward == "fixed" else None
        if getattr(env.unwrapped, "sparse_reward", False):
            self._palm_to_object = None
        if self._palm_to_object:
            repairs = (*repairs, "reward: sign of the palm-to-object distance")
        self.metadata = {
            **env.metadata,
            "suite": {
                "reward": reward,
                "has_success": self._success_key is not None,
                "repairs": list(repairs),
                "max_episode_steps": env.spec.max_episode_steps,
            },
        }

    @property
    def spec(self) -> gym.envs.registration.EnvSpec | None:  # type: ignore[override]
        """What `gymnasium.make` can rebuild: the environment without this wrapper (see `metadata`)."""
        return self.env.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset; `info["is_success"]` is upstream's word on the start state, False where it has none."""
        obs, info = self.env.reset(seed=seed, options=options)
        return obs, {**info, "is_success": self._is_success(info)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; the reward is a float with the sign of the distance repaired."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        reward = float(reward)
        if self._palm_to_object:
            reward -= 0.2 * float(np.linalg.norm(self._palm_to_object(obs)))  # +0.1 becomes -0.1
        return obs, reward, bool(terminated), bool(truncated), {**info, "is_success": self._is_success(info)}

    def _is_success(self, info: Mapping[str, Any]) -> bool:
        if self._success_key is None or self._success_key not in info:
            return False
        value = info[self._success_key]
        if isinstance(value, list):  # the kitchen lists what was completed in this episode
            return len(value) == len(self.env.unwrapped.goal)  # type: ignore[attr-defined]
        return bool(value)


def _repair_joint_types() -> tuple[str, ...]:
    """Give `gymnasium_robotics.utils.mujoco_utils` integer joint types if it needs them; say what was done.

    It asserts `joint_type in (mjtJoint.mjJNT_HINGE, mjtJoint.mjJNT_SLIDE)` with a NumPy integer on the left.
    The `in` compares from the right, and in MuJoCo 4 an enum equals a Python int but not a NumPy one. Only
    the name `mujoco` inside that one module is replaced, by an object that forwards all else to the real
    package.
    """
    if np.int32(int(mujoco.mjtJoint.mjJNT_HINGE)) in (mujoco.mjtJoint.mjJNT_HINGE,):
        return ()
    if mujoco_utils.mujoco is mujoco:
        mujoco_utils.mujoco = _IntegerJointTypes()
    return ("mujoco_utils: joint types compared as integers",)


class _IntegerJointTypes:
    mjtJoint = SimpleNamespace(  # noqa: N815 (the name in MuJoCo)
        **{name: int(value) for name, value in mujoco.mjtJoint.__members__.items()}
    )

    def __getattr__(self, name: str) -> Any:
        return getattr(mujoco, name)
