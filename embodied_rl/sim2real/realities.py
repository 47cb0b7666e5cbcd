"""Stand-ins for reality: desks with other parameters and with effects that the simulator does not have.

Training never sees them. Parameters are those of `envs.desk.parameters`; backlash, dropped commands, a
control period that jitters and calibration errors are applied around the environment, so that no
randomisation draws them. Late sensors and commands are parameters: training ranges may hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from envs.desk.control import ACTION_DIM, MAX_TRANSLATION
from envs.desk.observations import observation_layout
from envs.desk.parameters import MAX_LATENCY
from envs.desk.scene import DESK as SCENE
from envs.desk.vector import DeskVectorEnv
from envs.suites import DESK, make_vec
from rl_core.config import choice, require

_STREAM = 0xB0B


@dataclass(frozen=True, kw_only=True, slots=True)
class Reality:
    """One desk; zeros are the simulator's own behaviour."""

    parameters: Mapping[str, float] = field(default_factory=dict)
    backlash: float = 0.0  # metres that the hand does not move after a command to turn back
    dropped: float = 0.0  # chance that a command is lost and the last one is carried out again
    jitter: float = 0.0  # seconds by which a command begins late at most, each anew: none lasts like the next
    camera: tuple[float, float, float] = (0.0, 0.0, 0.0)  # metres by which objects are seen displaced
    turned: float = 0.0  # radians by which the robot's frame is turned about the vertical

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.backlash < 0.05, "backlash", self.backlash, "in [0, 0.05) m")
        require(0 <= self.dropped < 1, "dropped", self.dropped, "in [0, 1)")
        left = MAX_LATENCY - self.parameters.get("latency", 0.0)
        require(0 <= self.jitter <= left, "jitter", self.jitter, f"in [0, {left:g}] s beside the latency")


def _blocks(mass: float, friction: float) -> dict[str, float]:
    names = SCENE.colors
    return {f"mass_{name}": mass for name in names} | {f"friction_{name}": friction for name in names}


# Some within the ranges of configs/randomization/desk.yaml, some outside, all with something not modelled.
# How far they go follows from what a policy of the nominal desk bears. One at a time, effects on arm, gripper
# and encoders cost it next to nothing, a sensor delay of one action 7 of 100 episodes and of two 41, blocks
# with a friction of 0.1 cost 26, object positions that are some 15 mm off 20, a camera that is 25 mm off 17.
HELD_OUT = {
    "worn_arm": Reality(
        parameters={"arm_gain": 0.6, "arm_damping": 2.5, "arm_frictionloss": 2.5, "link_mass": 1.3,
                    "arm_force": 0.5, "sensor_delay": 0.2}, backlash=0.015,
    ),
    "slow_link": Reality(
        parameters={"latency": 0.1, "arm_gain": 0.8, "sensor_delay": 0.2}, dropped=0.2
    ),
    "heavy_and_slippery": Reality(
        parameters={**_blocks(0.3, 0.15), "friction_fingers": 0.4, "gripper_gain": 0.6,
                    "sensor_delay": 0.1}, dropped=0.05,
    ),
    "unsteady_link": Reality(
        parameters={"latency": 0.05, "arm_gain": 0.8, "sensor_delay": 0.1}, dropped=0.1, jitter=0.15,
    ),
    "badly_calibrated": Reality(
        parameters={"offset_joint1": 0.03, "offset_joint2": -0.03, "offset_joint4": 0.03,
                    "offset_joint6": -0.03, "object_noise": 0.008, "sensor_delay": 0.2},
        camera=(0.018, -0.012, 0.01), turned=0.15,
    ),
    "a_bit_of_all": Reality(
        parameters={**_blocks(0.2, 0.3), "arm_gain": 0.7, "latency": 0.05, "action_noise": 0.15,
                    "joint_noise": 0.01, "object_noise": 0.005, "friction_fingers": 0.6,
                    "sensor_delay": 0.2},
        backlash=0.006, camera=(0.008, 0.008, 0.005), dropped=0.1,
    ),
}  # fmt: skip


class RealityEnv(VectorWrapper):
    """A desk as a `Reality` says; an episode follows from its seed and its actions alone."""

    def __init__(self, env: VectorEnv, reality: Reality) -> None:
        super().__init__(env)
        fields = getattr(env.single_observation_space, "spaces", {})
        require(
            "observation" in fields, "obs", list(fields), "vectors for a reality: what it shows are no images"
        )
        self.reality = reality
        self.metadata = {
            **env.metadata,
            "suite": {**env.metadata.get("suite", {}), "reality": asdict(reality)},
        }
        self._desk = cast(DeskVectorEnv, env.unwrapped)
        self._desk.set_parameters(dict(reality.parameters))
        num, layout = env.num_envs, observation_layout(SCENE)
        self._shift = np.zeros(max(part.stop for part in layout.values()), np.float32)
        self._shift[layout["blocks"]] = np.tile(reality.camera, len(SCENE.blocks))
        self._shift[layout["target"]] = reality.camera
        cosine, sine = np.cos(reality.turned), np.sin(reality.turned)
        self._turn = np.array([[cosine, -sine], [sine, cosine]])
        self._slack = np.zeros((num, 3))  # [N, 3] where between its ends the play of each axis is, metres
        self._last = np.zeros((num, ACTION_DIM))
        self._rngs = [np.random.default_rng([_STREAM, i]) for i in range(num)]  # replaced by seeds

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        """Begin new episodes everywhere; simulation i is seeded with `seed + i`, or with `seed[i]`."""
        seeds = range(seed, seed + self.num_envs) if isinstance(seed, (int, np.integer)) else seed
        if seeds is not None:
            self._rngs = [np.random.default_rng([_STREAM, int(one)]) for one in seeds]
        self._slack[:], self._last[:] = 0.0, 0.0
        obs, infos = self.env.reset(seed=seed, options=options)
        return self._observe(obs), infos

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[
        dict[str, NDArray[np.float32]], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Carry out what comes of the actions, and show what is seen of it."""
        obs, reward, terminated, truncated, infos = self.env.step(self._act(np.asarray(actions, np.float64)))
        ended = terminated | truncated
        self._slack[ended], self._last[ended] = 0.0, 0.0
        return self._observe(obs), reward, terminated, truncated, infos

    def _act(self, actions: NDArray[np.float64]) -> NDArray[np.float32]:
        chance, late = np.array([rng.random(2) for rng in self._rngs]).T
        if self.reality.jitter:
            latency = self.reality.parameters.get("latency", 0.0) + self.reality.jitter * late
            self._desk.set_parameters({"latency": latency})
        lost = chance < self.reality.dropped
        actions = np.where(lost[:, None], self._last, actions)
        self._last = actions.copy()
        move = np.clip(actions[:, :3], -1.0, 1.0) * MAX_TRANSLATION
        move[:, :2] = move[:, :2] @ self._turn.T
        half = self.reality.backlash / 2
        free = self._slack + move
        self._slack = np.clip(free, -half, half)
        return np.concatenate([(free - self._slack) / MAX_TRANSLATION, actions[:, 3:]], axis=1).astype(
            np.float32
        )

    def _observe(self, obs: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        return {**obs, "observation": obs["observation"] + self._shift}


def open_reality(reality: Reality | None, num_envs: int, **kwargs: Any) -> VectorEnv:
    """Make desks like this reality, or nominal ones without; `kwargs` as for `envs.suites.make_vec`."""
    env = make_vec(DESK, num_envs, **kwargs)
    return RealityEnv(env, reality) if reality else env


def maker(name: str) -> Callable[..., VectorEnv]:
    """Return what stands for `envs.suites.make_vec` in the held-out reality `name`; that itself for no name.

    Raises ValueError for an unknown name, and there for another environment than the desk.
    """
    if not name:
        return make_vec
    choice("reality", name, HELD_OUT)

    def make(env_id: str, num_envs: int, **kwargs: Any) -> VectorEnv:
        require(env_id == DESK, "reality", name, f"empty in {env_id}: realities are desks")
        return open_reality(HELD_OUT[name], num_envs, **kwargs)

    return make
