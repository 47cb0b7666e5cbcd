"""Everything about the desk that can differ between simulations: names, units, nominal values, bounds.

`table(model)` is the list. `Parameters(batch).set({"mass_red": [N]})` writes per-simulation model fields of a
`mujoco.batch.Batch`; which values to draw is not decided here. Every parameter is one number per simulation;
a factor is relative to the scene's own value. Parameters with `setter=None` belong to no model field and are
read by `envs.desk.disturbances` and `envs.desk.delay` in every step.

Not here: the headlight (MuJoCo keeps it per model, not per simulation) and the sizes of objects (tasks and
starts are told of one size).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import ArrayLike, NDArray

from envs.desk.choices import check_choice
from envs.desk.delay import MAX_SENSOR_DELAY
from envs.desk.materials import MATERIALS

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Setter = Callable[[Batch, Ids, Mapping[str, Floats]], None]  # values of all parameters, one row per id

MAX_LATENCY = 0.2  # seconds; the model keeps that much of the past commands


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One number per simulation."""

    name: str
    unit: str  # "1" for factors and coefficients
    nominal: float
    low: float
    high: float
    doc: str
    fields: tuple[str, ...] = ()  # model fields that it is written to
    setter: Setter | None = None
    choices: tuple[str, ...] = ()  # names of the values 0, 1, ...: a name may stand for its number


class Parameters:
    """The present values in each simulation of a batch, and the way to change them."""

    def __init__(self, batch: Batch) -> None:
        self.table = table(batch.model)
        self.values = {name: np.full(batch.nsim, p.nominal) for name, p in self.table.items()}
        self.changed: set[str] = set()  # names that were ever set
        self._rows: dict[int, dict[str, float]] = {}  # of `row`: they change by episodes, but steps ask
        self._batch = batch

    def set(self, values: Mapping[str, ArrayLike], mask: ArrayLike | None = None) -> Ids:
        """Set parameters, `{name: [N] or one number}`, where `mask` `[N]` is true (None: everywhere).

        Names may stand for numbers where a parameter has `choices`. Returns the numbers of those simulations.
        Raises ValueError for an unknown name (with the nearest), a wrong shape, and a value out of bounds;
        then nothing is changed.
        """
        num = self._batch.nsim
        where = np.ones(num, np.bool_) if mask is None else np.asarray(mask)
        if where.shape != (num,) or where.dtype != np.bool_:
            raise ValueError(f"mask={where}: expected {num} booleans")
        ids = np.flatnonzero(where)
        new = {name: self._check(name, value, ids) for name, value in values.items()}
        for name, value in new.items():
            self.values[name][ids] = value[ids]
            self.changed.add(name)
        self._rows.clear()
        self._write([self.table[name] for name in new], ids)
        return ids

    def _check(self, name: str, value: ArrayLike, ids: Ids) -> Floats:
        parameter = self.table[check_choice("parameter", name, self.table)]
        array = np.asarray(value)
        if array.dtype.kind in "UO" and parameter.choices:
            names = [check_choice(name, str(one), parameter.choices) for one in array.flat]
            chosen = [parameter.choices.index(one) for one in names]
            array = np.reshape(chosen, array.shape)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name}={value!r}: expected numbers in {parameter.unit}")
        array = array.astype(np.float64)
        if array.shape not in ((), (self._batch.nsim,)):
            raise ValueError(f"{name} has shape {array.shape}: expected one number or [{self._batch.nsim}]")
        full: Floats = np.broadcast_to(array, self._batch.nsim)
        # Written so that NaN, for which every comparison is false, is out of bounds.
        bad = ids[~((full[ids] >= parameter.low) & (full[ids] <= parameter.high))]
        if len(bad):
            raise ValueError(
                f"{name}={full[bad[0]]:g} in simulation {bad[0]}: must be between {parameter.low:g} and "
                f"{parameter.high:g} {parameter.unit}"
            )
        return full

    def _write(self, changed: Sequence[Parameter], ids: Ids) -> None:
        rows = {name: value[ids] for name, value in self.values.items()}
        for parameter in changed:
            if parameter.setter:
                parameter.setter(self._batch, ids, rows)
        fields = {field for parameter in changed for field in parameter.fields}
        # The constants that the engine derives from these (inverse weights, for instance) must follow.
        if len(ids) and any(f in mujoco.MjModel._setconst_inputs or f.startswith("opt.") for f in fields):
            self._batch.set_const(ids)

    def row(self, sim: int) -> dict[str, float]:
        """Values in one simulation of the parameters that were ever set."""
        if sim not in self._rows:
            names = [name for name in self.table if name in self.changed]
            self._rows[sim] = {name: float(self.values[name][sim]) for name in names}
        return self._rows[sim]


def table(model: mujoco.MjModel) -> dict[str, Parameter]:
    """Every parameter of a desk's model, by name."""
    groups = (_objects, _arm, _world, _disturbances, _looks)
    return {parameter.name: parameter for group in groups for parameter in group(model)}


def _objects(model: mujoco.MjModel) -> Iterator[Parameter]:
    """Free bodies, and what slides in the desk's furniture."""
    for name, body in free_bodies(model).items():
        mass, geoms = float(model.body_mass[body]), _geoms(model, body)
        friction = float(model.geom_friction[geoms[0], 0])
        yield Parameter(
            name=f"mass_{name}", unit="kg", nominal=mass, low=0.25 * mass, high=6 * mass,
            doc="with its inertia", fields=("body_mass", "body_inertia"), setter=_mass(f"mass_{name}", body),
        )  # fmt: skip
        yield _field(
            f"friction_{name}", "1", friction, (0.1, 2.0), "sliding, on all but the robot",
            ("geom_friction", geoms, 0),
        )  # fmt: skip
    for joint in range(model.njnt):
        name, dof = model.joint(joint).name, int(model.jnt_dofadr[joint])
        fixed = model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE or name.startswith(
            ("joint", "left_", "right_")
        )
        if not fixed and model.dof_damping[dof] > 0:
            yield _factor(f"damping_{name}", (0.3, 3.0), "damping of the joint", ("dof_damping", [dof]))


def _arm(model: mujoco.MjModel) -> Iterator[Parameter]:
    joints = [model.joint(i).name for i in range(model.njnt) if model.joint(i).name.startswith("joint")]
    dofs = [int(model.joint(name).dofadr[0]) for name in joints]
    links = [int(model.jnt_bodyid[model.joint(name).id]) for name in joints]
    servos = [model.actuator(name).id for name in joints]
    gripper = [model.actuator("gripper").id]
    pads = [model.geom(f"{side}_pad").id for side in ("left", "right")]
    yield _factor("link_mass", (0.5, 1.5), "mass and inertia of the arm's links", ("body_mass", links),
                  ("body_inertia", links))  # fmt: skip
    yield _factor("gravity_compensation", (0.8, 1.2), "share of the links' weight that the servos carry",
                  ("body_gravcomp", links))  # fmt: skip
    yield _factor("arm_damping", (0.3, 3.0), "viscous friction of the arm's joints", ("dof_damping", dofs))
    yield _factor("arm_armature", (0.5, 2.0), "rotor inertia of the arm's motors", ("dof_armature", dofs))
    yield _field("arm_frictionloss", "N m", 0.0, (0.0, 3.0), "dry friction of the arm's joints",
                 ("dof_frictionloss", dofs))  # fmt: skip
    for name, ids in (("arm", servos), ("gripper", gripper)):
        yield _factor(f"{name}_gain", (0.5, 2.0), "stiffness of the position servos",
                      ("actuator_gainprm", ids, 0), ("actuator_biasprm", ids, 1))  # fmt: skip
        yield _factor(f"{name}_gain_damping", (0.5, 1.5), "damping of the position servos",
                      ("actuator_biasprm", ids, 2))  # fmt: skip
        yield _factor(f"{name}_force", (0.3, 1.5), "force limit of the servos", ("actuator_forcerange", ids))
    yield _field("friction_fingers", "1", float(model.geom_friction[pads[0], 0]), (0.3, 2.0),
                 "sliding, of the finger pads", ("geom_friction", pads, 0))  # fmt: skip
    for name in joints:
        address = int(model.joint(name).qposadr[0])
        yield _field(f"offset_{name}", "rad", 0.0, (-0.1, 0.1), "encoder reading at the joint's zero",
                     ("qpos0", [address]))  # fmt: skip
    yield _field("latency", "s", 0.0, (0.0, MAX_LATENCY), "from a command to the servos' acting on it",
                 ("actuator_delay", servos + gripper))  # fmt: skip


def _world(model: mujoco.MjModel) -> Iterator[Parameter]:
    for axis, name in enumerate("xyz"):
        nominal = float(model.opt.gravity[axis])
        yield _field(f"gravity_{name}", "m/s^2", nominal, (nominal - 2.0, nominal + 2.0), "gravity",
                     ("opt.gravity", [axis]))  # fmt: skip


def _disturbances(model: mujoco.MjModel) -> Iterator[Parameter]:
    """What `envs.desk.disturbances` and `envs.desk.delay` read."""
    for name, unit, high, doc in (
        ("action_noise", "1", 0.5, "standard deviation on the six motion components, per action"),
        ("joint_noise", "rad", 0.1, "standard deviation on the measured joint angles, per observation"),
        ("object_noise", "m", 0.05, "standard deviation on the observed object positions, per observation"),
        ("object_offset", "m", 0.05, "standard deviation of an error in them that stays for the episode"),
        ("sensor_delay", "s", MAX_SENSOR_DELAY, "age of the observed vector; images come at once"),
        ("push_force", "N", 10.0, "horizontal force on one free object, for one action"),
        ("push_rate", "1/s", 5.0, "how often such a push comes"),
    ):
        yield Parameter(name=name, unit=unit, nominal=0.0, low=0.0, high=high, doc=doc)


def _looks(model: mujoco.MjModel) -> Iterator[Parameter]:
    painted = {name: _geoms(model, body) for name, body in free_bodies(model).items()}
    painted |= {name: [model.geom(name).id] for name in ("desk", "floor")}
    for name, geoms in painted.items():
        for channel, letter in enumerate("rgb"):
            nominal = float(model.geom_rgba[geoms[0], channel])
            yield _field(f"color_{name}_{letter}", "1", nominal, (0.0, 1.0), "colour",
                         ("geom_rgba", geoms, channel))  # fmt: skip
    for name, materials in MATERIALS.items():
        yield Parameter(
            name=f"texture_{name}", unit="1", nominal=0.0, low=0.0, high=float(len(materials)),
            doc=f"by number, rounded down, or name: {', '.join(materials)}; seen with `textures=true`",
            fields=("geom_matid",), setter=_texture(f"texture_{name}", name, tuple(materials)),
            choices=tuple(materials),
        )  # fmt: skip
    for light in range(model.nlight):
        name = model.light(light).name
        yield _factor(
            f"light_{name}_brightness", (0.0, 2.0), "of its diffuse light", ("light_diffuse", [light])
        )
        for axis, letter in enumerate("xyz"):
            nominal = float(model.light_pos[light, axis])
            yield _field(f"light_{name}_{letter}", "m", nominal, (nominal - 1.0, nominal + 1.0), "position",
                         ("light_pos", [light], axis))  # fmt: skip
    for camera in range(model.ncam):
        name = model.camera(camera).name
        fovy = float(model.cam_fovy[camera])
        yield _field(f"camera_{name}_fovy", "deg", fovy, (0.7 * fovy, 1.3 * fovy), "vertical field of view",
                     ("cam_fovy", [camera]))  # fmt: skip
        for axis, letter in enumerate("xyz"):
            nominal = float(model.cam_pos[camera, axis])
            yield _field(f"camera_{name}_{letter}", "m", nominal, (nominal - 0.2, nominal + 0.2),
                         "position in the frame that carries it", ("cam_pos", [camera], axis))  # fmt: skip
        turns = tuple(f"camera_{name}_{turn}" for turn in ("pitch", "yaw", "roll"))
        for turn in turns:
            yield Parameter(
                name=turn, unit="rad", nominal=0.0, low=-0.3, high=0.3, doc="about the camera's own axis",
                fields=("cam_quat",), setter=_turn(turns, camera),
            )  # fmt: skip


def free_bodies(model: mujoco.MjModel) -> dict[str, int]:
    """Name and number of every body that lies free on the desk."""
    free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
    return {model.body(int(model.jnt_bodyid[joint])).name: int(model.jnt_bodyid[joint]) for joint in free}


def _geoms(model: mujoco.MjModel, body: int) -> list[int]:
    return np.flatnonzero(model.geom_bodyid == body).tolist()


# Where in a model: field, objects, and the component if it is one only.
_Place = tuple[str, Sequence[int]] | tuple[str, Sequence[int], int]


def _factor(name: str, bounds: tuple[float, float], doc: str, *places: _Place) -> Parameter:
    return _parameter(name, "1", 1.0, bounds, doc, places, scale=True)


def _field(
    name: str, unit: str, nominal: float, bounds: tuple[float, float], doc: str, *places: _Place
) -> Parameter:
    return _parameter(name, unit, nominal, bounds, doc, places, scale=False)


def _parameter(
    name: str, unit: str, nominal: float, bounds: tuple[float, float], doc: str, places: Sequence[_Place], *,
    scale: bool,
) -> Parameter:  # fmt: skip
    def write(batch: Batch, ids: Ids, values: Mapping[str, Floats]) -> None:
        for field, *index in places:
            key = tuple(np.asarray(part) for part in index)
            shared = np.asarray(getattr(batch.model.opt, field[4:]) if field.startswith("opt.") else
                                getattr(batch.model, field))[key]  # fmt: skip
            value = values[name].reshape(-1, *[1] * shared.ndim)
            batch.expand(field)[(ids[:, None], *key)] = value * shared if scale else value

    low, high = bounds
    fields = tuple(place[0] for place in places)
    return Parameter(
        name=name, unit=unit, nominal=nominal, low=low, high=high, doc=doc, fields=fields, setter=write
    )


def _mass(name: str, body: int) -> Setter:
    def write(batch: Batch, ids: Ids, values: Mapping[str, Floats]) -> None:
        factor = values[name] / batch.model.body_mass[body]
        batch.expand("body_mass")[ids, body] = values[name]
        batch.expand("body_inertia")[ids, body] = factor[:, None] * batch.model.body_inertia[body]

    return write


def _texture(name: str, geom: str, materials: Sequence[str]) -> Setter:
    """Give a geom one of several materials; uniform draws between the bounds take each equally often."""

    def write(batch: Batch, ids: Ids, values: Mapping[str, Floats]) -> None:
        numbers = np.array([batch.model.material(material).id for material in materials])
        chosen = np.minimum(values[name].astype(np.int64), len(materials) - 1)
        batch.expand("geom_matid")[ids, batch.model.geom(geom).id] = numbers[chosen]

    return write


def _turn(names: Sequence[str], camera: int) -> Setter:
    """Turn a camera by a rotation vector in its own frame (x right, y up, -z forward)."""

    def write(batch: Batch, ids: Ids, values: Mapping[str, Floats]) -> None:
        out = batch.expand("cam_quat")
        for i, turn in zip(ids, np.column_stack([values[name] for name in names]), strict=True):
            angle = math.hypot(*turn)
            turned = np.empty(4)
            mujoco.mju_axisAngle2Quat(turned, turn / angle if angle else np.array([1.0, 0.0, 0.0]), angle)
            mujoco.mju_mulQuat(turned, batch.model.cam_quat[camera], turned.copy())
            out[i, camera] = turned

    return write
