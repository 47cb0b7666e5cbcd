"""D4RL's HDF5 files (Fu et al. 2020, arXiv:2004.07219) as Minari datasets.

A file holds flat arrays `observations, actions, rewards, terminals` and mostly `timeouts`, some
`next_observations` and `infos/*`. An episode ends at a terminal or timeout. Without `next_observations` there
is no final observation: as in D4RL's `qlearning_dataset`, the last transition of a timed-out episode is
dropped; that of a terminated one is kept, with its own observation in place of the unknown successor, from
which nothing is ever bootstrapped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np

from embodied_rl.data.hdf5_reader import open_hdf5
from embodied_rl.data.recorder import Info, Recorder
from envs.suites import make
from rl_core.progress import counting


def import_d4rl(
    path: Path | str,
    dataset_id: str,
    root: Path | str | None = None,
    *,
    env_id: str = "",
    max_episode_steps: int | None = None,
    overwrite: bool = False,
) -> int:
    """Convert a D4RL file; return the number of episodes.

    `env_id`: a Gymnasium environment whose spec and spaces the dataset gets; without it actions are in
    [-1, 1]. `max_episode_steps` cuts episodes where a file has no `timeouts`. Raises ValueError for a file
    that is not D4RL's, and for spaces that do not fit.
    """
    with open_hdf5(path) as file:
        missing = {"observations", "actions", "rewards", "terminals"} - set(file)
        if missing:
            raise ValueError(f"{path}: fields {sorted(missing)} are missing, this is no D4RL file")
        terminals = file["terminals"][()].astype(bool).reshape(-1)
        timeouts = _timeouts(path, file, terminals, max_episode_steps)
        info = _info(file, env_id)
        edges = np.flatnonzero(terminals | timeouts) + 1
        if not len(edges) or edges[-1] != len(terminals):
            edges = np.append(edges, len(terminals))  # the recording stopped in mid-episode: a truncation
        with (
            Recorder(dataset_id, info, root, overwrite=overwrite) as recorder,
            counting("importing", len(terminals)) as progress,
        ):
            for start, end in zip(np.append(0, edges[:-1]), edges, strict=True):
                _add(recorder, file, int(start), int(end), bool(terminals[end - 1]))
                progress(int(end))
        return recorder.num_episodes


def _timeouts(
    path: Path | str, file: h5py.File, terminals: np.ndarray, max_episode_steps: int | None
) -> np.ndarray:
    if "timeouts" in file:
        return np.asarray(file["timeouts"], bool).reshape(-1)
    if max_episode_steps is None:
        raise ValueError(
            f"{path} has no 'timeouts': pass max_episode_steps, the time limit of its environment"
        )
    timeouts = np.zeros_like(terminals)
    steps = 0
    for i, terminal in enumerate(terminals):
        steps += 1
        timeouts[i] = steps == max_episode_steps and not terminal
        steps = 0 if terminal or timeouts[i] else steps
    return timeouts


def _info(file: h5py.File, env_id: str) -> Info:
    obs_shape, action_shape = file["observations"].shape[1:], file["actions"].shape[1:]
    observation_space: gym.Space[Any] = gym.spaces.Box(-np.inf, np.inf, obs_shape, np.float32)
    action_space: gym.Space[Any] = gym.spaces.Box(-1.0, 1.0, action_shape, np.float32)
    env_spec = None
    if env_id:
        env = make(env_id)
        env_spec, observation_space, action_space = env.spec, env.observation_space, env.action_space
        env.close()
        for name, space, shape in (
            ("observation", observation_space, obs_shape),
            ("action", action_space, action_shape),
        ):
            if space.shape != shape:
                raise ValueError(f"{name}: the file has shape {shape}, {env_id} has {space.shape}")
    return Info(
        observation_space=observation_space,
        action_space=action_space,
        env_spec=env_spec,
        description="imported from a D4RL file",
        extra={"final_observation": "next_observations" if "next_observations" in file else "none recorded"},
    )


def _add(recorder: Recorder, file: h5py.File, start: int, end: int, terminated: bool) -> None:
    obs = file["observations"][start:end]
    if "next_observations" in file:
        obs = np.concatenate([obs, file["next_observations"][end - 1 : end]])
    elif terminated:
        obs = np.concatenate([obs, obs[-1:]])
    else:
        end -= 1
        if end == start:  # a single step without a successor
            return
    steps = end - start
    last = np.arange(steps) == steps - 1
    recorder.add_episode(
        obs,
        file["actions"][start:end],
        rewards=file["rewards"][start:end].reshape(-1),
        terminations=last & terminated,
        truncations=last & (not terminated),
        infos={
            key: value[start:end]  # of the observations before each action, as recorded
            for key, value in file.get("infos", {}).items()
            if isinstance(value, h5py.Dataset) and len(value) == len(file["actions"])
        },
    )
