"""Episodes on many desks: seeds, time limits, success, faults, for one environment or many."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from envs.desk.choices import at_least_one, check_choice
from envs.desk.control import ACTION_DIM, Hand
from envs.desk.delay import SensorDelay
from envs.desk.disturbances import Disturbances
from envs.desk.opengl import BACKENDS
from envs.desk.parameters import Parameters
from envs.desk.scene import Scene, find_scene
from envs.desk.sensing import Observation, Sensors
from envs.desk.simulation import Simulation
from envs.desk.situations import Situation
from envs.desk.speech import Speaker
from envs.desk.state import State, take
from envs.desk.tasks import evaluate, find_tasks, succeeded

# Any value is true or false to Python, also the word "false".
_KINDS = {"obs": str, "max_episode_steps": int} | dict.fromkeys(
    ("shadows", "textures", "terminate_on_success"), bool
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeskOptions:
    """What a user may choose about a desk environment besides the task."""

    obs: str = "state"  # what observations hold, for instance "rgb", "rgbd+state"; see `envs.desk.sensing`
    cameras: str | Sequence[str] = ("static", "wrist")  # whose images they hold
    image_size: int | Sequence[int] = 64  # pixels, or height and width
    shadows: bool = False  # in these images
    textures: bool = False  # on the desk and the floor, in these images and in `render`
    gl: str = ""  # what `render` draws with: rays, or OpenGL by "egl" or "osmesa"
    start: str = "task"  # a situation that the task drawn needs; or "play": any, and a task that fits it
    colors: str | Sequence[str] = ()  # of the blocks that a task may be about; empty for all of the scene
    scene: str | Scene = "calvin"  # a name of `envs.desk.scene.SCENES`, or a scene of one's own
    instructions: str = "seen"  # wordings to draw from: seen, paraphrase (held out) or all
    human: str = ""  # further sentences: "calvin", or a YAML of `task: [sentence, ...]`
    max_episode_steps: int = 60  # control steps of 0.1 s; the episode is truncated there
    terminate_on_success: bool = True
    on_error: str = "reset"  # NaN actions, diverged physics: end that episode with info["error"], or "raise"

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ValueError(f"{name}={value!r}: expected {kind.__name__}")
        check_choice("gl", self.gl, ("", *BACKENDS))
        check_choice("start", self.start, ("task", "play"))
        check_choice("on_error", self.on_error, ("reset", "raise"))
        scene = find_scene(self.scene)
        colors = at_least_one("colors", self.colors or scene.colors)
        for color in colors:
            check_choice("colors", color, scene.colors)
        object.__setattr__(self, "scene", scene)
        object.__setattr__(self, "colors", colors)
        if self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps={self.max_episode_steps}: must be at least 1")

    @classmethod
    def of(cls, **options: Any) -> DeskOptions:
        """The options of these names; a ValueError with the nearest for a name that is none."""
        for name in options:
            check_choice("argument", name, [field.name for field in fields(cls)])
        return cls(**options)


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What one step brought, before any reset; `N` rows."""

    obs: Observation
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    success: NDArray[np.bool_]
    terms: dict[str, NDArray[np.float64]]  # unscaled reward terms in [0, 1]
    errors: dict[int, str]  # simulation to what went wrong in it


class Randomizer(Protocol):
    """Decides the parameters of episodes; called by `Episodes`."""

    def begin(
        self, ids: NDArray[np.int64], seeds: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> Mapping[str, NDArray[np.float64]]:
        """Return values `[N]` for episodes about to begin at `ids`: the `numbers`-th since their `seeds`."""
        ...

    def step(self) -> Mapping[str, NDArray[np.float64]]:
        """Return values `[N]` for the step to come, or none."""
        ...

    def observe(self, outcome: Outcome) -> None:
        """See how a step ended; may add to the words of `outcome.errors`."""
        ...


class Episodes:
    """`num_envs` desks that play one episode after another; the caller says when each begins."""

    def __init__(
        self, num_envs: int, task: str | Sequence[str], options: DeskOptions, num_threads: int | None
    ) -> None:
        if not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
            raise ValueError(f"num_envs={num_envs!r}: must be an integer of at least 1")
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads={num_threads}: must be at least 1, or None for all processors")
        self.options = options
        scene = find_scene(options.scene)
        self.tasks = find_tasks(task, scene)
        speaker = Speaker(self.tasks, scene, wording=options.instructions, human=options.human)
        threads = num_threads or len(os.sched_getaffinity(0))
        self.sim = Simulation(
            num_envs,
            tasks=self.tasks,
            scene=scene,
            colors=options.colors,
            say=speaker.say,
            num_threads=min(threads, num_envs),
            play=options.start == "play",
        )
        self.parameters = Parameters(self.sim.batch)
        self.randomizer: Randomizer | None = None  # None: parameters change by `set_parameters` alone
        self._disturbances = Disturbances(self.sim, self.parameters)
        self._delay = SensorDelay(self.parameters.values["sensor_delay"])
        self._sensors = Sensors(
            self.sim,
            obs=options.obs,
            cameras=options.cameras,
            image_size=options.image_size,
            shadows=options.shadows,
            textures=options.textures,
            text=speaker.space(),
            num_threads=threads,
        )
        self.layout, self.goal_layout = self._sensors.layout, self._sensors.goal_layout
        self.observation_space = self._sensors.space()
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self.elapsed = np.zeros(num_envs, np.int64)  # steps taken in the present episode
        self._seeds = np.zeros(num_envs, np.int64)
        self._played = np.zeros(num_envs, np.int64)  # episodes begun since the seed was set
        self._hand: Hand | None = None  # as measured after the last step or reset
        self._obs: Observation | None = None
        self._everyone = np.arange(num_envs)

    @property
    def num_envs(self) -> int:
        """How many desks there are."""
        return self.sim.num_sims

    def set_parameters(self, values: Mapping[str, ArrayLike], mask: ArrayLike | None = None) -> None:
        """Change parameters from now on; see `Parameters.set`."""
        ids = self.parameters.set(values, mask)
        if self._hand is not None:
            self.sim.batch.forward(ids, stage=mujoco.mjtStage.mjSTAGE_POS.value)
            self._observe(ids)

    def model(self, sim: int) -> mujoco.MjModel:
        """The model of one simulation, with its parameters; read-only."""
        return self.sim.batch.get_model(sim) if self.parameters.changed else self.sim.model

    def seed(self, ids: NDArray[np.int64], seeds: Sequence[int] | NDArray[np.int64]) -> None:
        """Make the simulations' next episodes the first of the given seeds."""
        self._seeds[ids] = seeds
        self._played[ids] = 0

    def begin(self, ids: NDArray[np.int64], situations: Sequence[Situation] | None = None) -> Observation:
        """Begin the next episode in the simulations `ids`, or one in each of the given situations.

        Returns everyone's observation.
        """
        if self._obs is None and len(ids) < self.num_envs:
            raise ValueError(
                f"reset_mask: the first reset must begin all {self.num_envs}, not only {ids.tolist()}"
            )
        # One generator per seed and episode: what an episode draws never depends on how the last one went.
        rngs = [np.random.default_rng([int(self._seeds[i]), int(self._played[i])]) for i in ids]
        if self.randomizer:
            values = self.randomizer.begin(ids, self._seeds[ids], self._played[ids])
            self.parameters.set(values, np.isin(np.arange(self.num_envs), ids))
        self.sim.start(ids, rngs, situations)
        self._played[ids] += 1
        self.elapsed[ids] = 0
        self._disturbances.begin(ids, rngs)
        self._delay.begin(ids)
        return self._observe(ids)

    def assign(self, sim: int, task: int, target: int) -> Observation:
        """Go on in simulation `sim` with another of the tasks, about block `target`, as things stand."""
        rng = np.random.default_rng([int(self._seeds[sim]), int(self._played[sim]), int(self.elapsed[sim])])
        self.sim.assign(sim, task, target, rng)
        self.sim.batch.forward([sim], stage=mujoco.mjtStage.mjSTAGE_POS.value)  # the mark has moved
        return self._observe(np.array([sim]))

    def _observe(self, changed: NDArray[np.int64]) -> Observation:
        """Everyone's observation, after something changed in some simulations only."""
        hand = self.sim.hand()
        return self._remember(hand, self.sim.state(hand), changed)

    def _remember(self, hand: Hand, state: State, changed: NDArray[np.int64]) -> Observation:
        self._hand = hand
        if len(changed) < self.num_envs:
            hand, state = take(hand, changed), take(state, changed)
        seen = self._sensors.observe(*self._disturbances.measure(hand, state, changed), changed)
        if "sensor_delay" in self.parameters.changed:
            (vector,) = seen.keys() & {"observation", "proprioception"}
            seen[vector] = self._delay(seen[vector], changed)
        if self._obs is not None and len(changed) < self.num_envs:
            # Nobody else's noise is drawn anew, or an episode would depend on when others end.
            seen, rows = {key: value.copy() for key, value in self._obs.items()}, seen
            for key, value in rows.items():
                seen[key][changed] = value
        self._obs = seen
        return seen

    def success(self, sims: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the tasks of the `n` simulations `sims` are fulfilled at this moment, `[n]`."""
        assert self._hand is not None
        return succeeded(self.tasks, self.sim.task[sims], take(self.sim.state(self._hand), sims))

    def step(self, action: ArrayLike) -> Outcome:
        """Advance every simulation by one action, `[N, 7]` in [-1, 1].

        Raises ValueError for a wrong shape; for NaN or diverged physics where `on_error` is "raise".
        Otherwise the episode in question is truncated with reward 0, its last sound observation stands for
        the final one, and the caller must begin a new episode.
        """
        if self._hand is None or self._obs is None:
            raise RuntimeError("call reset() before step()")
        try:
            actions = np.array(action, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"action: expected numbers [{self.num_envs}, {ACTION_DIM}] ({error})") from error
        if actions.shape != (self.num_envs, ACTION_DIM):
            raise ValueError(f"action has shape {actions.shape}: expected ({self.num_envs}, {ACTION_DIM})")
        finite = np.isfinite(actions).all(axis=1)
        errors = {int(i): f"action {actions[i].tolist()} is not finite" for i in np.flatnonzero(~finite)}
        actions[~finite] = 0.0
        if errors and self.options.on_error == "raise":
            raise ValueError("; ".join(f"simulation {i}: {text}" for i, text in errors.items()))
        if self.randomizer and (values := self.randomizer.step()):
            self.parameters.set(values)
        actions = self._disturbances.act(actions)
        diverged = np.flatnonzero(self.sim.advance(actions, self._hand))
        self.elapsed += 1
        self._delay.advance()
        errors |= {int(i): f"the physics diverged at step {self.elapsed[i]}" for i in diverged}
        if len(diverged):
            if self.options.on_error == "raise":
                raise FloatingPointError("; ".join(f"simulation {i}: {text}" for i, text in errors.items()))
            # To anything finite: what follows is computed for all rows.
            self.sim.batch.reset(diverged, keyframe=0)
        outcome = self._judge(errors)
        if self.randomizer:
            self.randomizer.observe(outcome)
        return outcome

    def _judge(self, errors: dict[int, str]) -> Outcome:
        assert self._obs is not None
        before = self._obs
        hand = self.sim.hand()
        state = self.sim.state(hand)
        obs = self._remember(hand, state, self._everyone)
        reward, success, terms = evaluate(self.tasks, self.sim.task, state)
        truncated = self.elapsed >= self.options.max_episode_steps
        if errors:
            failed = np.array(list(errors))
            for key, value in obs.items():
                value[failed] = before[key][failed]
            reward[failed], success[failed], truncated[failed] = 0.0, False, True
            for term in terms.values():
                term[failed] = 0.0
        terminated = success & self.options.terminate_on_success
        return Outcome(
            obs=obs,
            reward=reward,
            terminated=terminated,
            truncated=truncated & ~terminated,
            success=success,
            terms=terms,
            errors=errors,
        )
