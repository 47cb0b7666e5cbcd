"""Randomisation of any MuJoCo task: parameters by model field and object name, and what sets them.

`body_mass[object0]`, `geom_friction[table]`, `dof_damping[elbow]`, `actuator_gainprm[*]` are factors on the
model's own numbers, nominally 1; `geom_friction[table,0]` (one component) and `opt.gravity[2]` are the
numbers themselves. Objects without a name go by their number. After every draw `mj_setConst` recomputes what
the engine derives from the model (inverse weights, subtree masses and so on).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from embodied_rl.sim2real.distributions import Known
from embodied_rl.sim2real.randomization import (
    Config,
    Draw,
    Randomization,
    Sampler,
    describe,
    randomize_desk,
    stream,
)
from envs.suites import DESK, make_vec
from rl_core.checkpoint import Stateful

_CHECK_STEPS = 20  # physics steps that a drawn model must survive at rest
_LARGEST_FACTOR = 1e3

# Field, kind of object that names its rows, least component; greatest is unbounded except for colours.
_FIELDS = {
    "body_mass": ("body", 0.0), "body_inertia": ("body", 0.0), "body_ipos": ("body", -math.inf),
    "body_gravcomp": ("body", 0.0), "geom_friction": ("geom", 0.0), "geom_rgba": ("geom", 0.0),
    "dof_damping": ("dof", 0.0), "dof_armature": ("dof", 0.0), "dof_frictionloss": ("dof", 0.0),
    "jnt_stiffness": ("joint", 0.0), "actuator_gainprm": ("actuator", -math.inf),
    "actuator_biasprm": ("actuator", -math.inf), "actuator_gear": ("actuator", -math.inf),
    "actuator_forcerange": ("actuator", -math.inf), "tendon_damping": ("tendon", 0.0),
    "cam_pos": ("camera", -math.inf), "cam_fovy": ("camera", 1.0), "light_pos": ("light", -math.inf),
}  # fmt: skip
_BAD = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelParameter:
    """One number of a model."""

    name: str
    field: str
    row: int | None  # None: a field of `model.opt`
    component: int | None  # None: all of the row, by a factor
    nominal: float
    low: float
    high: float
    unit: str = "1"
    choices: tuple[str, ...] = ()


def model_table(model: mujoco.MjModel) -> dict[str, ModelParameter]:
    """Every parameter of a model, by name."""
    return {parameter.name: parameter for parameter in _parameters(model)}


def _parameters(model: mujoco.MjModel) -> Iterator[ModelParameter]:
    for field, (kind, least) in _FIELDS.items():
        array = getattr(model, field)
        values = array.reshape(len(array), math.prod(array.shape[1:]))
        for row, label in enumerate(_labels(model, kind, len(values))):
            yield ModelParameter(name=f"{field}[{label}]", field=field, row=row, component=None, nominal=1.0,
                                 low=0.0, high=_LARGEST_FACTOR)  # fmt: skip
            for component in range(values.shape[1]):
                yield ModelParameter(
                    name=f"{field}[{label},{component}]", field=field, row=row, component=component,
                    nominal=float(values[row, component]), low=least,
                    high=1.0 if field == "geom_rgba" else math.inf, unit="model units",
                )  # fmt: skip
    for component in range(3):
        yield ModelParameter(name=f"opt.gravity[{component}]", field="gravity", row=None, component=component,
                             nominal=float(model.opt.gravity[component]), low=-math.inf, high=math.inf,
                             unit="m/s^2")  # fmt: skip


def _labels(model: mujoco.MjModel, kind: str, count: int) -> list[str]:
    """Names of a field's rows; a joint with several degrees of freedom numbers them, `free.0` to `free.5`."""
    if kind != "dof":
        return [getattr(model, kind)(row).name or str(row) for row in range(count)]
    labels = []
    for dof in range(count):
        joint = int(model.dof_jntid[dof])
        name = model.joint(joint).name or str(joint)
        same = int((model.dof_jntid == joint).sum())
        labels.append(name if same == 1 else f"{name}.{dof - int(model.jnt_dofadr[joint])}")
    return labels


class ModelParameters:
    """Sets parameters of one model, always starting from the numbers it had at first."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.table = model_table(model)
        self._model = model
        self._scratch = mujoco.MjData(model)
        self._nominal = {name: getattr(model, name).copy() for name in _FIELDS} | {
            "gravity": model.opt.gravity.copy()
        }

    def set(self, values: Mapping[str, float]) -> None:
        """Write `values`, factors before single components, and recompute the derived constants.

        What is named by several entries gets the product of their factors; a mass brings its inertia along.
        """
        chosen = [self.table[name] for name in values]
        for field in {parameter.field for parameter in chosen}:
            self._array(field)[...] = self._nominal[field]
        if any(parameter.field == "body_mass" for parameter in chosen):
            self._model.body_inertia[...] = self._nominal["body_inertia"]
        for parameter in sorted(chosen, key=lambda p: p.component is not None):
            self._write(parameter, values[parameter.name])
        if any(parameter.field in mujoco.MjModel._setconst_inputs for parameter in chosen):
            mujoco.mj_setConst(self._model, self._scratch)

    def _array(self, field: str) -> NDArray[np.float64]:
        array: NDArray[np.float64] = (
            self._model.opt.gravity if field == "gravity" else getattr(self._model, field)
        )
        return array

    def _write(self, parameter: ModelParameter, value: float) -> None:
        array = self._array(parameter.field)
        if parameter.row is None:
            array[parameter.component] = value
            return
        if parameter.component is None:
            array[parameter.row] *= value
            factor = value
        else:
            row = array[parameter.row : parameter.row + 1].reshape(-1)  # a view, also of a single number
            row[parameter.component] = value
            factor = value / parameter.nominal if parameter.nominal else 1.0
        if parameter.field == "body_mass":
            self._model.body_inertia[parameter.row] *= factor


class RandomizedEnv(gym.Wrapper):
    """A MuJoCo environment whose model is drawn anew for every episode.

    `info["parameters"]` holds the draw. A draw with which the simulation does not even stand still, for
    `_CHECK_STEPS` physics steps after a reset, is drawn again, up to `redraws` times, and counted in
    `num_unstable`. An episode that diverges later is truncated with `info["error"]`, which names the draw;
    the last sound observation stands for the final one, the reward is 0.
    """

    def __init__(self, env: gym.Env, sampler: Sampler, *, redraws: int = Config().redraws) -> None:
        super().__init__(env)
        unwrapped: Any = env.unwrapped
        if not hasattr(unwrapped, "model") or not isinstance(unwrapped.model, mujoco.MjModel):
            raise ValueError(f"{env}: has no MuJoCo model whose parameters could be drawn")
        self._mujoco = unwrapped
        self._parameters = ModelParameters(unwrapped.model)
        self._sampler = sampler
        self._redraws = redraws
        self._seed, self._number = 0, -1
        self._draw = Draw(values={})
        self._rng = np.random.default_rng(0)  # replaced when an episode begins
        self._obs: Any = None
        self._knows_success = env.metadata.get("suite", {}).get("has_success", True)
        self._success, self._return = False, 0.0
        self._then = 0.0  # the simulation's clock when the last step ended
        self.num_unstable = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draw and begin an episode; raises ValueError after too many unstable draws in a row."""
        if seed is None and self._number < 0:
            seed = int(self.env.unwrapped.np_random.integers(2**31))
        self._number += 1
        if seed is not None:
            self._seed, self._number = seed, 0
        self._rng = stream(self._seed, self._number)
        for _ in range(self._redraws):
            self._draw = self._sampler.episode(self._rng)
            self._parameters.set(self._draw.values)
            self._obs, info = self.env.reset(seed=seed, options=options)
            if self._stands_still():
                self._success, self._return, self._then = False, 0.0, self._mujoco.data.time
                return self._obs, {**info, "parameters": dict(self._draw.values)}
            self.num_unstable += 1
        raise ValueError(
            f"randomization: {self._redraws} draws in a row make the simulation unstable, the last one "
            f"{describe(self._draw.values)}; narrow the distributions"
        )

    def _stands_still(self) -> bool:
        model, data = self._mujoco.model, mujoco.MjData(self._mujoco.model)
        mujoco.mj_copyData(data, model, self._mujoco.data)
        mujoco.mj_step(model, data, nstep=_CHECK_STEPS)
        return not _diverged(data)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; see the class about divergence."""
        if self._sampler.per_step:
            seconds = self._mujoco.data.time - self._then  # not every task of the suites knows its `dt`
            self._sampler.step(self._draw, self._rng, seconds)
            self._parameters.set(self._draw.values)
        self._then = self._mujoco.data.time
        obs, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "parameters": dict(self._draw.values)}
        if _diverged(self._mujoco.data):
            self.num_unstable += 1
            self._sampler.finished(self._draw, 0.0 if self._knows_success else self._return)
            error = f"the physics diverged with {describe(self._draw.values)}"
            return self._obs, 0.0, False, True, {**info, "error": error}
        self._obs = obs
        self._success |= bool(info.get("is_success", False))
        self._return += float(reward)
        if terminated or truncated:
            self._sampler.finished(self._draw, float(self._success) if self._knows_success else self._return)
        return obs, float(reward), terminated, truncated, info


def _diverged(data: mujoco.MjData) -> bool:
    """Whether the engine has warned of coordinates or accelerations that are huge or no numbers."""
    warned = any(data.warning[int(getattr(mujoco.mjtWarning, name))].number for name in _BAD)
    return warned or not np.isfinite(data.qpos).all()


def make_randomized(
    env_id: str, num_envs: int, sampler: Sampler, *, redraws: int = Config().redraws, **kwargs: Any
) -> VectorEnv:
    """Make a vector environment, the desk or any MuJoCo task, whose episodes are drawn from `sampler`.

    `kwargs` are those of `envs.suites.make_vec`. Raises ValueError for several processes where the sampler
    learns from how episodes end, as automatic domain randomisation does.
    """
    if isinstance(sampler, Stateful) and kwargs.get("parallel"):
        raise ValueError(
            "parallel=True: each process would widen ranges of its own; adr needs one process "
            "(rollout.parallel=false; the desk steps on threads)"
        )
    if env_id == DESK:
        env = make_vec(env_id, num_envs, **kwargs)
        randomize_desk(env, sampler, redraws=redraws)
        return env
    return make_vec(env_id, num_envs, wrap=lambda one: RandomizedEnv(one, sampler, redraws=redraws), **kwargs)


def open_drawn(env_id: str, num_envs: int, config: Config, **kwargs: Any) -> VectorEnv:
    """Make a vector environment whose episodes are drawn as `config` says, nominal ones where it is empty."""
    if not config.parameters:
        return make_vec(env_id, num_envs, **kwargs)
    sampler = fixed(env_id, config, **kwargs)
    return make_randomized(env_id, num_envs, sampler, redraws=config.redraws, **kwargs)


def num_unstable(env: VectorEnv) -> int:
    """How many draws of a randomised environment made its physics diverge."""
    base: Any = env.unwrapped
    if hasattr(base, "episodes"):  # the desk's
        return int(base.episodes.randomizer.num_unstable)
    return int(sum(base.get_attr("num_unstable")))


def parameters_of(env_id: str, **kwargs: Any) -> Mapping[str, Known]:
    """What can be drawn in an environment, by name; `kwargs` as for `envs.suites.make_vec`."""
    env = make_vec(env_id, 1, **kwargs)
    try:
        if env_id == DESK:
            known: Mapping[str, Known] = env.unwrapped.episodes.parameters.table  # type: ignore[attr-defined]
            return known
        return model_table(env.envs[0].unwrapped.model)  # type: ignore[attr-defined]
    finally:
        env.close()


def fixed(env_id: str, config: Config, **kwargs: Any) -> Randomization:
    """Check a configuration against an environment; see `distributions.rules` for the errors."""
    return Randomization.of(config, parameters_of(env_id, **kwargs))
