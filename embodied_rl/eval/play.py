"""Episodes side by side in a vector environment: what evaluation and data collection have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from embodied_rl.data.types import as_fields
from embodied_rl.models.policy import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of all simulations of a wave; rows that are not `running` belong to no episode."""

    start_infos: Mapping[str, Any]  # of the reset that began the episodes: task, instruction ...
    obs: Any  # what the policy saw, batched
    action: np.ndarray  # [N, A] as given to the environment
    reward: np.ndarray  # [N]
    terminated: np.ndarray  # [N] bool
    truncated: np.ndarray  # [N] bool
    success: np.ndarray  # [N] bool, of the state that the action led to
    next_obs: Any  # batched; where an episode ended it is the next one's first
    final_obs: Sequence[Any]  # [N] the last observation of each episode that ended now, else None
    running: np.ndarray  # [N] bool, before the step
    latency_ms: float

    @property
    def ended(self) -> np.ndarray:
        """Where an episode of this wave ends, `[N]` bool."""
        ended: np.ndarray = self.running & (self.terminated | self.truncated)
        return ended


def play(
    policy: Policy,
    env: VectorEnv,
    indices: Sequence[int],
    *,
    seed: int,
    deterministic: bool = True,
    perturb: Callable[[np.ndarray], np.ndarray] | None = None,
    watch: Callable[[np.ndarray], None] | None = None,
) -> Iterator[Step]:
    """Yield every step of the episodes `indices` (at most `env.num_envs`), played side by side to their ends.

    Episode `i` is reset with seed `seed + i`. `perturb` changes the actions before they are executed, `watch`
    is called with `running [N]` in every state from which a step is taken (and so never sees a final one).
    Raises a ValueError for environments that do not reset in the step that ends an episode.
    """
    if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
        raise ValueError("env: needs AutoresetMode.SAME_STEP; make it with envs.suites.make_vec")
    num = env.num_envs
    assert 0 < len(indices) <= num
    # Simulations without an episode idle along; the base class types one seed, all classes take many.
    seeds: Any = [seed + i for i in (*indices, *range(indices[-1] + 1, indices[-1] + 1 + num - len(indices)))]
    obs, start_infos = env.reset(seed=seeds)
    policy.reset(num)
    running = np.arange(num) < len(indices)
    while running.any():
        if watch:
            watch(running)
        before = time.perf_counter()
        action = policy.act(as_fields(obs), deterministic)
        latency_ms = 1000.0 * (time.perf_counter() - before)
        action = perturb(action) if perturb else action
        next_obs, reward, terminated, truncated, infos = env.step(action)
        done = terminated | truncated
        yield Step(
            start_infos=start_infos,
            obs=obs,
            action=action,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            success=_success(infos, done),
            next_obs=next_obs,
            final_obs=infos["final_obs"] if done.any() else [None] * num,
            running=running,
            latency_ms=latency_ms,
        )
        obs, running = next_obs, running & ~done


def _success(infos: Mapping[str, Any], done: np.ndarray) -> np.ndarray:
    """Success of the step just taken, `[N]`; SAME_STEP autoreset moves it to final_info at an end."""
    success: np.ndarray = infos["is_success"]
    return np.where(done, infos["final_info"]["is_success"], success) if done.any() else success


def env_id(env: VectorEnv) -> str:
    """Return the id an environment was made with."""
    if env.spec is None:
        raise ValueError("env: has no spec and so no id; make it with envs.suites.make_vec")
    return env.spec.id


def has_success(env: VectorEnv) -> bool:
    """Whether `is_success` means anything in this environment; `envs.suites` says so, others are believed."""
    return bool(env.metadata.get("suite", {}).get("has_success", True))
