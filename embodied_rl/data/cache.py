"""The flat cache of a dataset: one `.npy` file per field, written once, memory-mapped ever after.

The folder's name is a digest of the dataset's id and of size and modification time of its files: a dataset
that changed gets a new cache. A cache appears under its name only when complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

TEMPORARY = ".tmp-"  # how folders that are being written begin
_ABANDONED_S = 24 * 3600.0
_FORMAT = 1  # raised whenever the files below change their meaning
_INDEX = "index.json"
LENGTHS = "lengths"


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One array of a dataset: where it is in an episode's record, and what one row of it looks like here."""

    path: str  # "rewards", "observations/a/b"
    shape: tuple[int, ...]
    dtype: np.dtype
    extra_rows: int = 0  # 1 for observations, which have T + 1 rows
    jpeg: bool = False  # in the file each row is one compressed image


class Writer:
    """Appends episodes to the files of a new cache; the rows pass through and are never held."""

    def __init__(self, folder: Path, fields: list[Field]) -> None:
        self._folder = folder
        self._fields = fields
        self._names = {
            field.path: f"{i}-{field.path.replace('/', '.')}.npy" for i, field in enumerate(fields)
        }
        self._files: list[BinaryIO] = []
        for field in fields:
            file = (folder / self._names[field.path]).open("wb", buffering=2**20)
            _write_header(file, field, 0)
            self._files.append(file)
        self._lengths: list[int] = []

    def append(self, rows: list[np.ndarray]) -> None:
        """Append one episode, the rows of each field in order, already of the fields' types.

        Raises ValueError naming episode, field and step for misaligned rows and for NaN or infinite values.
        """
        episode = len(self._lengths)
        steps = len(rows[0])
        for field, file, value in zip(self._fields, self._files, rows, strict=True):
            if value.shape != (steps + field.extra_rows, *field.shape):
                raise ValueError(
                    f"episode {episode}: {field.path} has shape {value.shape}, expected "
                    f"{(steps + field.extra_rows, *field.shape)} (T + 1 observations, T of everything else)"
                )
            _check_finite(episode, field.path, value)
            file.write(value.data)
        self._lengths.append(steps)

    def close(self, *, complete: bool) -> None:
        """Close the files; a complete cache also gets its headers, lengths and index."""
        lengths = np.array(self._lengths, np.int64)
        for field, file in zip(self._fields, self._files, strict=True):
            if complete:
                file.seek(0)
                _write_header(file, field, int(lengths.sum()) + field.extra_rows * len(lengths))
            file.close()
        if complete:
            np.save(self._folder / f"{LENGTHS}.npy", lengths)
            (self._folder / _INDEX).write_text(json.dumps(self._names | {LENGTHS: f"{LENGTHS}.npy"}))


def _write_header(file: BinaryIO, field: Field, rows: int) -> None:
    """Write the .npy header; NumPy pads it so that it keeps its length whatever the number of rows."""
    descr = np.lib.format.dtype_to_descr(field.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (rows, *field.shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _check_finite(episode: int, name: str, value: np.ndarray) -> None:
    # A finite sum means finite values, at a third of the cost; any other sum is looked at closely.
    if value.dtype.kind != "f" or np.isfinite(value.sum()):
        return
    finite = np.isfinite(value).reshape(len(value), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"episode {episode}: {name} has a NaN or infinite value at step {int(np.argmin(finite))}; repair "
            f"or remove that episode and record the dataset again"
        )


def digest(dataset_id: str, files: Iterable[Path]) -> str:
    """Name of the cache that belongs to the present state of `files`."""
    parts: list[Any] = [_FORMAT, dataset_id]
    for path in sorted(files):
        stat = path.stat()
        parts.append([path.name, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def read(folder: Path) -> dict[str, np.ndarray]:
    """Map every field of a cache and its `lengths`. Raises OSError or ValueError when it is incomplete."""
    names = json.loads((folder / _INDEX).read_text())
    return {field: np.load(folder / name, mmap_mode="r") for field, name in names.items()}


def build(folder: Path, fields: list[Field], fill: Callable[[Writer], None]) -> None:
    """Let `fill` write a cache, then give it the name `folder`; caches of earlier states of the dataset go.

    Nothing is left behind when `fill` fails. Raises ValueError when the place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"cannot write the cache to {folder.parent} ({error.strerror}); give another data.cache_root"
        ) from error
    complete = False
    writer = Writer(temporary, fields)
    try:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                fill(writer)
            complete = True
        finally:
            writer.close(complete=complete)
        _rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for other in folder.parent.iterdir():
        if other != folder and not other.name.startswith(TEMPORARY):
            shutil.rmtree(other, ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove what killed processes left in `parent`; what is younger than a day may be in use."""
    for path in parent.glob(f"{TEMPORARY}*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _rename(temporary: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # a damaged one
    try:
        os.rename(temporary, folder)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # another process was faster, with the same contents
            raise
