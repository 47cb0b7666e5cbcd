"""The desk as a single Gymnasium environment: the vector environment's code with one simulation."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from envs.desk.choices import check_choice
from envs.desk.episodes import DeskOptions, Episodes, Observation
from envs.desk.pictures import RENDER_SIZE, Painter


class DeskEnv(gym.Env):
    """One desk; arguments, observation, action and episode end are those of `DeskVectorEnv`.

    `info` holds `is_success`, `instruction`, `task`, `color`, after a step `reward_terms`, and `error` if the
    episode ended by a fault.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        task: str | list[str] | tuple[str, ...] = "lift_block",
        *,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        self.episodes = Episodes(1, task, DeskOptions.of(**options), num_threads=1)
        self.observation_space = self.episodes.observation_space
        self.action_space = self.episodes.action_space
        self.render_mode = render_mode
        self._painter = Painter(self.episodes.options.gl, textures=self.episodes.options.textures)
        self._seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode: the first of `seed`, or the next one."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self.episodes.seed(np.array([0]), [seed])
            self._seeded = True
        obs = self.episodes.begin(np.array([0]))
        return _first(obs), self._info(bool(self.episodes.success(np.array([0]))[0]))

    def step(self, action: NDArray[Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply an action `[7]` for 0.1 s."""
        outcome = self.episodes.step(np.asarray(action)[None])
        info = self._info(bool(outcome.success[0]))
        info["reward_terms"] = {name: float(value[0]) for name, value in outcome.terms.items()}
        if outcome.errors:
            info["error"] = outcome.errors[0]
        terminated, truncated = bool(outcome.terminated[0]), bool(outcome.truncated[0])
        return _first(outcome.obs), float(outcome.reward[0]), terminated, truncated, info

    def _info(self, success: bool) -> dict[str, Any]:
        sim = self.episodes.sim
        parameters = self.episodes.parameters
        more = {"parameters": parameters.row(0)} if parameters.changed else {}
        return more | {
            "is_success": success,
            "instruction": sim.instructions[0],
            "task": sim.tasks[sim.task[0]].name,
            "color": sim.color_names()[0],
        }

    def set_parameters(self, values: Mapping[str, float]) -> None:
        """Change parameters of the simulation; see `DeskVectorEnv.set_parameters`."""
        self.episodes.set_parameters(values)

    def render(self) -> NDArray[np.uint8] | None:
        """The desk from the static camera, `[304, 400, 3]`; None without `render_mode="rgb_array"`."""
        if self.render_mode is None:
            return None
        data, model = self.episodes.sim.batch.get_data(0), self.episodes.model(0)
        return self._painter.draw(model, data, RENDER_SIZE)

    def close(self) -> None:
        """Free what OpenGL holds."""
        self._painter.close()


def _first(obs: Observation) -> dict[str, Any]:
    return {key: copy(value[0]) for key, value in obs.items()}
