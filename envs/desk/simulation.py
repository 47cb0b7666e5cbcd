"""Many desks on one `mujoco.batch.Batch`: start episodes, advance by one action, measure."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from envs.desk.control import Hand, joint_targets
from envs.desk.scene import CONTROL_STEPS, HOME, MARK_UNUSED, Scene, shared_model
from envs.desk.tasks import State, Task

Floats = NDArray[np.float64]

_NUM_JOINTS = len(HOME)
_POSITIONS = mujoco.mjtStage.mjSTAGE_POS.value
_DIVERGED = 1e4  # any larger coordinate or speed means that the integration has blown up
_CANDIDATES = 64  # start layouts drawn at once; the first that keeps the blocks apart is used


class Simulation:
    """`num_sims` desks, each with its own episode; every array attribute has one row per desk.

    Between episodes nothing is shared: a desk's trajectory is a function of its episode's seed and its
    actions alone, bit for bit, whatever the thread count and the number of desks beside it.
    """

    def __init__(
        self, num_sims: int, *, tasks: Sequence[Task], scene: Scene, colors: Sequence[str], num_threads: int
    ) -> None:
        self.model = shared_model(scene)
        self.scene = scene
        self.tasks = tuple(tasks)
        self.batch = Batch(self.model, num_sims, num_threads)
        self._targets = np.array([scene.colors.index(color) for color in colors])
        self.task = np.zeros(num_sims, np.int64)  # index into `tasks`
        self.target = np.zeros(num_sims, np.int64)  # index into `scene.blocks`
        self.goal = np.zeros((num_sims, 2))
        self.instructions = np.full(num_sims, "", dtype=object)
        self._sizes = np.tile([2 * block.half_size for block in scene.blocks], (num_sims, 1))
        self._bind()

    def _bind(self) -> None:
        """Take the live views of the batch once; every later access is an array operation."""
        batch, model = self.batch, self.model
        num_blocks = len(self.scene.blocks)
        first = model.joint(self.scene.blocks[0].name)
        adr, dof = int(first.qposadr[0]), int(first.dofadr[0])
        self._qpos, self._qvel, self._ctrl = batch.bind("qpos"), batch.bind("qvel"), batch.bind("ctrl")
        self._blocks = self._qpos[:, adr : adr + 7 * num_blocks].reshape(-1, num_blocks, 7)
        self._block_velocity = self._qvel[:, dof : dof + 6 * num_blocks].reshape(-1, num_blocks, 6)
        self._servo = batch.bind("act")  # [N, 7] set points of the arm's servos, which follow `ctrl` smoothly
        self._mark = batch.bind("mocap_pos")[:, 0]
        site = model.site("grasp")
        self._hand_body = int(site.bodyid[0])
        self._site_pos = batch.bind("site_xpos")[:, site.id]
        self._site_rot = batch.bind("site_xmat")[:, site.id].reshape(-1, 3, 3)

    @property
    def num_sims(self) -> int:
        """How many desks there are."""
        return len(self.task)

    def start(self, ids: NDArray[np.int64], rngs: Sequence[np.random.Generator]) -> None:
        """Begin an episode in the simulations `ids` (sorted), each from its own generator; touch no other."""
        self.batch.reset(ids, keyframe=0, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        for sim, rng in zip(ids, rngs, strict=True):
            self._draw_episode(int(sim), rng)
        self.batch.forward(ids, stage=_POSITIONS)

    def _draw_episode(self, sim: int, rng: np.random.Generator) -> None:
        scene = self.scene
        noise = scene.joint_noise
        self._qpos[sim, :_NUM_JOINTS] = HOME + rng.uniform(-noise, noise, _NUM_JOINTS)
        self._ctrl[sim, :_NUM_JOINTS] = self._servo[sim] = self._qpos[sim, :_NUM_JOINTS]
        self._blocks[sim, :, :2] = draw_positions(rng, scene)
        half_yaw = rng.uniform(-scene.start_yaw, scene.start_yaw, len(scene.blocks)) / 2
        self._blocks[sim, :, 3], self._blocks[sim, :, 6] = np.cos(half_yaw), np.sin(half_yaw)
        self.task[sim] = rng.integers(len(self.tasks))
        self.target[sim] = target = rng.choice(self._targets)
        task = self.tasks[self.task[sim]]
        template = task.instructions[rng.integers(len(task.instructions))]
        self.instructions[sim] = template.format(color=scene.colors[target])
        self.goal[sim] = 0.0
        self._mark[sim] = MARK_UNUSED
        if task.sample_goal:
            self.goal[sim] = task.sample_goal(rng, self._blocks[sim, :, :3], int(target), scene)
            self._mark[sim] = (*self.goal[sim], 0.0)

    def advance(self, action: Floats, hand: Hand) -> NDArray[np.bool_]:
        """Apply finite actions `[N, 7]` for 0.1 s; return which simulations diverged, `[N]`."""
        self._ctrl[:] = joint_targets(action, hand, self.scene)
        diverged = np.zeros(self.num_sims, np.bool_)
        try:
            self.batch.step(nstep=CONTROL_STEPS, stage=_POSITIONS)
        except SimulationError as error:
            diverged[error.ids] = True
        # Written so that NaN, for which every comparison is false, counts as diverged.
        sane = (np.abs(self._qpos) < _DIVERGED).all(axis=1) & (np.abs(self._qvel) < _DIVERGED).all(axis=1)
        diverged |= ~sane
        return diverged

    def hand(self) -> Hand:
        """Measure every arm; `[N]` rows, copies that stay as they are when the simulation goes on."""
        pos = self._site_pos.copy()
        jac = np.concatenate(self.batch.jac(self._hand_body, pos), axis=1)[:, :, :_NUM_JOINTS]
        speed = np.ascontiguousarray(self._qvel[:, :_NUM_JOINTS, None])
        return Hand(
            joints=self._qpos[:, :_NUM_JOINTS].copy(),
            pos=pos,
            rot=self._site_rot.copy(),
            jac=jac,
            velocity=(jac @ speed)[..., 0],
            width=self._qpos[:, _NUM_JOINTS] + self._qpos[:, _NUM_JOINTS + 1],
        )

    def state(self, hand: Hand) -> State:
        """What tasks look at."""
        velocity = self._block_velocity[:, :, :3]
        return State(
            hand_pos=hand.pos,
            width=hand.width,
            block_pos=self._blocks[:, :, :3].copy(),
            block_speed=np.sqrt((velocity**2).sum(axis=2)),
            block_size=self._sizes,
            target=self.target,
            goal=self.goal,
        )

    def block_quats(self) -> Floats:
        """Orientation of the blocks, `[N, K, 4]`, w first; a copy."""
        quats: Floats = self._blocks[:, :, 3:].copy()
        return quats


def draw_positions(rng: np.random.Generator, scene: Scene) -> Floats:
    """Centres `[K, 2]` for the blocks, uniform among those that keep `scene.start_gap`.

    Raises ValueError if the rectangle is too small for that.
    """
    num_blocks = len(scene.blocks)
    pairs = np.triu_indices(num_blocks, k=1)
    for _ in range(20):
        xy = rng.uniform(scene.start_low, scene.start_high, size=(_CANDIDATES, num_blocks, 2))
        distance = np.sqrt(((xy[:, pairs[0]] - xy[:, pairs[1]]) ** 2).sum(axis=2))
        apart = (distance >= scene.start_gap).all(axis=1)
        if apart.any():
            positions: Floats = xy[apart.argmax()]
            return positions
    raise ValueError(
        f"scene.start_gap={scene.start_gap}: {num_blocks} blocks do not fit that far apart between "
        f"{scene.start_low} and {scene.start_high}"
    )
