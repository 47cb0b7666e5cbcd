"""Reads Minari's HDF5 files in bulk, episode by episode through a buffer that stays in the processor's cache.

Minari's own iterator goes through h5py's high-level objects; the low-level calls used here take a fraction of
the time, nearly all of it inside the HDF5 library.
"""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from embodied_rl.data.cache import Field, Writer
from rl_core.progress import counting

_REMEDY = "delete the dataset's folder and download or record it again"


def read(path: Path, fields: list[Field], num_episodes: int, writer: Writer) -> None:
    """Append `fields` of all episodes of `path` to a cache; the first field has one row a step.

    Raises ValueError for a file that is cut short, corrupt, without episodes or not aligned (T + 1
    observations to T of everything else), naming episode and field.
    """
    readers = [_FieldReader(field) for field in fields]
    with open_hdf5(path) as file, counting("reading the dataset", num_episodes) as progress:
        for episode in range(num_episodes):
            name = f"episode_{episode}"
            try:
                group = h5py.h5g.open(file.id, name.encode())
                steps = h5py.h5d.open(group, b"rewards").shape[0]
                rows = [reader.read(group, steps) for reader in readers]
            except (KeyError, OSError) as error:
                raise ValueError(f"{path}: {name} cannot be read ({error}); {_REMEDY}") from error
            except _ShapeError as error:
                raise ValueError(f"{path}: {name}: {error}; {_REMEDY}") from error
            if steps == 0:
                raise ValueError(f"{path}: {name} has no steps; record the dataset again without it")
            writer.append(rows)
            progress(episode + 1)


def open_hdf5(path: Path | str) -> h5py.File:
    """Open for reading. Raises ValueError for a file that is missing, cut short or not HDF5."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path} is missing, cut short or not an HDF5 file ({error}); download or record it again"
        ) from error


class _ShapeError(Exception):
    pass


class _FieldReader:
    """Reads one field, an episode at a time, into a buffer that grows to the longest episode."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._path = field.path.encode()
        self._type = h5py.h5t.py_create(field.dtype)  # made once: it takes as long as a small read
        self._buffer = np.empty((0, *field.shape), field.dtype)

    def read(self, group: h5py.h5g.GroupID, steps: int) -> np.ndarray:
        """Return the rows of the episode in `group`, valid until the next call."""
        num_rows = steps + self._field.extra_rows
        if len(self._buffer) < num_rows:
            self._buffer = np.empty((num_rows, *self._field.shape), self._field.dtype)
        rows = self._buffer[:num_rows]
        data = h5py.h5d.open(group, self._path)
        shape = data.shape
        if shape != rows.shape and not (self._field.jpeg and shape[0] == num_rows):
            raise _ShapeError(
                f"{self._field.path} has shape {shape}, expected {rows.shape} (observations have T + 1 rows)"
            )
        if self._field.jpeg:
            _decode(h5py.Dataset(data)[()], rows)
            return rows
        try:
            data.read(h5py.h5s.ALL, h5py.h5s.ALL, rows, self._type)
        except OSError:  # HDF5 converts between kinds of numbers, but not integers to booleans
            rows[...] = h5py.Dataset(data)[()]
        return rows


def _decode(blobs: np.ndarray, images: np.ndarray) -> None:
    """Decode JPEGs, one a row, into `[T + 1, H, W, C]`."""
    for row, blob in enumerate(blobs):
        images[row] = np.asarray(Image.open(io.BytesIO(blob.tobytes())))
