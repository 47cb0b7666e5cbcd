"""The desk as a natively batched Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from envs.desk.choices import check_choice
from envs.desk.episodes import DeskOptions, Episodes, Observation, Outcome
from envs.desk.pictures import RENDER_SIZE, Painter


class DeskVectorEnv(VectorEnv):
    """`num_envs` desks stepped together; autoreset mode SAME_STEP.

    `task` is one name, several (drawn per episode) or a group of `envs.desk.tasks.GROUPS`. `options` are the
    fields of `DeskOptions`. Observations are `{"observation": [N, D], "desired_goal": [N, G]}` float32, or
    with `obs="rgb+language"` and the like images of the cameras and the instruction (see
    `envs.desk.sensing`); actions are `[N, 7]` in [-1, 1] (see `envs.desk.control.joint_targets`). By
    default an episode terminates on success and is truncated after 60 steps of 0.1 s. `infos` always hold
    `is_success`, `instruction`, `task`, `color` and `reward_terms` (unscaled; those of the reward just
    returned), and `final_obs`, `final_info`, `error` where an episode ended so.

    Simulation i is seeded with `seed + i`, or with `seed[i]`. An episode is a function of its seed, its
    number since that seed, and its actions: thread count, `num_envs` and i change no bit of it.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        task: str | Sequence[str] = "lift_block",
        *,
        num_threads: int | None = None,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if render_mode is not None:
            check_choice("render_mode", render_mode, ("rgb_array",))
        self.episodes = Episodes(num_envs, task, DeskOptions.of(**options), num_threads)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.single_observation_space = self.episodes.observation_space
        self.single_action_space = self.episodes.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.before_reset: dict[int, Callable[[], None]] = {}  # called in the state that an episode ends in
        self._painter = Painter(self.episodes.options.gl, textures=self.episodes.options.textures)
        self._seeded = False
        self._everyone = np.ones(num_envs, np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin new episodes, in all simulations or where `options["reset_mask"]` (`[N]` bool) says."""
        mask = np.asarray((options or {}).get("reset_mask", self._everyone))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f"reset_mask={mask}: expected {self.num_envs} booleans, at least one of them True"
            )
        self._set_seeds(seed)
        obs = self.episodes.begin(np.flatnonzero(mask))
        return _copy(obs), self._infos(self.episodes.success(np.arange(self.num_envs)))

    def _set_seeds(self, seed: int | Sequence[int | None] | None) -> None:
        if seed is None and self._seeded:
            return
        seeds: list[int | None]
        if seed is None:
            seeds = self.np_random.integers(2**31, size=self.num_envs).tolist()
        elif isinstance(seed, (int, np.integer)):
            seeds = [int(seed) + i for i in range(self.num_envs)]
        else:
            listed = isinstance(seed, (list, tuple)) or (isinstance(seed, np.ndarray) and seed.ndim == 1)
            seeds = list(seed) if listed else []
        sound = (s is None or (isinstance(s, (int, np.integer)) and 0 <= s < 2**63) for s in seeds)
        if len(seeds) != self.num_envs or not all(sound):
            raise ValueError(f"seed={seed}: expected an integer >= 0 in 63 bits, or {self.num_envs} of them")
        ids = np.array([i for i, s in enumerate(seeds) if s is not None], np.int64)
        self.episodes.seed(ids, [s for s in seeds if s is not None])
        self._seeded = True

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Apply `[N, 7]` actions; finished simulations begin their next episode within the same call."""
        outcome = self.episodes.step(actions)
        ended = outcome.terminated | outcome.truncated
        if not ended.any():
            infos = self._infos(outcome.success) | {"reward_terms": outcome.terms}
            return _copy(outcome.obs), outcome.reward, outcome.terminated, outcome.truncated, infos
        final = self._final(outcome, ended)
        for call in [call for index, call in self.before_reset.items() if ended[index]]:
            call()
        ids, success = np.flatnonzero(ended), outcome.success.copy()
        obs = self.episodes.begin(ids)
        success[ids] = self.episodes.success(ids)
        infos = self._infos(success)
        infos |= {"reward_terms": outcome.terms, **final}
        return _copy(obs), outcome.reward, outcome.terminated, outcome.truncated, infos

    def _infos(self, success: NDArray[np.bool_]) -> dict[str, Any]:
        sim = self.episodes.sim
        values = {
            "is_success": success,
            "instruction": sim.instructions.copy(),
            "task": np.array([task.name for task in sim.tasks], dtype=object)[sim.task],
            "color": sim.color_names(),
        }
        parameters = self.episodes.parameters
        if parameters.changed:
            values["parameters"] = np.array([parameters.row(i) for i in range(self.num_envs)], dtype=object)
        # Gymnasium pairs every key with the mask of the simulations it holds for.
        return values | {f"_{key}": self._everyone.copy() for key in values}

    def set_parameters(self, values: Mapping[str, ArrayLike], mask: ArrayLike | None = None) -> None:
        """Change what may differ between simulations, `{name: [N] or one number}`, where `mask` `[N]` is set.

        `envs.desk.parameters` has the list; `infos["parameters"]` reports the values from then on. Raises
        ValueError for an unknown name and for values out of bounds.
        """
        self.episodes.set_parameters(values, mask)

    def _final(self, outcome: Outcome, ended: NDArray[np.bool_]) -> dict[str, Any]:
        """Last observation and infos of the episodes that ended, in the form of Gymnasium's SyncVectorEnv."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            final_obs[i] = {key: copy(value[i]) for key, value in outcome.obs.items()}
        info = self._infos(outcome.success & ended)
        info = {key: ended.copy() if key.startswith("_") else value for key, value in info.items()}
        result = {
            "final_obs": final_obs,
            "_final_obs": ended,
            "final_info": info,
            "_final_info": ended.copy(),
        }
        if outcome.errors:
            error = np.full(self.num_envs, None, dtype=object)
            mask = np.zeros(self.num_envs, np.bool_)
            for failed, text in outcome.errors.items():
                error[failed], mask[failed] = text, True
            info |= {"error": error, "_error": mask}
            result |= {"error": error, "_error": mask}
        return result

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """One image `[304, 400, 3]` of each desk from the static camera."""
        batch, model = self.episodes.sim.batch, self.episodes.model
        return tuple(
            self._painter.draw(model(i), batch.get_data(i), RENDER_SIZE) for i in range(self.num_envs)
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Free what OpenGL holds."""
        self._painter.close()


def _copy(obs: Observation) -> Observation:
    """What the caller gets; the environment keeps its own for the case that the next step fails."""
    return {key: value.copy() for key, value in obs.items()}
