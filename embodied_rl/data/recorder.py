"""Writes Minari datasets, episode by episode, in Minari's own layout; needs no jax.

`with recorder.Recorder("desk/lift_block/expert-v0", info) as out: out.add_episode(...)`. The dataset appears
under its id when the block ends without an exception. Ctrl-C or SIGTERM end it with the episodes so far,
unless there is a dataset to be replaced; any other exception leaves nothing.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.dataset.minari_dataset import parse_dataset_id
from minari.dataset.minari_storage import is_image_space
from minari.serialization import serialize_space
from omegaconf import MISSING
from PIL import Image

from embodied_rl.data import cache
from embodied_rl.data.minari_io import HDF5_NAME, datasets_root
from rl_core.progress import console

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_CHUNK_BYTES = 4 * 2**20  # an array up to this size is one HDF5 chunk: read with one call


@dataclass(kw_only=True, slots=True)
class Info:
    """What a dataset says about itself; the names are those of Minari's metadata."""

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    env_spec: EnvSpec | None = None
    eval_env_spec: EnvSpec | None = None
    algorithm_name: str = ""
    author: tuple[str, ...] = ()
    author_email: tuple[str, ...] = ()
    code_permalink: str = ""
    description: str = ""
    requirements: tuple[str, ...] = ()
    ref_min_score: float | None = None
    ref_max_score: float | None = None
    jpeg_encoding: bool = True  # images are stored as JPEG, as Minari does unless told; lossy
    extra: dict[str, Any] = field(default_factory=dict)  # further JSON values


@dataclass(kw_only=True, slots=True)
class Target:
    """Where a new dataset goes."""

    id: str = MISSING  # namespace/name-v0
    root: str = ""  # empty: MINARI_DATASETS_PATH, else Minari's own folder
    overwrite: bool = False


class Recorder:
    """Appends whole episodes to a new dataset.

    Raises ValueError for a malformed id and for an existing dataset unless `overwrite`; that one is replaced
    only when the new one is complete.
    """

    def __init__(
        self, dataset_id: str, info: Info, root: Path | str | None = None, *, overwrite: bool = False
    ) -> None:
        _check_id(dataset_id)
        self._id = dataset_id
        self._info = info
        self._root = datasets_root(root)
        self._folder = self._root / dataset_id
        if self._folder.exists() and not overwrite:
            raise ValueError(f"dataset {dataset_id!r} exists in {self._root}; write data.overwrite=true")
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        cache.remove_abandoned(self._folder.parent)
        self._temporary = Path(tempfile.mkdtemp(prefix=cache.TEMPORARY, dir=self._folder.parent))
        (self._temporary / "data").mkdir()
        # In order of creation, as Minari's own files: otherwise "episode_10" comes before "episode_2".
        self._file = h5py.File(self._temporary / "data" / HDF5_NAME, "w", track_order=True)
        self._handlers: dict[signal.Signals, Any] = {}
        self.num_episodes = 0
        self.num_steps = 0

    def __enter__(self) -> Recorder:
        if threading.current_thread() is threading.main_thread():  # nobody else may
            self._handlers = {number: signal.signal(number, _stop) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None:
            self.close()
        elif kind is _Stopped and self.num_episodes and not self._folder.exists():
            self._file.pop(f"episode_{self.num_episodes}", None)  # written in part
            self.close()
            console.print(f"stopped: {self._id} holds the {self.num_episodes} episodes recorded so far")
        else:
            self.discard()
            if kind is _Stopped:
                console.print(f"stopped: {self._id} is left as it was")

    def add_episode(
        self,
        observations: Any,
        actions: np.ndarray,
        *,
        rewards: np.ndarray,
        terminations: np.ndarray,
        truncations: np.ndarray,
        infos: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an episode of T steps.

        observations: `[T + 1, ...]` or nested dicts of such, as the observation space says; actions `[T, A]`;
        rewards, terminations, truncations `[T]`; infos: arrays, normally `[T + 1, ...]`, or nested dicts.
        metadata: of the episode, for instance seed, options (of `reset`), success, instruction. Raises
        ValueError, naming the field, when lengths or shapes do not fit; nothing is written then.
        """
        steps = len(rewards)
        if steps == 0:
            raise ValueError(f"episode {self.num_episodes}: has no steps")
        fields = {
            "observations": _conform(observations, self._info.observation_space, steps + 1, "observations"),
            "actions": _conform(actions, self._info.action_space, steps, "actions"),
        }
        flags = {"terminations": np.asarray(terminations, bool), "truncations": np.asarray(truncations, bool)}
        for name, value in flags.items():
            _check_shape(value, (steps,), name)
        group = self._file.create_group(f"episode_{self.num_episodes}")
        group.attrs["id"] = self.num_episodes
        group.attrs["total_steps"] = steps
        group.attrs.update(_flatten(dict(metadata or {})))
        spaces = {"observations": self._info.observation_space, "actions": self._info.action_space}
        for name, value in fields.items():
            self._write(group, name, value, spaces[name])
        for name, value in {"rewards": np.asarray(rewards, np.float64), **flags}.items():
            self._write(group, name, value, None)
        if infos:
            self._write(group, "infos", dict(infos), None)
        self.num_episodes += 1
        self.num_steps += steps

    def close(self) -> None:
        """Write the metadata and give the dataset its name. Raises ValueError without any episode."""
        if self.num_episodes == 0:
            self.discard()
            raise ValueError(f"dataset {self._id!r}: no episode was added")
        self._file.close()
        data = self._temporary / "data"
        (data / "metadata.json").write_text(json.dumps(self._metadata((data / HDF5_NAME).stat().st_size)))
        self._describe_namespaces()
        if self._folder.exists():
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=self._folder.parent))
            self._folder.rename(old / "dataset")
            self._temporary.rename(self._folder)
            shutil.rmtree(old)
        else:
            self._temporary.rename(self._folder)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _write(self, group: h5py.Group, name: str, value: Any, space: gym.Space[Any] | None) -> None:
        if isinstance(value, Mapping):
            inner = group.create_group(name)
            for key, part in value.items():
                self._write(inner, key, part, space[key] if isinstance(space, gym.spaces.Dict) else None)
        elif space is not None and self._info.jpeg_encoding and is_image_space(space):
            frames = np.empty(len(value), object)
            frames[:] = [_jpeg(frame) for frame in value]
            group.create_dataset(name, data=frames, dtype=h5py.vlen_dtype(np.uint8), chunks=True)
        else:
            array = np.asarray(value)
            if array.dtype.kind == "U":
                array = array.astype(h5py.string_dtype())
            chunks = array.shape if 0 < array.nbytes <= _ONE_CHUNK_BYTES else True
            group.create_dataset(name, data=array, chunks=chunks, maxshape=(None, *array.shape[1:]))

    def _metadata(self, num_bytes: int) -> dict[str, Any]:
        info = self._info
        known: dict[str, Any] = {
            "total_episodes": self.num_episodes,
            "total_steps": self.num_steps,
            "data_format": "hdf5",
            "jpeg_encoding": info.jpeg_encoding,
            "observation_space": serialize_space(info.observation_space),
            "action_space": serialize_space(info.action_space),
            "dataset_id": self._id,
            "minari_version": importlib.metadata.version("minari"),
            "dataset_size": round(num_bytes / 1e6, 1),
        }
        optional = {
            "env_spec": info.env_spec and info.env_spec.to_json(),
            "eval_env_spec": info.eval_env_spec and info.eval_env_spec.to_json(),
            "algorithm_name": info.algorithm_name,
            "author": list(info.author),
            "author_email": list(info.author_email),
            "code_permalink": info.code_permalink,
            "description": info.description,
            "requirements": list(info.requirements),
        }
        scores = {"ref_min_score": info.ref_min_score, "ref_max_score": info.ref_max_score}
        known |= {key: value for key, value in optional.items() if value}
        known |= {key: value for key, value in scores.items() if value is not None}
        return known | info.extra

    def _describe_namespaces(self) -> None:
        """Minari marks each folder above a dataset with a file."""
        folder = self._folder.parent
        while folder != self._root:
            path = folder / "namespace_metadata.json"
            if not path.exists():
                path.write_text("{}")
            folder = folder.parent


class _Stopped(SystemExit):
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(128 + number)


def _check_id(dataset_id: str) -> None:
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"dataset id {dataset_id!r}: expected namespace/name-v0 (letters, digits, - and _; at least two "
            f"of them in a namespace)"
        ) from error


def _conform(value: Any, space: gym.Space[Any], rows: int, name: str) -> Any:
    """Arrays of the space's dtype, with `rows` rows; text and other fields are passed on."""
    if isinstance(space, gym.spaces.Dict):
        missing = [key for key in space.spaces if key not in value]
        if missing:
            raise ValueError(f"{name}: fields {missing} are missing")
        return {
            key: _conform(value[key], inner, rows, f"{name}/{key}") for key, inner in space.spaces.items()
        }
    if isinstance(space, gym.spaces.Box):
        array = np.asarray(value, space.dtype)
        _check_shape(array, (rows, *space.shape), name)
        return array
    return value


def _check_shape(value: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    if value.shape != shape:
        raise ValueError(
            f"{name} has shape {value.shape}, expected {shape}: an episode of T steps has T + 1 observations "
            f"and T of everything else"
        )


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Attributes of an episode, nested dicts as "options/initial_state_dict/qpos"."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}/")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def _jpeg(frame: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG")
    return np.frombuffer(buffer.getvalue(), np.uint8)
