"""Many desks on one `mujoco.batch.Batch`: start episodes, advance by one action, measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from envs.desk.control import Hand, joint_targets
from envs.desk.furniture import BULB, BUTTON_PRESSED, JOINTS, LED, LIGHT_OFF, LIGHTS
from envs.desk.scene import CONTROL_STEPS, HOME, Scene, shared_model
from envs.desk.situations import Situation, draw_situation
from envs.desk.starts import Start, draw_start
from envs.desk.state import State
from envs.desk.tasks import ANY, NONE, Task, possible_tasks

Floats = NDArray[np.float64]

_NUM_JOINTS = len(HOME)
_POSITIONS = mujoco.mjtStage.mjSTAGE_POS.value
_DIVERGED = 1e4  # any larger coordinate or speed means that the integration has blown up
_CLOSING_STEPS = 30  # physics steps that the fingers get to close on a block that an episode starts with
_GENTLY = 0.003  # metres by which their set point then lies inside it
_FLOOR = -0.72  # height of the floor, under which markers wait that are not to be seen
_SITUATIONS = 200  # drawn in search of one in which a task can begin
_LIGHT_POS = np.array([LED, BULB])  # of the markers that show a lit lamp


class Simulation:
    """`num_sims` desks, each with its own episode; every array attribute has one row per desk.

    Between episodes nothing is shared: a desk's trajectory is a function of its episode's seed and its
    actions alone, bit for bit, whatever the thread count and the number of desks beside it.
    """

    def __init__(
        self,
        num_sims: int,
        *,
        tasks: Sequence[Task],
        scene: Scene,
        colors: Sequence[str],
        say: Callable[[int, int, np.random.Generator], str],
        num_threads: int,
        play: bool = False,
    ) -> None:
        self.model = shared_model(scene)
        self.scene = scene
        self.tasks = tuple(tasks)
        self._say = say  # the instruction for a task and a target, both by number
        self._play = play
        self.batch = Batch(self.model, num_sims, num_threads)
        self._targets = np.array([scene.colors.index(color) for color in colors])
        self.task = np.zeros(num_sims, np.int64)  # index into `tasks`
        self.target = np.zeros(num_sims, np.int64)  # index into `scene.blocks`
        self.goal = np.zeros((num_sims, 2))
        self.instructions = np.full(num_sims, "", dtype=object)
        k = len(scene.blocks)
        self._sizes = np.tile([2 * block.half_size for block in scene.blocks], (num_sims, 1))
        self._heights = np.tile([2 * block.half_height for block in scene.blocks], (num_sims, 1))
        self._amounts = np.array([task.amount for task in self.tasks])
        self._start_pos, self._start_quat = np.zeros((num_sims, k, 3)), np.zeros((num_sims, k, 4))
        self._start_furniture = np.zeros((num_sims, len(JOINTS)))
        self._start_lights = np.zeros((num_sims, len(LIGHTS)), np.bool_)
        self._scratch = mujoco.MjData(self.model)
        self.batch.reset(keyframe=0, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._home = self.batch.state[0].copy()
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
        adr = int(model.joint(JOINTS[0]).qposadr[0])
        self._furniture = self._qpos[:, adr : adr + len(JOINTS)]
        self._servo = batch.bind("act")  # [N, 7] set points of the arm's servos, which follow `ctrl` smoothly
        mocap = batch.bind("mocap_pos")
        self._mark = mocap[:, model.body("mark").mocapid[0]]
        first_light = int(model.body(LIGHTS[0]).mocapid[0])
        self._lit = mocap[:, first_light : first_light + len(LIGHTS)]
        site = model.site("grasp")
        self._joint_axis = batch.bind("xaxis")[:, :_NUM_JOINTS]
        self._joint_pos = batch.bind("xanchor")[:, :_NUM_JOINTS]
        self._site_pos = batch.bind("site_xpos")[:, site.id]
        self._site_rot = batch.bind("site_xmat")[:, site.id].reshape(-1, 3, 3)

    @property
    def num_sims(self) -> int:
        """How many desks there are."""
        return len(self.task)

    def color_names(self) -> NDArray[np.object_]:
        """Colour of each simulation's target, `[N]`; empty where the task has none."""
        about = np.array([task.color != NONE for task in self.tasks])[self.task]
        names: NDArray[np.object_] = np.where(
            about, np.array(self.scene.colors, dtype=object)[self.target], ""
        )
        return names

    def start(
        self,
        ids: NDArray[np.int64],
        rngs: Sequence[np.random.Generator],
        situations: Sequence[Situation] | None = None,
    ) -> None:
        """Begin an episode in the simulations `ids` (sorted), each from its own generator; touch no other.

        Each starts in a random situation that its task needs, or in the given ones.
        """
        self.batch.state[ids] = self._home
        for i, (sim, rng) in enumerate(zip(ids, rngs, strict=True)):
            self._draw_episode(int(sim), rng, situations[i] if situations else None)
        self.batch.forward(ids, stage=_POSITIONS)

    def _draw_episode(self, sim: int, rng: np.random.Generator, situation: Situation | None) -> None:
        scene = self.scene
        noise = scene.joint_noise
        self._qpos[sim, :_NUM_JOINTS] = HOME + rng.uniform(-noise, noise, _NUM_JOINTS)
        self._ctrl[sim, :_NUM_JOINTS] = self._servo[sim] = self._qpos[sim, :_NUM_JOINTS]
        room = None
        if situation is not None or self._play:
            situation, number, target = self._draw_play(rng, situation)
        else:
            number, target = int(rng.integers(len(self.tasks))), int(rng.choice(self._targets))
            task = self.tasks[number]
            if task.color not in (ANY, NONE):
                target = scene.colors.index(task.color)
            room = task.room
            situation = draw_situation(rng, len(scene.blocks), task.needs, target)
        self._arrange(sim, draw_start(rng, scene, situation, room, target))
        self.assign(sim, number, target, rng)

    def _draw_play(self, rng: np.random.Generator, situation: Situation | None) -> tuple[Situation, int, int]:
        """The given situation or one drawn without regard to any task; a task and target possible in it."""
        for _ in range(_SITUATIONS):
            drawn = situation or draw_situation(rng, len(self.scene.blocks), {}, 0)
            possible = possible_tasks(self.tasks, self.scene.colors, drawn)
            if possible:
                number, target = possible[rng.integers(len(possible))]
                return drawn, number, target
        raise ValueError(
            f"task={[task.name for task in self.tasks]}: none can begin in "
            f"{situation or 'any of many situations drawn for start=play'}"
        )

    def _arrange(self, sim: int, start: Start) -> None:
        half_yaw = start.yaw / 2
        self._blocks[sim, :, :3] = start.pos
        self._blocks[sim, :, 3], self._blocks[sim, :, 6] = np.cos(half_yaw), np.sin(half_yaw)
        self._furniture[sim] = start.furniture
        self._lit[sim] = np.where(start.lights[:, None], _LIGHT_POS, LIGHT_OFF)
        if start.held is not None:
            self._hold(sim, start.held)

    def _hold(self, sim: int, block: int) -> None:
        """Put a block between the fingers and let them close on it while the arm is at rest.

        Fingers that were only written into place would snap shut in the first step, and at that impact the
        solver's few iterations can throw the block out. So they first close on it with little force.
        """
        model, data = self.model, self._scratch
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.act[:], data.ctrl[:] = self._qpos[sim], self._servo[sim], self._ctrl[sim]
        mujoco.mj_kinematics(model, data)
        site, joint = data.site("grasp"), data.joint(self.scene.blocks[block].name)
        fingers = slice(_NUM_JOINTS, _NUM_JOINTS + 2)
        joint.qpos[:3] = site.xpos
        # The hand's z axis points down. A cube looks the same either way up, a cup must stand upright.
        upright = (1.0, 1.0, 1.0) if self.scene.blocks[block].shape == "block" else (1.0, -1.0, -1.0)
        mujoco.mju_mat2Quat(joint.qpos[3:], (site.xmat.reshape(3, 3) * upright).ravel())
        data.qpos[fingers] = self.scene.blocks[block].half_size
        data.ctrl[_NUM_JOINTS] = self.scene.blocks[block].half_size - _GENTLY
        self._ctrl[sim, _NUM_JOINTS] = 0.0
        mujoco.mj_step(model, data, nstep=_CLOSING_STEPS)
        self._blocks[sim, block] = joint.qpos
        self._qpos[sim, fingers] = data.qpos[fingers]

    def assign(self, sim: int, task: int, target: int, rng: np.random.Generator) -> None:
        """Give a simulation a task (an index into `tasks`) that begins with things as they are now."""
        row = self.tasks[task]
        self.task[sim], self.target[sim] = task, target
        # From a generator of its own: which words are drawn, and how many, changes nothing else.
        self.instructions[sim] = self._say(task, target, np.random.default_rng(rng.integers(2**32)))
        self.goal[sim], self._mark[sim] = 0.0, LIGHT_OFF
        if row.sample_goal:
            self.goal[sim] = row.sample_goal(rng, self._blocks[sim, :, :3], target, self.scene)
            self._mark[sim] = (*self.goal[sim], 0.0)
        self._start_pos[sim], self._start_quat[sim] = self._blocks[sim, :, :3], self._blocks[sim, :, 3:]
        self._start_furniture[sim] = self._furniture[sim]
        self._start_lights[sim] = self._lights()[sim]

    def _lights(self) -> NDArray[np.bool_]:
        """Which lights are on, `[N, 2]`: those whose markers are in place."""
        lit: NDArray[np.bool_] = self._lit[:, :, 2] > _FLOOR
        return lit

    def advance(self, action: Floats, hand: Hand) -> NDArray[np.bool_]:
        """Apply finite actions `[N, 7]` for 0.1 s; return which simulations diverged, `[N]`."""
        self._ctrl[:] = joint_targets(action, hand, self.scene)
        was_down = self._furniture[:, 2] < BUTTON_PRESSED
        diverged = np.zeros(self.num_sims, np.bool_)
        try:
            self.batch.step(nstep=CONTROL_STEPS, stage=_POSITIONS)
        except SimulationError as error:
            diverged[error.ids] = True
        # Written so that NaN, for which every comparison is false, counts as diverged.
        sane = (np.abs(self._qpos) < _DIVERGED).all(axis=1) & (np.abs(self._qvel) < _DIVERGED).all(axis=1)
        diverged |= ~sane
        self._switch_lights(was_down)
        return diverged

    def _switch_lights(self, was_down: NDArray[np.bool_]) -> None:
        """A press of the button toggles the LED; the bulb follows the switch."""
        lights = self._lights()
        pressed = (self._furniture[:, 2] < BUTTON_PRESSED) & ~was_down
        wanted = np.column_stack([lights[:, 0] ^ pressed, self._furniture[:, 3] > 0.0])
        changed = np.flatnonzero((wanted != lights).any(axis=1))
        if len(changed):
            self._lit[changed] = np.where(wanted[changed, :, None], _LIGHT_POS, LIGHT_OFF)
            self.batch.forward(changed, stage=_POSITIONS)  # or cameras would see it one action late

    def hand(self) -> Hand:
        """Measure every arm; `[N]` rows, copies that stay as they are when the simulation goes on."""
        pos, axis = self._site_pos.copy(), self._joint_axis
        # All are hinges, whose columns are axis x arm over axis: `Batch.jac` would do all kinematics again.
        arm = pos[:, None] - self._joint_pos
        jac = np.empty((self.num_sims, 6, _NUM_JOINTS))
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            jac[:, i] = axis[..., j] * arm[..., k] - axis[..., k] * arm[..., j]
        jac[:, 3:] = axis.transpose(0, 2, 1)
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
            block_quat=self._blocks[:, :, 3:].copy(),
            block_speed=np.sqrt((velocity**2).sum(axis=2)),
            block_size=self._sizes,
            block_height=self._heights,
            furniture=self._furniture.copy(),
            lights=self._lights(),
            target=self.target,
            goal=self.goal,
            amount=self._amounts[self.task],
            start_pos=self._start_pos,
            start_quat=self._start_quat,
            start_furniture=self._start_furniture,
            start_lights=self._start_lights,
        )
