"""Motion that tells parameters apart: random sums of sinusoids on every component of the action."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from envs.desk.control import ACTION_DIM
from envs.desk.observations import observation_layout
from envs.desk.scene import CONTROL_STEPS, DESK, PHYSICS_STEP

_SINUSOIDS = 3
_RATES = (2.0, 18.0)  # rad/s; half the control rate's Nyquist frequency, so that servos must accelerate
# Of each sinusoid. Three times as much and servos come to their force limits and chatter: then the encoders'
# noise is amplified by what the replay makes of it, and fits scatter several times as far.
_AMPLITUDE = 0.3
_CLEAR = 0.12  # metres above the desk, under which the hand is sent up: free motion is what is replayed well


class Excitation:
    """Shakes the arm above the desk; satisfies `Policy` for `DeskVectorEnv`."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._hand = observation_layout(DESK)["hand_pos"]
        self.reset(0)

    def reset(self, batch: int) -> None:
        """Choose new frequencies and phases for `batch` episodes."""
        shape = (batch, ACTION_DIM, _SINUSOIDS)
        self._rate, self._phase = self._rng.uniform(*_RATES, shape), self._rng.uniform(0, 2 * np.pi, shape)
        self._steps = 0

    def act(self, obs: Mapping[str, NDArray[np.float32]], deterministic: bool = True) -> NDArray[np.float32]:
        """Return actions `[N, 7]`."""
        seconds = self._steps * CONTROL_STEPS * PHYSICS_STEP
        self._steps += 1
        action = _AMPLITUDE * np.sin(self._rate * seconds + self._phase).sum(axis=2)
        action[:, 2] += obs["observation"][:, self._hand][:, 2] < _CLEAR
        return np.clip(action, -1.0, 1.0).astype(np.float32)
