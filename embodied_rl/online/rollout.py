"""Acting in a vector environment to learn from it: fixed numbers of steps into arrays `[N, T]`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from embodied_rl.data.types import Spec, as_fields
from envs.config import Config as EnvConfig
from envs.desk.vector import DeskVectorEnv
from envs.suites import DESK, make_vec
from rl_core import run as runs
from rl_core.checkpoint import Stateful
from rl_core.config import choice, require

FIXED = ("run.checkpoint_every",)  # what a resumed run may not change: it decides when episodes begin


@dataclass(kw_only=True, slots=True)
class Config:
    """How much is seen between two updates, and by whom."""

    num_envs: int = 64
    horizon: int = 64  # steps of each environment between two updates
    threads: int = 0  # of the desk's physics; 0: every core
    parallel: bool = False  # other environments: one process each
    obs_keys: tuple[str, ...] = ()  # observation fields the policy reads; empty: all vectors
    critic_keys: tuple[str, ...] = ()  # fields that only the critic reads, beside those of the policy

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.num_envs >= 1, "rollout.num_envs", self.num_envs, "at least 1")
        require(self.horizon >= 1, "rollout.horizon", self.horizon, "at least 1")
        require(self.threads >= 0, "rollout.threads", self.threads, "at least 0")
        both = sorted(set(self.obs_keys) & set(self.critic_keys))
        require(not both, "rollout.critic_keys", both, "fields that are not among rollout.obs_keys")


@dataclass(kw_only=True, slots=True)
class World:
    """Where to act, what the policy and what the critic see; a context manager that closes it."""

    env: VectorEnv
    spec: Spec  # of the policy
    critic_spec: Spec  # the policy's fields, then the critic's own
    horizon: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.env.close()

    @property
    def num_steps(self) -> int:
        """Environment steps of one rollout."""
        return self.env.num_envs * self.horizon

    @property
    def stateful(self) -> dict[str, Stateful]:
        """What of the environment belongs in a checkpoint: a wrapper's curriculum, for instance."""
        return {"env": self.env} if isinstance(self.env, Stateful) else {}


def open_world(env: EnvConfig, cfg: Config, make: Callable[..., VectorEnv] = make_vec) -> World:
    """Make the vector environment and choose its observation fields; an empty `env.id` is the desk.

    `make` takes the arguments of `make_vec`.

    Raises ValueError for an unknown environment, task or field (with the nearest), and for images.
    """
    env_id, arguments = env.id or DESK, env.arguments()
    how: dict[str, Any] = {"threads": cfg.threads or None} if env_id == DESK else {"parallel": cfg.parallel}
    made = make(env_id, cfg.num_envs, **how, **arguments)
    return world_of(made, cfg, env_id, arguments)


def world_of(env: VectorEnv, cfg: Config, env_id: str, arguments: Mapping[str, Any] | None = None) -> World:
    """Choose the observation fields of a vector environment that is there already."""
    whole = Spec.from_spaces(env.single_observation_space, env.single_action_space, env_id, arguments)
    keys = cfg.obs_keys or tuple(key for key in whole.obs_keys if key not in cfg.critic_keys)
    return World(
        env=env,
        spec=_select(whole, keys, "rollout.obs_keys"),
        critic_spec=_select(whole, (*keys, *cfg.critic_keys), "rollout.critic_keys"),
        horizon=cfg.horizon,
    )


def _select(spec: Spec, keys: tuple[str, ...], field: str) -> Spec:
    dims = dict(zip(spec.obs_keys, spec.obs_dims, strict=True))
    for key in keys:
        choice(field, key, dims)
    return dataclasses.replace(spec, obs_keys=keys, obs_dims=tuple(dims[key] for key in keys))


def episode_limit(env: VectorEnv) -> int | None:
    """Steps after which an episode is truncated, where the environment says so."""
    base: Any = env.unwrapped
    if isinstance(base, DeskVectorEnv):
        return base.episodes.options.max_episode_steps
    spec = base.spec
    if spec is None and hasattr(base, "get_attr"):  # Gymnasium leaves it with the single environments
        spec = base.get_attr("spec")[0]
    return None if spec is None else spec.max_episode_steps


def require_whole_episodes(world: World, cfg: runs.Config) -> None:
    """Raise a ValueError where new episodes begin (`begin_where_due`) before one can reach its time limit.

    What comes late in an episode would never be seen, and only episodes that end early would be counted.
    """
    limit, span = episode_limit(world.env), cfg.checkpoint_every * world.horizon
    if limit is None or cfg.steps <= cfg.checkpoint_every:
        return
    require(
        span >= limit,
        "run.checkpoint_every",
        cfg.checkpoint_every,
        f"at least {math.ceil(limit / world.horizon)} with rollout.horizon={world.horizon}: new episodes "
        f"begin after every checkpoint, here after {span} steps, and one may last {limit}",
    )


@dataclass(kw_only=True, slots=True)
class Steps:
    """`N` environments x `T` steps; `D` counts the policy's observation and the critic's fields after it.

    The arrays belong to the collector and are overwritten by its next rollout.
    """

    obs: Tensor  # [N, T, D] float32, as observed
    action: Tensor  # [N, T, A] as the policy chose it; the environment got it clipped to [-1, 1]
    reward: Tensor  # [N, T] float32
    terminated: Tensor  # [N, T] bool
    truncated: Tensor  # [N, T] bool
    first: Tensor  # [N, T] bool: the step begins an episode
    state: Tensor  # [N, S] what a recurrent policy remembered before the first step
    next_obs: Tensor  # [N, D] after the last step; where an episode ended, of the next one
    cut: Tensor  # [K, 2] int64 row and step of every truncation
    cut_obs: Tensor  # [K, D] the observation that the truncated episode ended in

    @property
    def ended(self) -> Tensor:
        """Where an episode ends, `[N, T]` bool."""
        return self.terminated | self.truncated


# From observations [N, D] and the memory [N, S] to actions [N, A] in [-1, 1] and the memory after them.
Act = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


class Collector:
    """Steps a world and keeps what came of it; episodes run on from one rollout to the next.

    Raises ValueError for an environment that does not reset in the step that ends an episode.
    """

    def __init__(self, world: World, device: torch.device, *, state_dim: int = 0) -> None:
        env, spec, horizon = world.env, world.critic_spec, world.horizon
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError("env: needs AutoresetMode.SAME_STEP; make it with envs.suites.make_vec")
        self._env, self._spec, self._device = env, spec, device
        num = env.num_envs
        self.noise_shape = (horizon, num, spec.action_dim)  # of the random numbers of one rollout
        self._obs = np.zeros((num, horizon, spec.obs_dim), np.float32)
        self._action = torch.zeros(num, horizon, spec.action_dim, device=device)
        self._reward = np.zeros((num, horizon), np.float32)
        self._terminated, self._truncated, self._first = (np.zeros((num, horizon), np.bool_) for _ in "ttf")
        self._state = torch.zeros(num, state_dim, device=device)
        self._now: np.ndarray | None = None  # [N, D] the present observations
        self._starts = np.ones(num, np.bool_)  # [N] whether the next step begins an episode
        self._tally = _Tally(num)

    @property
    def started(self) -> bool:
        """Whether there are episodes to go on with."""
        return self._now is not None

    def reset(self, seed: int) -> None:
        """Begin new episodes everywhere; those under way are left."""
        obs, _ = self._env.reset(seed=seed)
        self._now = self._spec.flatten(as_fields(obs))
        self._starts[:] = True
        self._state.zero_()
        self._tally = _Tally(self._env.num_envs)

    @torch.no_grad()
    def collect(self, act: Act) -> Steps:
        """Take `horizon` steps in every environment; `act(obs, memory, t)` is asked once per step."""
        assert self._now is not None, "reset() first"
        begin = self._state.clone()
        cut: list[tuple[int, int]] = []
        cut_obs: list[np.ndarray] = []
        for t in range(self._reward.shape[1]):
            self._obs[:, t], self._first[:, t] = self._now, self._starts
            action, self._state = act(torch.from_numpy(self._now).to(self._device), self._state, t)
            self._action[:, t] = action
            executed = self._spec.to_env_action(action.clamp(-1.0, 1.0).cpu().numpy())
            obs, reward, terminated, truncated, infos = self._env.step(executed)
            self._reward[:, t], self._terminated[:, t], self._truncated[:, t] = reward, terminated, truncated
            self._now = self._spec.flatten(as_fields(obs))
            self._starts = terminated | truncated
            self._tally.add(reward, self._starts, infos)
            if self._starts.any():
                self._state[torch.from_numpy(self._starts).to(self._device)] = 0.0
            rows = np.flatnonzero(truncated & ~terminated)
            if len(rows):
                cut += [(int(row), t) for row in rows]
                cut_obs.append(final_obs(infos, rows, self._spec))
        return self._steps(begin, cut, cut_obs)

    def _steps(self, begin: Tensor, cut: list[tuple[int, int]], cut_obs: list[np.ndarray]) -> Steps:
        assert self._now is not None
        finals = np.concatenate(cut_obs) if cut_obs else np.zeros((0, self._spec.obs_dim), np.float32)
        move = [torch.from_numpy(x).to(self._device) for x in (self._obs, self._reward, self._now, finals)]
        flags = [torch.from_numpy(x).to(self._device) for x in (self._terminated, self._truncated)]
        return Steps(
            obs=move[0],
            action=self._action,
            reward=move[1],
            terminated=flags[0],
            truncated=flags[1],
            first=torch.from_numpy(self._first).to(self._device),
            state=begin,
            next_obs=move[2],
            cut=torch.tensor(cut, dtype=torch.int64, device=self._device).reshape(-1, 2),
            cut_obs=move[3],
        )

    def finished(self) -> dict[str, float]:
        """Mean return, length and success of the episodes that ended since the last call, if any did."""
        return self._tally.take()


def begin_where_due(collector: Collector, run: runs.Run, step: int) -> bool:
    """Begin new episodes after every checkpoint, and where none are under way; returns whether it did.

    The state of an environment cannot be saved. So a run that was resumed from a checkpoint equals one that
    was never stopped.
    """
    due = not collector.started or (step - 1) % run.cfg.checkpoint_every == 0
    if due:
        collector.reset(int(run.numpy_rng.integers(2**31)))
    return due


def final_obs(infos: Mapping[str, Any], rows: np.ndarray, spec: Spec) -> np.ndarray:
    """Last observations `[K, D]` of the episodes that ended in `rows` (at least one; SAME_STEP autoreset)."""
    finals = [as_fields(infos["final_obs"][row]) for row in rows]
    return spec.flatten({key: np.stack([final[key] for final in finals]) for key in spec.obs_keys})


class _Tally:
    """Returns, lengths and successes of the episodes under way."""

    def __init__(self, num_envs: int) -> None:
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, np.int64)
        self._success = np.zeros(num_envs, np.bool_)
        self._done: dict[str, list[Sequence[float]]] = {}

    def add(self, reward: np.ndarray, ended: np.ndarray, infos: Mapping[str, Any]) -> None:
        self._return += reward
        self._length += 1
        if "is_success" in infos:
            self._success |= infos["is_success"] & ~ended
        if not ended.any():
            return
        if "is_success" in infos.get("final_info", {}):
            last = self._success | np.asarray(infos["final_info"]["is_success"], np.bool_)
            self._done.setdefault("success", []).append(last[ended].astype(float).tolist())
        self._done.setdefault("return", []).append(self._return[ended].tolist())
        self._done.setdefault("length", []).append(self._length[ended].tolist())
        self._return[ended], self._length[ended], self._success[ended] = 0.0, 0, False

    def take(self) -> dict[str, float]:
        done, self._done = self._done, {}
        return {name: float(np.concatenate(values).mean()) for name, values in done.items()}
