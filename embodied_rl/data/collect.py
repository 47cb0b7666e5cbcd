"""Record a policy's episodes as a Minari dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from embodied_rl.data.recorder import Info, Recorder
from embodied_rl.eval.play import Step, has_success, play
from embodied_rl.models.policy import Policy
from rl_core.progress import counting

_TEXTS = ("task", "instruction", "color")  # what an environment says of its episodes, kept where it is there


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What `record` added to a dataset."""

    episodes: int
    steps: int
    mean_return: float
    success_rate: float | None  # None: the environment knows no success

    def __str__(self) -> str:
        rate = "" if self.success_rate is None else f", success {self.success_rate:.0%}"
        return f"{self.episodes} episodes, {self.steps} steps, return {self.mean_return:.3g}{rate}"


def info_of(env: VectorEnv, **more: Any) -> Info:
    """Describe a dataset recorded in `env`; `more` are further fields of `Info` (algorithm_name, author ...).

    What `envs.suites` changed about the environment (reward sign, repairs) is kept as `suite`.
    """
    extra = {"suite": env.metadata["suite"]} if "suite" in env.metadata else {}
    return Info(
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        env_spec=env.spec,
        extra={**extra, **more.pop("extra", {})},
        **more,
    )


def record(
    policy: Policy,
    env: VectorEnv,
    recorder: Recorder,
    *,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    noise: float = 0.0,
) -> Recorded:
    """Add `episodes` episodes of `policy` to a dataset; may be called again for another policy.

    See `episodes_of` for seeds and noise.
    """
    returns, successes, steps = [], [], 0
    with counting("recording", episodes) as progress:
        for episode in episodes_of(
            policy, env, episodes=episodes, seed=seed, deterministic=deterministic, noise=noise
        ):
            recorder.add_episode(**episode)
            returns.append(episode["rewards"].sum())
            if "success" in episode["metadata"]:
                successes.append(episode["metadata"]["success"])
            steps += len(episode["rewards"])
            progress(len(returns))
    return Recorded(
        episodes=episodes,
        steps=steps,
        mean_return=float(np.mean(returns)),
        success_rate=float(np.mean(successes)) if successes else None,
    )


def episodes_of(
    policy: Policy,
    env: VectorEnv,
    *,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    noise: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Yield `episodes` episodes of `policy`, in the order of their seeds `seed`, `seed + 1`, ...

    Each is the arguments of `Recorder.add_episode`; the last observation is the true one, also at a time
    limit. `noise` is the standard deviation of Gaussian noise on actions, as a share of half their range; the
    executed actions are the recorded ones. Waves of `env.num_envs` episodes finish completely, so that short
    episodes are not over-represented. Raises a ValueError for a count below 1 or a negative noise.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes}: must be at least 1")
    if noise < 0:
        raise ValueError(f"noise={noise}: must be at least 0")
    rng = np.random.default_rng(seed)
    space = env.single_action_space
    if not isinstance(space, gym.spaces.Box):
        raise ValueError(f"action space {space}: only continuous (Box) actions are supported")
    low, high = space.low, space.high

    def perturb(action: np.ndarray) -> np.ndarray:
        noisy = action + noise * 0.5 * (high - low) * rng.standard_normal(action.shape)
        return np.clip(noisy, low, high).astype(action.dtype)

    for first in range(0, episodes, env.num_envs):
        indices = range(first, min(first + env.num_envs, episodes))
        wave = play(
            policy, env, indices, seed=seed, deterministic=deterministic, perturb=perturb if noise else None
        )
        steps = list(wave)
        for slot, index in enumerate(indices):
            yield _cut(steps, slot, seed + index, with_success=has_success(env))


def _cut(steps: Sequence[Step], slot: int, seed: int, *, with_success: bool) -> dict[str, Any]:
    """Take one simulation's episode out of a wave."""
    own = [step for step in steps if step.running[slot]]
    start = own[0].start_infos
    texts = {name: str(start[name][slot]) for name in _TEXTS if name in start}
    episode = {
        "observations": _stack([*(_row(step.obs, slot) for step in own), own[-1].final_obs[slot]]),
        "actions": np.stack([step.action[slot] for step in own]),
        "rewards": np.array([step.reward[slot] for step in own]),
        "terminations": np.array([step.terminated[slot] for step in own]),
        "truncations": np.array([step.truncated[slot] for step in own]),
        "metadata": {"seed": seed, **texts},
    }
    if "parameters" in start:  # what the simulation was set to, where anything was
        episode["metadata"]["parameters"] = _parameters(start["parameters"], slot)
    if with_success:
        success = np.array([step.success[slot] for step in own])
        episode["infos"] = {"success": np.concatenate([start["is_success"][slot : slot + 1], success])}
        episode["metadata"]["success"] = bool(success.any())
    return episode


def _parameters(values: Any, slot: int) -> dict[str, float]:
    """One simulation's parameters; Gymnasium turns infos that are dicts into a dict of arrays and masks."""
    if isinstance(values, Mapping):
        return {name: float(value[slot]) for name, value in values.items() if not name.startswith("_")}
    return dict(values[slot])


def _row(tree: Any, slot: int) -> Any:
    """One simulation's part of a batched observation, which may be nested."""
    if isinstance(tree, Mapping):
        return {key: _row(value, slot) for key, value in tree.items()}
    return tree[slot]


def _stack(rows: Sequence[Any]) -> Any:
    if isinstance(rows[0], Mapping):
        return {key: _stack([row[key] for row in rows]) for key in rows[0]}
    return np.stack(rows)
