"""The desk as data: which objects stand on it, where they may start, and the MuJoCo model built from that.

A Franka Panda on a pedestal faces a wooden desk whose surface is the plane z = 0; the robot's base is the
origin and x points away from it. Lengths are metres, angles radians. The meshes of the Panda (Apache-2.0) are
read from the installed gymnasium-robotics package and only drawn: every collision shape is a box, capsule or
sphere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.desk.choices import check_choice
from envs.desk.furniture import DRAWN, JOINTS, LIGHT_OFF, ROBOT, SOLID, add_furniture
from envs.desk.materials import add_materials
from envs.desk.objects import Block, add_block

# Arm joints at rest: the gripper points down, 22 cm above the middle of the start region.
HOME = (0.0, -0.0456, 0.0, -2.4288, 0.0, 2.3832, 0.7854)
# Geom groups to draw: the Panda in 134 or in 2 thousand triangles.
FINE_GROUPS, COARSE_GROUPS = (0, 1, 2), (0, 1, 4)
GRIPPER_OPEN = 0.04  # position of each finger, metres; the opening is twice that
PHYSICS_STEP = 0.005  # seconds
CONTROL_STEPS = 20  # physics steps per action: 10 Hz
LATENCY_SAMPLES = 41  # past commands that each actuator keeps, one per physics step: up to 0.2 s of latency

_MESHES = ("link0", "link1", "link2", "link3", "link4", "link5", "link6", "link7", "hand", "finger")


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Where on the desk a task's block starts, and which way has to be free of other blocks."""

    low: tuple[float, float]  # corner of the rectangle of its centre, x and y
    high: tuple[float, float]
    lane: tuple[float, float]  # unit vector along which it is to be pushed


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What is on the desk and where it may start."""

    blocks: tuple[Block, ...]
    start_low: tuple[float, float] = (0.40, -0.19)  # corner of the rectangle of block centres, x and y
    start_high: tuple[float, float] = (0.60, 0.16)
    start_yaw: float = 0.7  # blocks start turned by up to this much either way
    start_gap: float = 0.11  # least distance between two block centres: the open gripper fits between
    joint_noise: float = 0.06  # arm joints start this far from `HOME`, uniformly
    workspace_low: tuple[float, float, float] = (0.30, -0.49, -0.06)  # limits of the grasp centre
    workspace_high: tuple[float, float, float] = (0.72, 0.44, 0.36)
    desk_low: float = 0.012  # lowest grasp centre over the desk itself
    reach: float = 0.73  # its largest horizontal distance from the robot's axis: the arm is nearly stretched

    @property
    def colors(self) -> tuple[str, ...]:
        """Names of the blocks, a cube's being its colour, in the order of every per-block array."""
        return tuple(block.name for block in self.blocks)

    @property
    def cubes(self) -> bool:
        """Whether every block is one."""
        return all(block.shape == "block" for block in self.blocks)


DESK = Scene(
    blocks=(
        Block(name="red", rgba=(0.83, 0.16, 0.14, 1.0)),
        Block(name="blue", rgba=(0.13, 0.33, 0.78, 1.0)),
        Block(name="pink", rgba=(0.95, 0.50, 0.68, 1.0)),
    )
)
# Three things each: observations have the same size, and a policy of one scene can be tried in another.
SCENES: dict[str, Scene] = {
    "calvin": DESK,
    "held_out_colors": Scene(
        blocks=(
            Block(name="green", rgba=(0.16, 0.55, 0.24, 1.0)),
            Block(name="yellow", rgba=(0.93, 0.78, 0.16, 1.0)),
            Block(name="purple", rgba=(0.45, 0.22, 0.62, 1.0)),
        )
    ),
    "held_out_objects": Scene(
        blocks=(
            Block(name="bowl", rgba=(0.94, 0.92, 0.86, 1.0), shape="bowl", half_size=0.029, flatness=0.66),
            Block(name="cup", rgba=(0.16, 0.58, 0.60, 1.0), shape="cup", half_size=0.023, flatness=1.08),
            Block(name="mug", rgba=(0.85, 0.45, 0.18, 1.0), shape="mug"),
        )
    ),
}


def find_scene(scene: str | Scene) -> Scene:
    """Return a scene, or the one of that name; ValueError with the nearest names where there is none."""
    return scene if isinstance(scene, Scene) else SCENES[check_choice("scene", scene, SCENES)]


_Vector = tuple[float, ...]
# name, parent, position, quaternion, joint range, force limit (N m), mass (kg): the Panda's kinematics
_LINKS: tuple[tuple[str, str, _Vector, _Vector, tuple[float, float], float, float], ...] = (
    ("link1", "link0", (0, 0, 0.333), (1, 0, 0, 0), (-2.8973, 2.8973), 87, 2.71),
    ("link2", "link1", (0, 0, 0), (1, -1, 0, 0), (-1.7628, 1.7628), 87, 2.73),
    ("link3", "link2", (0, -0.316, 0), (1, 1, 0, 0), (-2.8973, 2.8973), 87, 2.04),
    ("link4", "link3", (0.0825, 0, 0), (1, 1, 0, 0), (-3.0718, -0.0698), 87, 2.08),
    ("link5", "link4", (-0.0825, 0.384, 0), (1, -1, 0, 0), (-2.8973, 2.8973), 12, 3.00),
    ("link6", "link5", (0, 0, 0), (1, 1, 0, 0), (-0.0175, 3.7525), 12, 1.32),
    ("link7", "link6", (0.088, 0, 0), (1, 1, 0, 0), (-2.8973, 2.8973), 12, 0.45),
)
# link, half length of the capsule, its radius, position: rough shapes of the parts that can reach the desk
_CAPSULES = (
    ("link5", 0.09, 0.055, (0, 0.06, -0.12)),
    ("link6", 0.03, 0.055, (0.05, 0.0, 0.0)),
)


def build_model(scene: Scene = DESK) -> mujoco.MjModel:
    """Compile the scene; bodies, joints, geoms, cameras and the site `grasp` are named."""
    return build_spec(scene).compile()


def build_spec(scene: Scene = DESK) -> mujoco.MjSpec:
    """Describe the scene as an editable `MjSpec`."""
    spec = mujoco.MjSpec()
    spec.modelname = "desk"
    spec.compiler.degree = False
    spec.option.timestep = PHYSICS_STEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10  # stiff friction: a held block does not creep out of the fingers
    spec.option.iterations = 10
    spec.option.ls_iterations = 20
    # A diverged simulation must be seen and reported, not silently put back to its start by the engine.
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    _add_surroundings(spec)
    _add_robot(spec)
    add_furniture(spec)
    add_materials(spec)
    for block in scene.blocks:
        add_block(spec, block)
    _add_mark(spec)
    _add_home(spec, scene)
    _rank_frictions(spec)
    return spec


def _rank_frictions(spec: mujoco.MjSpec) -> None:
    """The robot's friction decides what it touches, else that of what lies free: never the greater of two."""
    for geom in spec.geoms:
        free = any(joint.type == mujoco.mjtJoint.mjJNT_FREE for joint in geom.parent.joints)
        geom.priority = 2 if geom.group == 3 else int(free)  # group 3: the robot's collision shapes


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    """Floor, pedestal, lights and the static camera."""
    world, dark = spec.worldbody, [0.33, 0.29, 0.27, 1]
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[4, 4, 1], pos=[0, 0, -0.72],
        rgba=[0.62, 0.64, 0.66, 1], **SOLID,
    )  # fmt: skip
    world.add_geom(
        name="pedestal", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.11, 0.36, 0], pos=[-0.03, 0, -0.36],
        rgba=dark, **DRAWN,
    )  # fmt: skip
    # Only the key light casts shadows, and it stands on the camera's side so that they fall behind things.
    world.add_light(name="key", pos=[0.95, -0.75, 1.9], dir=[-0.4, 0.7, -1.8], diffuse=[0.50, 0.48, 0.44])
    world.add_light(
        name="fill", pos=[0.6, 1.3, 1.5], dir=[0, -0.6, -1], diffuse=[0.24, 0.25, 0.28], castshadow=False
    )
    spec.visual.headlight.ambient = [0.36, 0.36, 0.38]
    spec.visual.headlight.diffuse = [0.18, 0.18, 0.18]
    eye, target = [0.78, -1.42, 1.00], [0.42, 0.0, 0.06]
    forward = np.subtract(target, eye)
    right = np.cross(forward, [0, 0, 1])
    world.add_camera(name="static", pos=eye, quat=_camera_quat(right, np.cross(right, forward)), fovy=32)


def _camera_quat(right: ArrayLike, up: ArrayLike) -> NDArray[np.float64]:
    """Orientation of a camera whose image axes point along these perpendicular directions."""
    x, y = np.asarray(right, np.float64), np.asarray(up, np.float64)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.column_stack([x, y, np.cross(x, y)]).ravel())
    return quat


def _add_robot(spec: mujoco.MjSpec) -> None:
    """The Panda with position actuators, gravity compensation and coupled fingers."""
    directory = _mesh_directory()
    for name in _MESHES:
        spec.add_mesh(name=name, file=str(directory / "visual" / f"{name}.stl"))
        spec.add_mesh(name=f"{name}_coarse", file=str(directory / "collision" / f"{name}.stl"))
    bodies = {"link0": spec.worldbody.add_body(name="link0")}
    _add_visual(bodies["link0"], "link0")
    for name, parent, pos, quat, limits, force, mass in _LINKS:
        body = bodies[parent].add_body(name=name, pos=pos, quat=quat, gravcomp=1)
        # Solid spheres of 8 cm stand in for the links' inertia; the motors' armature dominates it.
        inertia = [0.4 * mass * 0.08**2] * 3
        body.mass, body.inertia, body.explicitinertial = mass, inertia, True
        armature = 0.3 if force > 50 else 0.1
        body.add_joint(name=f"joint{name[-1]}", axis=[0, 0, 1], range=limits, armature=armature, damping=1.0)
        _add_visual(body, name)
        _add_servo(spec, name[-1], limits, force)
        bodies[name] = body
    for name, half, radius, pos in _CAPSULES:
        capsule = mujoco.mjtGeom.mjGEOM_CAPSULE
        bodies[name].add_geom(name=f"{name}_hull", type=capsule, size=[radius, half, 0], pos=pos, **_hidden())
    _add_hand(spec, bodies["link7"])


def _mesh_directory() -> Path:
    """Where gymnasium-robotics keeps the Panda; found without importing it, which registers 234 tasks."""
    package = find_spec("gymnasium_robotics")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("gymnasium-robotics, whose meshes of the Panda the desk draws, is missing")
    return Path(package.origin).parent / "envs/assets/kitchen_franka/franka_assets/meshes"


def _hidden() -> dict[str, object]:
    """Attributes of a robot collision shape: it collides with the world and is not drawn (group 3)."""
    return {"contype": ROBOT, "conaffinity": 0, "group": 3, "rgba": [0.5, 0.6, 0.7, 0.4], "density": 0}


def _add_visual(body: mujoco.MjsBody, mesh: str, rgba: tuple[float, ...] = (0.93, 0.93, 0.94, 1)) -> None:
    for name, group in ((mesh, FINE_GROUPS[-1]), (f"{mesh}_coarse", COARSE_GROUPS[-1])):
        body.add_geom(
            name=f"{body.name}_{group}", type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, rgba=rgba,
            contype=0, conaffinity=0, density=0, group=group,
        )  # fmt: skip


def _add_servo(spec: mujoco.MjSpec, number: str, limits: tuple[float, float], force: float) -> None:
    # Overdamped: most of an action is done within its 0.1 s and nothing overshoots. The set point follows the
    # command with a lag of 20 ms, and kv stays below inertia / time step: at the force limit the integrator
    # cannot treat the servo's damping implicitly, and a stiffer one would rattle blocks out of the fingers.
    kp, kv = (3000.0, 120.0) if force > 50 else (500.0, 20.0)
    spec.add_actuator(
        name=f"joint{number}", target=f"joint{number}", trntype=mujoco.mjtTrn.mjTRN_JOINT,
        dyntype=mujoco.mjtDyn.mjDYN_FILTEREXACT, dynprm=[0.02, *[0] * 9],
        gainprm=[kp, *[0] * 9], biastype=mujoco.mjtBias.mjBIAS_AFFINE, biasprm=[0, -kp, -kv, *[0] * 7],
        ctrlrange=limits, forcerange=[-force, force], nsample=LATENCY_SAMPLES,
    )  # fmt: skip


def _add_hand(spec: mujoco.MjSpec, link7: mujoco.MjsBody) -> None:
    """Hand, fingers with rubber pads, wrist camera; one actuator moves both fingers through a tendon."""
    box = mujoco.mjtGeom.mjGEOM_BOX
    hand = link7.add_body(name="hand", pos=[0, 0, 0.107], quat=[0.9238795, 0, 0, -0.3826834], gravcomp=1)
    hand.mass, hand.inertia, hand.explicitinertial = 0.73, [0.001, 0.0025, 0.0017], True
    _add_visual(hand, "hand")
    hand.add_geom(name="hand_hull", type=box, size=[0.03, 0.10, 0.033], pos=[0, 0, 0.033], **_hidden())
    hand.add_site(name="grasp", pos=[0, 0, 0.1034])
    # Beside the hand, leaning towards the finger tips, which it sees at the lower edge of the image.
    lean = 0.35
    quat = _camera_quat([0, 1, 0], [np.cos(lean), 0, np.sin(lean)])
    hand.add_camera(name="wrist", pos=[0.085, 0, 0.015], quat=quat, fovy=75)
    for side, facing in (("left", [1, 0, 0, 0]), ("right", [0, 0, 0, 1])):
        finger = hand.add_body(name=f"{side}_finger", pos=[0, 0, 0.0584], quat=facing, gravcomp=1)
        finger.mass, finger.inertia, finger.explicitinertial = 0.03, [2e-5, 2e-5, 5e-6], True
        finger.add_joint(
            name=f"{side}_finger", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 1, 0],
            range=[0, GRIPPER_OPEN], armature=0.1, damping=5.0,
        )  # fmt: skip
        _add_visual(finger, "finger", rgba=(0.25, 0.25, 0.27, 1))
        finger.add_geom(
            name=f"{side}_pad", type=box, size=[0.0095, 0.0055, 0.0115], pos=[0, 0.0055, 0.0435],
            friction=[1.2, 0.02, 0.0005], condim=4, priority=1, solref=[0.01, 1], **_hidden(),
        )  # fmt: skip
        finger.add_geom(
            name=f"{side}_finger_hull",
            type=box,
            size=[0.010, 0.008, 0.016],
            pos=[0, 0.0145, 0.017],
            **_hidden(),
        )
    tendon = spec.add_tendon(name="gripper")
    tendon.wrap_joint("left_finger", 0.5)
    tendon.wrap_joint("right_finger", 0.5)
    kp, kv = 1200.0, 60.0
    spec.add_actuator(
        name="gripper", target="gripper", trntype=mujoco.mjtTrn.mjTRN_TENDON,
        gainprm=[kp, *[0] * 9], biastype=mujoco.mjtBias.mjBIAS_AFFINE, biasprm=[0, -kp, -kv, *[0] * 7],
        ctrlrange=[0, GRIPPER_OPEN], forcerange=[-60, 60], nsample=LATENCY_SAMPLES,
    )  # fmt: skip
    # The real fingers share one motor: an off-centre block cannot push one open and the other closed.
    spec.add_equality(
        name="fingers", type=mujoco.mjtEq.mjEQ_JOINT, name1="left_finger", name2="right_finger",
        data=[0, 1, *[0] * 10], objtype=mujoco.mjtObj.mjOBJ_JOINT, solref=[0.005, 1], solimp=[0.95, 0.99,
        0.001, 0.5, 2],
    )  # fmt: skip


def _add_mark(spec: mujoco.MjSpec) -> None:
    """A green disc that shows a place goal: moved per simulation, never touched."""
    body = spec.worldbody.add_body(name="mark", mocap=True, pos=LIGHT_OFF)
    body.add_geom(
        name="mark", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.04, 0.0006, 0], rgba=[0.25, 0.62, 0.36, 1],
        contype=0, conaffinity=0,
    )  # fmt: skip


def _add_home(spec: mujoco.MjSpec, scene: Scene) -> None:
    """Keyframe `home`: arm above the desk, gripper open, blocks in a row."""
    qpos = [*HOME, GRIPPER_OPEN, GRIPPER_OPEN, *[0.0] * len(JOINTS)]
    for i, block in enumerate(scene.blocks):
        qpos += [0.48, 0.12 * (i - (len(scene.blocks) - 1) / 2), block.half_height, 1, 0, 0, 0]
    spec.add_key(name="home", qpos=qpos, ctrl=[*HOME, GRIPPER_OPEN])


@cache
def shared_model(scene: Scene = DESK) -> mujoco.MjModel:
    """The compiled scene, built once per process; treat it as read-only."""
    return build_model(scene)
