"""What an observation holds: numbers, images, or both, as `obs` says.

`obs` is one or more of `state`, `rgb`, `depth`, `segmentation`, `language`, joined by "+"; `rgbd` is
`rgb+depth`.

* `state`: `observation` [D], everything about robot and objects, and `desired_goal` [G] (see
  `envs.desk.observations`).
* without it: `proprioception` [22], the robot's part of that vector, and of `desired_goal` only what is asked
  for; it is left out where the task alone says that.
* `rgb`: `rgb_<camera>` [H, W, 3] uint8 for every camera.
* `depth`: `depth_<camera>` [H, W] float32, metres along the optical axis, `MAX_DEPTH` at most.
* `segmentation`: `segmentation_<camera>` [H, W] int32, a geom's number in the model, -1 for none.
* `language`: `instruction`, a string (`spaces.Text`), in vector environments an array `[N]` of them. It has
  to be asked for because Stable-Baselines3 takes no text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.desk.batch_cameras import BatchCameras
from envs.desk.cameras import Quality, check_size, find_camera
from envs.desk.choices import at_least_one, check_choice
from envs.desk.control import Hand
from envs.desk.observations import (
    goal_layout,
    layout_size,
    observation_layout,
    observation_space,
    write_goal,
    write_observation,
)
from envs.desk.scene import COARSE_GROUPS
from envs.desk.simulation import Simulation
from envs.desk.state import State

Observation = dict[str, NDArray]
Ints = NDArray[np.int64]

KINDS = ("state", "rgb", "depth", "segmentation", "language")
MAX_DEPTH = 10.0  # metres; also where a camera sees nothing


def kinds_of(obs: str) -> tuple[str, ...]:
    """Parts that an observation consists of; ValueError with the nearest names for an unknown one."""
    parts = [part for whole in obs.split("+") for part in (("rgb", "depth") if whole == "rgbd" else (whole,))]
    for part in parts:
        check_choice("obs", part, (*KINDS, "rgbd"))
    return at_least_one("obs", parts)


def size_of(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of images; one number stands for both."""
    sizes = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(sizes) != 2 or not all(isinstance(size, int) for size in sizes):
        raise ValueError(f"image_size={image_size}: expected one integer, or height and width")
    check_size(width=sizes[1], height=sizes[0])
    return sizes[0], sizes[1]


class Sensors:
    """Turns the simulations' states into observations.

    `cameras` are names of the model's, `image_size` one number or height and width. Raises ValueError for an
    unknown kind of observation, an unknown camera or none, and sizes below 1.
    """

    def __init__(
        self,
        sim: Simulation,
        *,
        obs: str,
        cameras: str | Sequence[str],
        image_size: int | Sequence[int],
        shadows: bool,
        textures: bool,
        text: spaces.Text,
        num_threads: int,
    ) -> None:
        self._sim = sim
        kinds = kinds_of(obs)
        self._text = text if "language" in kinds else None  # the space of instructions
        self.layout = observation_layout(sim.scene)
        self.goal_layout = goal_layout(sim.tasks, sim.scene)
        self._numbers = self._seen_numbers(full="state" in kinds)
        self._images = [kind for kind in kinds if kind not in ("state", "language")]
        self._size = size_of(image_size)
        self._cameras: tuple[str, ...] = ()
        if self._images:
            self._cameras = at_least_one("cameras", cameras)
            for camera in self._cameras:
                find_camera(sim.model, camera)
            casting = COARSE_GROUPS if shadows else ()
            quality = Quality(groups=COARSE_GROUPS, shadows=casting, textures=textures)
            self._draw = BatchCameras(sim.batch, quality=quality, num_threads=num_threads).draw

    def _seen_numbers(self, *, full: bool) -> dict[str, Ints]:
        """Vectors that there are and which entries of `observation` and `desired_goal` they hold."""
        vector, goal = np.arange(layout_size(self.layout)), np.arange(layout_size(self.goal_layout))
        if full:
            return {"observation": vector, "desired_goal": goal}
        where = self.goal_layout.get("start", slice(0, 0))
        asked = np.delete(goal, where)
        numbers = {"proprioception": vector[: self.layout["width"].stop]}
        return numbers | ({"desired_goal": asked} if len(asked) else {})

    def space(self) -> spaces.Dict:
        """Observation space of one simulation."""
        whole = observation_space(self._sim.tasks, self._sim.scene)
        boxes: dict[str, spaces.Space] = {}
        for name, entries in self._numbers.items():
            box = whole["desired_goal" if name == "desired_goal" else "observation"]
            assert isinstance(box, spaces.Box)
            boxes[name] = spaces.Box(box.low[entries], box.high[entries], dtype=np.float32)
        of_kind: dict[str, spaces.Space] = {
            "rgb": spaces.Box(0, 255, (*self._size, 3), np.uint8),
            "depth": spaces.Box(0.0, MAX_DEPTH, self._size, np.float32),
            "segmentation": spaces.Box(-1, self._sim.model.ngeom - 1, self._size, np.int32),
        }
        boxes |= {f"{kind}_{camera}": of_kind[kind] for kind in self._images for camera in self._cameras}
        return spaces.Dict(boxes | ({"instruction": self._text} if self._text else {}))

    def observe(self, hand: Hand, state: State, sims: Ints) -> Observation:
        """Observation `[n, ...]` of the `n` simulations `sims`, whose rows `hand` and `state` hold."""
        vector = write_observation(self.layout, hand, state)
        goal = write_goal(self.goal_layout, state, self._sim.tasks, self._sim.task[sims])
        obs: Observation = {
            name: (goal if name == "desired_goal" else vector)[:, entries]
            for name, entries in self._numbers.items()
        }
        if self._text:
            obs["instruction"] = self._sim.instructions[sims]
        for camera in self._cameras:
            drawn = self._draw(camera, *self._size, sims)
            for kind in self._images:
                values = getattr(drawn, kind)
                obs[f"{kind}_{camera}"] = np.minimum(values, MAX_DEPTH) if kind == "depth" else values
        return obs
