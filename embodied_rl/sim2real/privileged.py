"""What a simulator knows and no robot sees: the drawn parameters, as a field that a critic may read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from embodied_rl.data.types import as_fields

FIELD = "parameters"


class Privileged(VectorWrapper):
    """Adds the field `parameters` `[N, P]`, in their own units, to what a randomised environment observes."""

    def __init__(self, env: VectorEnv, names: Sequence[str]) -> None:
        super().__init__(env)
        self._names = tuple(names)
        self._values = np.zeros((env.num_envs, len(self._names)), np.float32)
        space, drawn = (
            env.single_observation_space,
            spaces.Box(-np.inf, np.inf, (len(self._names),), np.float32),
        )
        fields = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
        self.single_observation_space = spaces.Dict({**fields, FIELD: drawn})
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin episodes."""
        obs, infos = self.env.reset(seed=seed, options=options)
        self._note(infos)
        return self._with(obs), infos

    def step(self, actions: Any) -> Any:
        """Step; the last observation of an episode has the parameters of that episode."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            for row, last in enumerate(infos["final_obs"]):
                if last is not None:
                    infos["final_obs"][row] = {**as_fields(last), FIELD: self._values[row].copy()}
        self._note(infos)
        return self._with(obs), reward, terminated, truncated, infos

    def _with(self, obs: Any) -> dict[str, NDArray[Any]]:
        return {**as_fields(obs), FIELD: self._values.copy()}

    def _note(self, infos: Mapping[str, Any]) -> None:
        drawn = infos.get("parameters")
        if isinstance(drawn, Mapping):  # of Gymnasium: arrays, and which rows of them are new
            for column, name in enumerate(self._names):
                if name in drawn:
                    new = drawn[f"_{name}"]
                    self._values[new, column] = drawn[name][new]
        elif drawn is not None:  # of the desk: a dict for every row
            self._values[:] = [[row[name] for name in self._names] for row in drawn]
