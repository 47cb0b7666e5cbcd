"""Sensors that are late: vectors as they stood some time ago, between two steps by interpolation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.desk.scene import CONTROL_STEPS, PHYSICS_STEP

_STEP = CONTROL_STEPS * PHYSICS_STEP  # seconds per action
MAX_SENSOR_DELAY = 0.5  # seconds


class SensorDelay:
    """Keeps the vectors of the last steps; an episode begins as if nothing had moved before it."""

    def __init__(self, seconds: NDArray[np.float64]) -> None:
        """`seconds [N]` are read anew in every call, each in [0, `MAX_SENSOR_DELAY`]."""
        self._seconds = seconds
        self._begun = np.ones(len(seconds), np.bool_)
        self._past: NDArray[np.float32] | None = None  # [T, N, D], a ring
        self._now = 0

    def begin(self, sims: NDArray[np.int64]) -> None:
        """Forget what the simulations showed."""
        self._begun[sims] = True

    def advance(self) -> None:
        """Let one action's time pass."""
        self._now += 1

    def __call__(self, vector: NDArray[np.float32], sims: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the simulations `sims` show, `[n, D]`, now that `vector [n, D]` is measured."""
        if self._past is None:
            length = int(MAX_SENSOR_DELAY / _STEP) + 2
            self._past = np.zeros((length, len(self._seconds), vector.shape[1]), np.float32)
        length, begun = len(self._past), self._begun[sims]
        self._past[self._now % length, sims] = vector
        self._past[:, sims[begun]] = vector[begun]
        self._begun[sims] = False
        age = self._seconds[sims] / _STEP
        whole = age.astype(np.int64)
        share = (age - whole)[:, None].astype(np.float32)
        later, earlier = (self._past[(self._now - whole - k) % length, sims] for k in (0, 1))
        return later + share * (earlier - later)
