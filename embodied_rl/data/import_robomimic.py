"""robomimic's HDF5 files (Mandlekar et al. 2021, arXiv:2108.03298) as Minari datasets.

A file holds `data/demo_<i>` with `obs/*`, mostly `next_obs/*`, `actions, rewards, dones, states`, and the
environment as JSON in `data.attrs["env_args"]`, which the dataset's metadata keep under `robomimic_env_args`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np

from embodied_rl.data.hdf5_reader import open_hdf5
from embodied_rl.data.recorder import Info, Recorder
from rl_core.config import did_you_mean
from rl_core.progress import counting


def import_robomimic(
    path: Path | str,
    dataset_id: str,
    root: Path | str | None = None,
    *,
    filter_key: str = "",
    overwrite: bool = False,
) -> int:
    """Convert a robomimic file, or its demonstrations listed under `mask/<filter_key>`; return their number.

    Observations become a Dict of the fields in `obs`, images uint8. `dones` become terminations. Without
    `next_obs` an episode has no final observation and its last step is dropped. Raises ValueError for a file
    that is not robomimic's and for an unknown filter key.
    """
    with open_hdf5(path) as file:
        if "data" not in file or not len(file["data"]):
            raise ValueError(
                f"{path}: there is no group 'data' with demonstrations, this is no robomimic file"
            )
        names = _names(path, file, filter_key)
        with (
            Recorder(dataset_id, _info(file, names[0]), root, overwrite=overwrite) as recorder,
            counting("importing", len(names)) as progress,
        ):
            for name in names:
                _add(recorder, name, file["data"][name])
                progress(recorder.num_episodes)
        return recorder.num_episodes


def _names(path: Path | str, file: h5py.File, filter_key: str) -> list[str]:
    if not filter_key:
        return sorted(file["data"], key=_number)
    known = list(file.get("mask", {}))
    if filter_key not in known:
        raise ValueError(f"filter_key={filter_key!r}: {path} has {known}{did_you_mean(filter_key, known)}")
    return sorted((name.decode() for name in file["mask"][filter_key][()]), key=_number)


def _number(name: str) -> int:
    """demo_10 comes after demo_9."""
    return int(name.rsplit("_", 1)[1])


def _info(file: h5py.File, name: str) -> Info:
    demo = file["data"][name]
    spaces: dict[str, gym.Space[Any]] = {}
    for key, value in demo["obs"].items():
        if value.dtype == np.uint8:
            spaces[key] = gym.spaces.Box(0, 255, value.shape[1:], np.uint8)
        else:
            spaces[key] = gym.spaces.Box(-np.inf, np.inf, value.shape[1:], value.dtype.type)
    return Info(
        observation_space=gym.spaces.Dict(spaces),
        action_space=gym.spaces.Box(-1.0, 1.0, demo["actions"].shape[1:], np.float32),
        description="imported from a robomimic file",
        jpeg_encoding=False,  # the file's images are exact, and stay so
        extra={"robomimic_env_args": file["data"].attrs.get("env_args", "")},
    )


def _add(recorder: Recorder, name: str, demo: h5py.Group) -> None:
    steps = len(demo["actions"])
    obs = {key: value[()] for key, value in demo["obs"].items()}
    if "next_obs" in demo:
        obs = {key: np.concatenate([value, demo["next_obs"][key][-1:]]) for key, value in obs.items()}
    else:
        steps -= 1
    terminations = demo["dones"][:steps].astype(bool)
    recorder.add_episode(
        obs,
        demo["actions"][:steps],
        rewards=demo["rewards"][:steps],
        terminations=terminations,
        truncations=(np.arange(steps) == steps - 1) & ~terminations,
        infos={"states": demo["states"][:steps]} if "states" in demo else None,
        metadata={"robomimic_demo": name},
    )
