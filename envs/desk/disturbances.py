"""Noise and pushes: what parameters change that no model field holds.

Every draw comes from the episode's own generator, so that an episode stays a function of its seed, its
parameters and its actions. Where all of it is zero nothing is drawn and no bit differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from envs.desk.control import Hand
from envs.desk.parameters import Parameters, free_bodies
from envs.desk.scene import CONTROL_STEPS, LATENCY_SAMPLES, PHYSICS_STEP
from envs.desk.simulation import Simulation
from envs.desk.tasks import State

Floats = NDArray[np.float64]

_STEP = CONTROL_STEPS * PHYSICS_STEP  # seconds per action


class Disturbances:
    """Applies noise and pushes to the simulations of one `Simulation`."""

    def __init__(self, sim: Simulation, parameters: Parameters) -> None:
        self._values, self._changed = parameters.values, parameters.changed
        self._bodies = np.array(list(free_bodies(sim.model).values()))
        self._batch = sim.batch
        past = sim.batch.bind("history").reshape(sim.num_sims, sim.model.nu, -1)
        self._past = past[:, :, -LATENCY_SAMPLES:]  # after a cursor and the times, the commands
        self._rngs: list[np.random.Generator | None] = [None] * sim.num_sims
        self._offset = np.zeros((sim.num_sims, len(self._bodies), 3))  # in standard deviations

    def begin(self, ids: NDArray[np.int64], rngs: Sequence[np.random.Generator]) -> None:
        """Take over the generators of episodes whose start has been drawn."""
        # With latency, what the servos hear first is older than the episode: it must be the pose they hold.
        self._past[ids] = self._batch.bind("ctrl")[ids, :, None]
        for sim, rng in zip(ids, rngs, strict=True):
            self._rngs[sim] = rng
            self._offset[sim] = rng.standard_normal(self._offset.shape[1:])

    def _normal(self, name: str, shape: tuple[int, ...], sims: NDArray[np.int64]) -> Floats | None:
        """Noise `[n, *shape]` of the parameter's standard deviation; None where that is zero everywhere."""
        std = self._values[name][sims]
        if not std.any():
            return None
        out = np.zeros((len(std), *shape))
        for row in np.flatnonzero(std):
            rng = self._rngs[sims[row]]
            assert rng is not None
            out[row] = std[row] * rng.standard_normal(shape)
        return out

    def act(self, actions: Floats) -> Floats:
        """Disturb actions `[N, 7]` that are about to be executed, and push objects meanwhile."""
        self._push()
        noise = self._normal("action_noise", (6,), np.arange(len(actions)))
        if noise is None:
            return actions
        return np.concatenate([actions[:, :6] + noise, actions[:, 6:]], axis=1)

    def _push(self) -> None:
        if "push_force" not in self._changed:
            return
        force, rate = self._values["push_force"], self._values["push_rate"]
        applied = self._batch.bind("xfrc_applied")
        applied[:] = 0.0
        for sim in np.flatnonzero((force > 0) & (rate > 0)):
            rng = self._rngs[sim]
            assert rng is not None
            chance, angle = rng.random(), rng.uniform(0, 2 * np.pi)
            body = self._bodies[rng.integers(len(self._bodies))]
            if chance < rate[sim] * _STEP:
                applied[sim, body, :2] = force[sim] * np.cos(angle), force[sim] * np.sin(angle)

    def measure(self, hand: Hand, state: State, sims: NDArray[np.int64]) -> tuple[Hand, State]:
        """What is observed of the true state; rewards and success are judged on the truth.

        Both hold the rows of the simulations `sims`, and only their generators are drawn from.
        """
        joints = self._normal("joint_noise", hand.joints.shape[1:], sims)
        if joints is not None:
            hand = replace(hand, joints=hand.joints + joints)
        blocks = state.block_pos.shape[1:]
        noise, offset = self._normal("object_noise", blocks, sims), self._values["object_offset"][sims]
        if noise is not None:
            state = replace(state, block_pos=state.block_pos + noise)
        if offset.any():
            error = offset[:, None, None] * self._offset[sims, : blocks[0]]
            state = replace(state, block_pos=state.block_pos + error)
        return hand, state
