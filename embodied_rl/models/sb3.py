"""Stable-Baselines3 in and out: its models as policies, its replay buffers as episodes."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from embodied_rl.data.recorder import Recorder
from embodied_rl.models.policy import Policy
from rl_core.progress import counting

T = TypeVar("T")

# A DDPG model is a TD3 model with one critic; its policies stand in the module td3 as well.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"a2c": A2C, "ppo": PPO, "sac": SAC, "td3": TD3, "ddpg": TD3}


class SB3Policy(Policy):
    """A trained Stable-Baselines3 model; takes the environment's observation fields, returns its actions."""

    def __init__(self, model: BaseAlgorithm, normalize: VecNormalize | None = None) -> None:
        if not isinstance(model.action_space, gym.spaces.Box):
            raise ValueError(
                f"SB3 model: acts in {model.action_space}; only continuous (Box) actions are supported"
            )
        self.model = model
        self._normalize = normalize
        self._dict_obs = isinstance(model.observation_space, gym.spaces.Dict)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        trust: bool = False,
        algorithm: str | None = None,
        vec_normalize: Path | None = None,
        device: str = "cpu",
    ) -> SB3Policy:
        """Load a model saved by `model.save(path)`, and the statistics of `VecNormalize.save` if it has any.

        Both files contain pickles, so `trust=True` is needed. `algorithm` (a2c, ppo, sac, td3, ddpg) is read
        from the file where it is not given. Raises a ValueError for anything that is not such a file.
        """
        path = _existing(path if path.suffix == ".zip" else path.with_name(path.name + ".zip"))
        _require_trust(path, trust)
        name = algorithm or _algorithm_of(path)
        if name not in ALGORITHMS:
            raise ValueError(f"algorithm={name!r}: must be one of {sorted(ALGORITHMS)}")
        model = ALGORITHMS[name].load(path, device=device)
        return cls(model, _load_statistics(vec_normalize) if vec_normalize else None)

    def reset(self, batch: int) -> None:
        """Nothing to forget: recurrent models are not part of Stable-Baselines3."""

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = True) -> np.ndarray:
        """Return actions `[N, A]` in environment units."""
        fields: Any = obs if self._dict_obs else obs["observation"]
        if self._normalize is not None:
            fields = self._normalize.normalize_obs(fields)
        action, _ = self.model.predict(fields, deterministic=deterministic)
        return action

    def check(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Raise a ValueError unless the model was trained for these single-environment spaces."""
        pairs = [
            ("observation", self.model.observation_space, observation_space),
            ("action", self.model.action_space, action_space),
        ]
        for name, ours, theirs in pairs:
            if _shapes(ours) != _shapes(theirs):
                raise ValueError(
                    f"{name}: the SB3 model has {_shapes(ours)}, the environment {_shapes(theirs)}"
                )


def load_replay_buffer(path: Path, *, trust: bool = False) -> ReplayBuffer:
    """Load what `model.save_replay_buffer(path)` wrote; a pickle, so `trust=True` is needed."""
    _require_trust(_existing(path), trust)
    return _unpickle(path, ReplayBuffer)


def replay_to_minari(buffer: ReplayBuffer, recorder: Recorder, *, time_limit: int | None = None) -> None:
    """Record everything a replay buffer holds ("medium-replay"); see `replay_episodes` for what that is."""
    rows = buffer.size() * buffer.n_envs
    with counting("importing", rows) as progress:
        for episode in replay_episodes(buffer, time_limit=time_limit):
            recorder.add_episode(**episode)
            progress(recorder.num_steps)


def replay_episodes(buffer: ReplayBuffer, *, time_limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Cut a replay buffer into episodes, oldest first, environment by environment.

    Yields the arguments of `Recorder.add_episode`: `observations` (`[T+1, ...]`, or a dict of such), `actions
    [T, A]` in environment units (off-policy algorithms store them scaled to [-1, 1]), `rewards`,
    `terminations`, `truncations [T]`. What is left of an episode whose beginning was overwritten is dropped.
    The one still running at the end is kept and marked truncated.

    A buffer without timeout information (`handle_timeout_termination=False`, which `optimize_memory_usage`
    forces) needs `time_limit`: an episode of that length was truncated, any other one terminated. With
    `optimize_memory_usage` the last observation of an episode is overwritten by the next episode's first: a
    truncated episode then loses its last step, and a terminated one repeats its last observation, which no
    target reads.
    """
    if not isinstance(buffer.action_space, gym.spaces.Box):
        raise ValueError(
            f"buffer: holds actions of {buffer.action_space}; only continuous (Box) ones are supported"
        )
    if not buffer.handle_timeout_termination and time_limit is None:
        raise ValueError(
            "time_limit=None: this buffer does not say which episodes ended at the time limit "
            "(handle_timeout_termination=False); give the environment's max_episode_steps"
        )
    size = buffer.buffer_size if buffer.full else buffer.pos
    order = (np.arange(size) + (buffer.pos if buffer.full else 0)) % buffer.buffer_size
    for env in range(buffer.n_envs):
        ends = np.flatnonzero(buffer.dones[order, env])
        # In a full buffer nothing says whether the oldest row begins an episode: its first is a fragment.
        first = ends[0] + 1 if buffer.full and len(ends) else 0
        if buffer.full and not len(ends):
            continue
        starts = [first, *(ends[ends >= first] + 1)]
        for start, stop in zip(starts, [*starts[1:], size], strict=True):
            if stop > start:
                episode = _episode(buffer, order[start:stop], env, time_limit)
                if len(episode["rewards"]):
                    yield episode


def _episode(buffer: ReplayBuffer, rows: np.ndarray, env: int, time_limit: int | None) -> dict[str, Any]:
    ended = bool(buffer.dones[rows[-1], env])
    if buffer.handle_timeout_termination:
        timed_out = bool(buffer.timeouts[rows[-1], env])
    else:
        timed_out = ended and len(rows) == time_limit
    terminated = ended and not timed_out
    overwritten = buffer.optimize_memory_usage and ended
    if overwritten and not terminated:
        rows = rows[:-1]  # its successor is gone, and a truncation bootstraps from it
    if buffer.optimize_memory_usage:
        following = rows[-1:] if terminated else (rows[-1:] + 1) % buffer.buffer_size
        observations = _take(buffer.observations, np.concatenate([rows, following]), env)
    else:
        last = _take(buffer.next_observations, rows[-1:], env)
        observations = _append(_take(buffer.observations, rows, env), last)
    terminations = np.zeros(len(rows), bool)
    truncations = np.zeros(len(rows), bool)
    terminations[-1:], truncations[-1:] = terminated, not terminated
    space = buffer.action_space
    assert isinstance(space, gym.spaces.Box)
    return {
        "observations": observations,
        "actions": space.low + 0.5 * (buffer.actions[rows, env] + 1.0) * (space.high - space.low),
        "rewards": buffer.rewards[rows, env],
        "terminations": terminations,
        "truncations": truncations,
    }


def _take(observations: Any, rows: np.ndarray, env: int) -> Any:
    """Rows of one environment, of an array or of each field."""
    if isinstance(observations, dict):
        return {key: value[rows, env] for key, value in observations.items()}
    return observations[rows, env]


def _append(first: Any, second: Any) -> Any:
    if isinstance(first, dict):
        return {key: np.concatenate([value, second[key]]) for key, value in first.items()}
    return np.concatenate([first, second])


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"path={str(path)!r}: no such file")
    return path


def _require_trust(path: Path, trust: bool) -> None:
    if not trust:
        raise ValueError(
            f"{path}: Stable-Baselines3 files contain Python pickles, and loading one can run any code "
            "that its author put in; set trust=true if you made the file yourself or trust whoever did"
        )


def _algorithm_of(path: Path) -> str:
    """Read the algorithm from the JSON in the file, without unpickling: `stable_baselines3.sac.policies`."""
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
            module: str = data["policy_class"]["__module__"]
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path}: is not a Stable-Baselines3 model ({error})") from error
    parts = module.split(".")
    if len(parts) == 3 and parts[1] in ALGORITHMS:
        return parts[1]
    if module == "stable_baselines3.common.policies":  # PPO and A2C share their policies
        return "ppo" if "n_epochs" in data else "a2c"
    raise ValueError(f"{path}: cannot tell its algorithm from {module}; give algorithm={sorted(ALGORITHMS)}")


def _load_statistics(path: Path) -> VecNormalize:
    statistics = _unpickle(_existing(path), VecNormalize)
    statistics.training = False
    return statistics


def _unpickle(path: Path, expected: type[T]) -> T:
    try:
        with path.open("rb") as file:
            found = pickle.load(file)
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, ValueError) as error:
        raise ValueError(f"{path}: is cut off or not a pickle that can be read here ({error})") from error
    if not isinstance(found, expected):
        raise ValueError(f"{path}: holds a {type(found).__name__}, expected an SB3 {expected.__name__}")
    return found


def _shapes(space: gym.Space[Any]) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {key: value.shape for key, value in space.spaces.items()}
    return space.shape
