"""Minari datasets as flat episodes: `load("D4RL/door/human-v2")`.

The first load reads every episode once and writes a flat cache beside the dataset, later loads map it.
Observations have T + 1 rows per episode and everything else T; floating-point fields become float32, images
stay uint8 (stored JPEGs are decoded once), nested dictionaries become fields called "a/b".
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from minari.dataset.minari_storage import MinariStorage, is_image_space

from embodied_rl.data import cache, hdf5_reader
from embodied_rl.data.cache import Field
from embodied_rl.data.episodes import Episodes
from embodied_rl.data.types import box_leaves
from rl_core.config import did_you_mean
from rl_core.progress import counting

HDF5_NAME = "main_data.hdf5"
CACHE_NAME = ".flat"
_ROOT_VARIABLE = "MINARI_DATASETS_PATH"


def datasets_root(root: Path | str | None = None) -> Path:
    """Where datasets lie: `root`, else MINARI_DATASETS_PATH, else Minari's folder in the home directory."""
    return Path(root or os.environ.get(_ROOT_VARIABLE) or Path.home() / ".minari" / "datasets")


def local_ids(root: Path | str | None = None) -> list[str]:
    """Ids of the datasets present on this machine, sorted."""
    base = datasets_root(root)
    found = (path.parent.parent.relative_to(base) for path in base.glob("**/data/metadata.json"))
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def load(
    dataset_id: str,
    root: Path | str | None = None,
    *,
    download: bool = False,
    cache_root: Path | str | None = None,
) -> Episodes:
    """Load a dataset as memory-mapped `Episodes`.

    `download` fetches it with Minari when it is not on this machine. The cache is written beside the dataset,
    or below `cache_root` when the dataset's folder is read-only. Raises ValueError for an unknown id (listing
    those present), discrete actions, unsupported spaces, an empty dataset, NaN or infinite values (naming
    episode and step), misaligned, cut-off or corrupt files.
    """
    data = find(dataset_id, datasets_root(root), download)
    try:
        storage = MinariStorage.read(data)
        metadata = MinariStorage.read_raw_metadata(data)
        num_episodes = metadata["total_episodes"]
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{data / 'metadata.json'} is damaged ({error!r}); get the dataset again") from error
    fields = _fields(dataset_id, storage)
    if not num_episodes:
        raise ValueError(f"dataset {dataset_id} is empty: it has no episodes")
    parent = data.parent / CACHE_NAME if cache_root is None else Path(cache_root) / dataset_id
    folder = parent / cache.digest(dataset_id, [path for path in data.rglob("*") if path.is_file()])

    def fill(writer: cache.Writer) -> None:
        if storage.FORMAT == "hdf5":
            hdf5_reader.read(data / HDF5_NAME, fields, num_episodes, writer)
        else:
            _read_any_format(storage, fields, writer)

    if not folder.exists():
        cache.build(folder, fields, fill)
    try:
        arrays = cache.read(folder)
    except (OSError, ValueError) as error:
        warnings.warn(f"the cache {folder} is damaged ({error}) and is written anew", stacklevel=2)
        cache.build(folder, fields, fill)
        arrays = cache.read(folder)
    return _assemble(dataset_id, storage, metadata, arrays)


def _assemble(
    dataset_id: str, storage: MinariStorage, metadata: dict[str, Any], arrays: dict[str, np.ndarray]
) -> Episodes:
    return Episodes(
        dataset_id=dataset_id,
        observations={
            _obs_key(path): array for path, array in arrays.items() if path.startswith("observations")
        },
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        terminations=arrays["terminations"],
        truncations=arrays["truncations"],
        lengths=np.asarray(arrays[cache.LENGTHS]),
        observation_space=storage.observation_space,
        action_space=storage.action_space,
        metadata=metadata,
    )


def episode_metadata(dataset_id: str, root: Path | str | None = None) -> list[dict[str, Any]]:
    """What the recorder kept about each episode: seed, options, success, instruction and the like."""
    storage = MinariStorage.read(find(dataset_id, datasets_root(root), download=False))
    return list(storage.get_episode_metadata(range(storage.total_episodes)))


def find(dataset_id: str, root: Path, download: bool) -> Path:
    """Return the dataset's data folder. Raises ValueError with the local ids when it is not there."""
    data = root / dataset_id / "data"
    if not (data / "metadata.json").exists() and download:
        _download(dataset_id, root)
    if not (data / "metadata.json").exists():
        known = local_ids(root)
        raise ValueError(
            f"dataset {dataset_id!r} is not in {root} (there: {', '.join(known) or 'none'})"
            f"{did_you_mean(dataset_id, known)}; to fetch it from Minari's server write data.download=true"
        )
    return data


def _download(dataset_id: str, root: Path) -> None:
    try:
        with _minari_root(root):
            minari.download_dataset(dataset_id)
    except ValueError:
        raise  # Minari's own sentence, about an unknown id or version
    except Exception as error:  # which HTTP library fails, and how, depends on the remote and its version
        raise ValueError(
            f"data.download=true: {dataset_id} could not be fetched from Minari's server ({error}); "
            f"check the network, or copy the dataset to {root / dataset_id}"
        ) from error


@contextmanager
def _minari_root(root: Path) -> Iterator[None]:
    """Point Minari's own functions at `root`; the environment variable is all they read."""
    before = os.environ.get(_ROOT_VARIABLE)
    os.environ[_ROOT_VARIABLE] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ROOT_VARIABLE]
        else:
            os.environ[_ROOT_VARIABLE] = before


def _fields(dataset_id: str, storage: MinariStorage) -> list[Field]:
    """The arrays of a dataset with these spaces. Raises ValueError for spaces that are not supported."""
    action_space = storage.action_space
    if not isinstance(action_space, gym.spaces.Box) or len(action_space.shape) != 1:
        raise ValueError(
            f"dataset {dataset_id} has actions {action_space}: only continuous action vectors (a Box with "
            f"one dimension) are supported"
        )
    steps = [
        Field(path="actions", shape=action_space.shape, dtype=_dtype(action_space)),
        Field(path="rewards", shape=(), dtype=np.dtype(np.float32)),
        Field(path="terminations", shape=(), dtype=np.dtype(bool)),
        Field(path="truncations", shape=(), dtype=np.dtype(bool)),
    ]
    observations = [
        Field(
            path=path,
            shape=space.shape,
            dtype=_dtype(space),
            extra_rows=1,
            jpeg=storage.jpeg_encoding and is_image_space(space),
        )
        for path, space in box_leaves(storage.observation_space, "observations")
    ]
    if not observations:
        raise ValueError(
            f"dataset {dataset_id} has observations {storage.observation_space}: expected a Box or "
            f"a Dict of Boxes"
        )
    return steps + observations


def _dtype(space: gym.spaces.Box) -> np.dtype:
    return np.dtype(np.float32) if np.issubdtype(space.dtype, np.floating) else np.dtype(space.dtype)


def _obs_key(path: str) -> str:
    """Name of an observation field: a plain Box is the one field "observation"."""
    return path.removeprefix("observations/") if "/" in path else "observation"


def _read_any_format(storage: MinariStorage, fields: list[Field], writer: cache.Writer) -> None:
    """Append all episodes to a cache through Minari's own reader, for its arrow and parquet formats."""
    with counting("reading the dataset", storage.total_episodes) as progress:
        for done, record in enumerate(storage.get_episodes(range(storage.total_episodes)), 1):
            writer.append([_column(record, field) for field in fields])
            progress(done)


def _column(record: Any, field: Field) -> np.ndarray:
    for key in field.path.split("/"):
        record = record[key]
    return np.ascontiguousarray(record, field.dtype)
