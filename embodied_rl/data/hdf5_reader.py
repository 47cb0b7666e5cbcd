"""Reads Minari's HDF5 files in bulk, episode by episode through a buffer that stays in the processor's cache.

Minari's own iterator goes through h5py's high-level objects; the low-level calls used here take a fraction of
the time, nearly all of it inside the HDF5 library.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from embodied_rl.data.cache import Field, Writer
from rl_core.progress import bar

_PROGRESS_BYTES = 512 * 2**20  # about two seconds of reading
_REMEDY = "delete the dataset's folder and download or record it again"


def read(path: Path, fields: list[Field], num_episodes: int, writer: Writer) -> None:
    """Append `fields` of all episodes of `path` to a cache; the first field has one row a step.

    Raises ValueError for a file that is cut short, corrupt, without episodes or not aligned (T + 1
    observations to T of everything else), naming episode and field.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is cut short or not an HDF5 file ({error}); {_REMEDY}") from error
    buffers = [np.empty((0, *field.shape), field.dtype) for field in fields]
    progress = bar()
    progress.disable = path.stat().st_size < _PROGRESS_BYTES
    with file, progress:
        task = progress.add_task("reading the dataset", total=num_episodes, note="")
        for episode in range(num_episodes):
            name = f"episode_{episode}"
            steps = _num_steps(file, name)
            rows = []
            for i, field in enumerate(fields):
                num_rows = steps + field.extra_rows
                if len(buffers[i]) < num_rows:
                    buffers[i] = np.empty((num_rows, *field.shape), field.dtype)
                rows.append(buffers[i][:num_rows])
                _read_field(file, f"{name}/{field.path}", rows[-1], field.jpeg)
            writer.append(rows)
            if not progress.disable:
                progress.advance(task)


def _num_steps(file: h5py.File, name: str) -> int:
    """Number of steps of an episode, taken from the rewards, which every dataset has."""
    try:
        (steps,) = h5py.h5d.open(file.id, f"{name}/rewards".encode()).shape
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{file.filename}: {name} has no readable vector of rewards; {_REMEDY}") from error
    if steps == 0:
        raise ValueError(f"{file.filename}: {name} has no steps; record the dataset again without it")
    return int(steps)


def _read_field(file: h5py.File, path: str, target: np.ndarray, jpeg: bool) -> None:
    """Read one field of one episode. Raises ValueError when it is missing, damaged or misshapen."""
    try:
        if jpeg:
            _read_jpeg(file, path, target)
            return
        data = h5py.h5d.open(file.id, path.encode())
        if data.shape != target.shape:
            raise ValueError(
                f"{file.filename}: {path} has shape {data.shape}, expected {target.shape} (T + 1 "
                f"observations, T of everything else); {_REMEDY}"
            )
        try:
            data.read(h5py.h5s.ALL, h5py.h5s.ALL, target, _memory_type(target.dtype))
        except OSError:  # HDF5 converts between kinds of numbers, but not integers to booleans
            target[...] = h5py.Dataset(data)[()]
    except KeyError as error:
        raise ValueError(f"{file.filename}: {path} is missing; {_REMEDY}") from error
    except OSError as error:
        raise ValueError(f"{file.filename}: {path} cannot be read ({error}); {_REMEDY}") from error


@cache
def _memory_type(dtype: np.dtype) -> h5py.h5t.TypeID:
    """HDF5's name for a NumPy type; making it anew for each read would take a tenth of the time."""
    return h5py.h5t.py_create(dtype)


def _read_jpeg(file: h5py.File, path: str, target: np.ndarray) -> None:
    """Decode the images of one episode, one compressed blob a row, into `target` `[T + 1, H, W, C]`."""
    blobs = file[path][()]
    if len(blobs) != len(target):
        raise ValueError(
            f"{file.filename}: {path} has {len(blobs)} images, expected {len(target)} (T + 1); {_REMEDY}"
        )
    for row, blob in enumerate(blobs):
        target[row] = np.asarray(Image.open(io.BytesIO(blob.tobytes())))
