"""Recorded motion of a desk, and the same actions carried out again under other parameters.

An action counts from where the hand is. Counted from where the simulated hand is, errors would add up over
an episode; counted from the measured joints, the encoders' noise would shake the simulated arm, and that
dithering passes for more dry friction than there is. So actions count from an observer's estimate, the
simulated joints corrected by a share of their distance from the measured ones: errors die out within a
second, and a fifth of the noise is left.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from embodied_rl.data.episodes import Episodes
from envs.desk.control import Hand, joint_targets
from envs.desk.observations import layout_size, observation_layout
from envs.desk.parameters import Parameters
from envs.desk.scene import CONTROL_STEPS, DESK, LATENCY_SAMPLES, PHYSICS_STEP
from envs.desk.simulation import Simulation
from envs.desk.tasks import find_tasks
from rl_core.config import choice, require

Floats = NDArray[np.float64]

CHANNELS = ("joints", "width", "blocks", "furniture")  # fields of the observation that can be compared
CORRECTIONS = (1.0, 0.2)  # first the smoothest problem, at the end the one with the least noise
_POSITIONS = mujoco.mjtStage.mjSTAGE_POS.value
STEP_SECONDS = CONTROL_STEPS * PHYSICS_STEP  # per action
_NUM_JOINTS = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """Recorded episodes `E` of up to `T` steps; rows after an episode's end repeat its last one."""

    observations: Floats  # [E, T + 1, D]
    actions: Floats  # [E, T, 7]
    running: NDArray[np.bool_]  # [E, T] whether the step was taken

    @property
    def seconds(self) -> float:
        """How long the motion is in all."""
        return float(self.running.sum()) * STEP_SECONDS

    def episodes(self) -> Iterator[Motion]:
        """Each episode as a motion of its own."""
        for i in range(len(self.running)):
            one = slice(i, i + 1)
            yield Motion(
                observations=self.observations[one], actions=self.actions[one], running=self.running[one]
            )


def motion_of(episodes: Episodes, max_seconds: float = 0.0) -> Motion:
    """Take the desk's episodes of a dataset, all of them or the first ones up to `max_seconds`.

    Raises ValueError where the dataset is not one of the desk.
    """
    name, size = "observation", layout_size(observation_layout(DESK))
    shape = episodes.observations[name].shape[1:] if name in episodes.observations else None
    require(shape == (size,), f"data.id: {episodes.dataset_id!r} has observations of shape", shape,
            f"({size},) under {name!r}, those of the desk")  # fmt: skip
    kept = len(episodes.lengths)
    if max_seconds:
        kept = max(
            1, int(np.searchsorted(np.cumsum(episodes.lengths) * STEP_SECONDS, max_seconds + 1e-9, "right"))
        )
    parts = [episodes.episode(i) for i in range(kept)]
    longest = int(episodes.lengths[:kept].max())
    return Motion(
        observations=np.stack([_padded(part["observations"][name], longest + 1) for part in parts]),
        actions=np.stack([_padded(part["actions"], longest) for part in parts]),
        running=np.arange(longest) < episodes.lengths[:kept, None],
    )


def _padded(rows: np.ndarray, length: int) -> Floats:
    return np.concatenate([rows, np.repeat(rows[-1:], length - len(rows), axis=0)]).astype(np.float64)


class Replay:
    """Carries out the commands of a recorded motion for many sets of parameters at once."""

    def __init__(
        self,
        motion: Motion,
        channels: Sequence[str],
        *,
        most: int,
        contacts: bool = True,
        num_threads: int | None = None,
    ) -> None:
        """`most` is the largest number of parameter sets that `predict` is asked for at a time."""
        for channel in channels:
            choice("channels", channel, CHANNELS)
        require(bool(channels), "channels", list(channels), f"some of {', '.join(CHANNELS)}")
        self.motion = motion
        self.channels = tuple(channels)
        self._layout = observation_layout(DESK)
        self._num, self._most = len(motion.actions), most
        threads = num_threads or len(os.sched_getaffinity(0))
        self._sim = Simulation(
            self._num * most, tasks=find_tasks("lift_block"), scene=DESK, colors=DESK.colors,
            say=lambda task, target, rng: "",
            num_threads=min(threads, self._num * most),
        )  # fmt: skip
        self._batch = self._sim.batch
        self.parameters = Parameters(self._batch)
        self.correction = CORRECTIONS[-1]  # of the observer, per action
        if not contacts:
            self._batch.expand("opt.disableflags")[:] |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        self._qpos, self._ctrl = self._batch.bind("qpos"), self._batch.bind("ctrl")
        self._start = self._start_positions()
        self._joints = self.motion.observations[:, :, self._layout["joints"]]

    def measured(self) -> dict[str, Floats]:
        """What was recorded of each channel, `[E, T, d]`, after every step."""
        return {name: self.motion.observations[:, 1:, self._layout[name]] for name in self.channels}

    def predict(self, values: Mapping[str, NDArray[np.float64]]) -> dict[str, Floats]:
        """Each channel, `[n, E, T, d]`, under `n` sets of parameters, `{name: [n]}`; others stay as they are.

        Raises ValueError for an unknown parameter and one out of bounds, FloatingPointError where the physics
        diverges.
        """
        n = len(next(iter(values.values())))
        assert n <= self._most
        used = np.arange(self._num * n)
        padded = {name: np.concatenate([v, np.repeat(v[-1:], self._most - n)]) for name, v in values.items()}
        self.parameters.set({name: np.repeat(v, self._num) for name, v in padded.items()})
        self._begin(used)
        hand = self._sim.hand()
        rows, age = [self._observe(hand, used)], self.parameters.values["sensor_delay"][used] / STEP_SECONDS
        for t in range(self.motion.actions.shape[1]):
            error = np.tile(self._joints[:, t], (n, 1)) - _late([row["joints"] for row in rows], age)
            estimate = _corrected(_rows(hand, len(used)), self.correction * error)
            self._ctrl[used] = joint_targets(np.tile(self.motion.actions[:, t], (n, 1)), estimate, DESK)
            self._batch.step(used, nstep=CONTROL_STEPS, stage=_POSITIONS)
            hand = self._sim.hand()
            rows.append(self._observe(hand, used))
        found = {name: self._shown([row[name] for row in rows], age) for name in self.channels}
        if not all(np.isfinite(value).all() for value in found.values()):
            raise FloatingPointError("the physics of a replay diverged; narrow the bounds of the parameters")
        return found

    def _begin(self, used: NDArray[np.int64]) -> None:
        n = len(used) // self._num
        self._batch.reset(used, keyframe=0, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._qpos[used] = np.tile(self._start, (n, 1))
        self._ctrl[used, :_NUM_JOINTS] = self._qpos[used, :_NUM_JOINTS]
        self._batch.bind("act")[used] = self._qpos[used, :_NUM_JOINTS]
        # What a delayed servo hears first is older than the episode: the pose that it holds.
        past = self._batch.bind("history").reshape(self._batch.nsim, self._batch.model.nu, -1)
        past[used, :, -LATENCY_SAMPLES:] = self._ctrl[used, :, None]
        self._batch.forward(used, stage=_POSITIONS)

    def _observe(self, hand: Hand, used: NDArray[np.int64]) -> dict[str, Floats]:
        state = self._sim.state(hand)
        values = {
            "joints": hand.joints,
            "width": hand.width[:, None],
            "blocks": (state.block_pos - hand.pos[:, None]).reshape(len(hand.pos), -1),
            "furniture": state.furniture,
        }
        return {name: values[name][used] for name in {*self.channels, "joints"}}

    def _shown(self, rows: list[Floats], age: Floats) -> Floats:
        """What sensors of that age show, `[n, E, T, d]`, of rows `[n * E, d]` before and after each step."""
        late = [_late(rows[: t + 1], age) for t in range(1, len(rows))]
        return np.stack(late, axis=1).reshape(-1, self._num, len(late), rows[0].shape[1])

    def _start_positions(self) -> Floats:
        """Generalised positions `[E, nq]` at the beginning, at rest, as far as they were observed."""
        first, model = self.motion.observations[:, 0], self._sim.model
        qpos = np.tile(model.key_qpos[0], (self._num, 1))
        qpos[:, :_NUM_JOINTS] = first[:, self._layout["joints"]]
        qpos[:, _NUM_JOINTS : _NUM_JOINTS + 2] = first[:, self._layout["width"]] / 2
        furniture = first[:, self._layout["furniture"]]
        begin = int(model.joint("drawer").qposadr[0])
        qpos[:, begin : begin + furniture.shape[1]] = furniture
        relative = first[:, self._layout["blocks"]].reshape(self._num, -1, 3)
        pos = first[:, None, self._layout["hand_pos"]] + relative
        cosine, sine = first[:, self._layout["block_yaws"]].reshape(self._num, -1, 2).transpose(2, 0, 1)
        half = np.arctan2(sine, cosine) / 2
        for i, name in enumerate(DESK.colors):
            adr = int(model.joint(name).qposadr[0])
            qpos[:, adr : adr + 3] = pos[:, i]
            qpos[:, adr + 3 : adr + 7] = 0.0
            qpos[:, adr + 3], qpos[:, adr + 6] = np.cos(half[:, i]), np.sin(half[:, i])
        return qpos


def _rows(hand: Hand, num: int) -> Hand:
    """The first `num` simulations' measurements."""
    return Hand(**{field.name: getattr(hand, field.name)[:num] for field in dataclasses.fields(hand)})


def _late(rows: Sequence[Floats], age: Floats) -> Floats:
    """Each row `[N, d]` as it was `age [N]` steps before the last one; before the first nothing moved."""
    whole = age.astype(np.int64)
    if not age.any():
        return rows[-1]
    share, every = (age - whole)[:, None], np.arange(len(age))
    recent = np.stack(rows[-int(whole.max()) - 2 :])
    last = len(recent) - 1
    later, earlier = (recent[np.maximum(last - whole - k, 0), every] for k in (0, 1))
    return later + share * (earlier - later)


def _corrected(hand: Hand, step: Floats) -> Hand:
    """The simulated hand with its joints moved by `step [N, 7]`; its position to first order."""
    moved = (hand.jac[:, :3] @ step[..., None])[..., 0]
    return dataclasses.replace(hand, joints=hand.joints + step, pos=hand.pos + moved)
