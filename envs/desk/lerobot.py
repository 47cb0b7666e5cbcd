"""The desk under the names that LeRobot expects of environments (version 0.6, `lerobot/envs`).

Its `preprocess_observation` turns `pixels` into `observation.images.<camera>` and `agent_pos` into
`observation.state`, the names that `embodied_rl.data.lerobot` gives to recordings with `obs="rgb"`; its
policies are told `task_description`. LeRobot itself is not needed here. `make_env` is the function that it
looks for in the `env.py` of an environment hub: `from envs.desk.lerobot import make_env`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from envs.desk.env import DeskEnv


class LeRobotDesk(gym.Wrapper):
    """`DeskEnv` with `{"pixels": {camera: [H, W, 3]}, "agent_pos": [22]}` as observation.

    `agent_pos` is the robot's own part of the state (joints, hand, gripper), without any object. Further
    arguments are those of `DeskEnv`, but for `obs` and `render_mode`.
    """

    def __init__(self, task: Any = "calvin", *, image_size: Any = 256, **options: Any) -> None:
        env = DeskEnv(task, obs="rgb", image_size=image_size, render_mode="rgb_array", **options)
        super().__init__(env)
        fields = env.episodes.observation_space.spaces
        cameras = {key.removeprefix("rgb_"): space for key, space in fields.items() if key.startswith("rgb_")}
        self._cameras = tuple(cameras)
        self.observation_space = spaces.Dict(
            {"pixels": spaces.Dict(cameras), "agent_pos": fields["proprioception"]}
        )
        self._max_episode_steps = env.episodes.options.max_episode_steps
        self.task, self.task_description = "", ""  # of the present episode: its name, its instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        self.task, self.task_description = info["task"], info["instruction"]
        return self._renamed(obs), info

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply an action `[7]` for 0.1 s."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._renamed(obs), float(reward), terminated, truncated, info

    def _renamed(self, obs: dict[str, Any]) -> dict[str, Any]:
        pixels = {camera: obs[f"rgb_{camera}"] for camera in self._cameras}
        return {"pixels": pixels, "agent_pos": obs["proprioception"]}


def make_env(
    n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None, **options: Any
) -> dict[str, dict[int, VectorEnv]]:
    """Make what LeRobot's evaluation runs, `{suite: {number: environments}}`, with autoreset SAME_STEP.

    `options` are those of `LeRobotDesk`; LeRobot's own `cfg` is not read.
    """
    kind = AsyncVectorEnv if use_async_envs else SyncVectorEnv
    factories = [partial(LeRobotDesk, **options)] * n_envs
    return {"desk": {0: kind(factories, autoreset_mode=AutoresetMode.SAME_STEP)}}
