"""Rows of a dataset from wherever they are: JSONL (.gz too), Parquet, `datasets` folders, hub ids."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq

from rl_core.config import choice, did_you_mean

Row = dict[str, Any]

JSON_LINES = (".jsonl", ".jsonl.gz", ".json.gz", ".ndjson")


def load_rows(source: str | Path, split: str = "train") -> list[Row]:
    """Read all rows of a file, a folder written by `datasets.save_to_disk`, or a hub id.

    A path that exists is read from the disk, anything else is asked of the hub. `split` names one of a
    folder's or a hub dataset's splits; a file has no splits. Raises ValueError saying what is wrong where.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, split)
    if path.is_file():
        if path.name.endswith(JSON_LINES):
            return read_jsonl(path)
        if path.suffix == ".parquet":
            table: list[Row] = pq.read_table(path).to_pylist()
            return table
        raise ValueError(f"data={str(path)!r}: must end in {', '.join(JSON_LINES)} or .parquet")
    if path.name.endswith((*JSON_LINES, ".parquet")) or path.is_absolute():
        raise ValueError(f"data={str(path)!r}: there is no such file or folder")
    return _read_hub(str(source), split)


def read_jsonl(path: Path) -> list[Row]:
    """One JSON object a line; blank lines are skipped.

    Raises ValueError naming a corrupt line by its number.
    """
    rows, number = [], 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for line in stream:
                number += 1
                if line.strip():
                    rows.append(_json_object(line))
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}, after line {number}: the compressed file is damaged ({error})") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}, line {number}: {error}") from error
    if not rows:
        raise ValueError(f"{path}: the file has no rows")
    return rows


def _json_object(line: bytes) -> Row:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError(f"a JSON object was expected, not {type(found).__name__}")
    return found


def _read_folder(path: Path, split: str) -> list[Row]:
    has_splits = (path / "dataset_dict.json").exists()
    if not has_splits and not (path / "state.json").exists():
        raise ValueError(
            f"data={str(path)!r}: the folder was not written by datasets.save_to_disk "
            "(it has neither dataset_dict.json nor state.json)"
        )
    data = datasets.load_from_disk(str(path))
    if has_splits:
        choice("split", split, data)
        data = data[split]
    rows: list[Row] = data.to_list()
    return rows


def _read_hub(name: str, split: str) -> list[Row]:
    try:
        rows: list[Row] = datasets.load_dataset(name, split=split).to_list()
        return rows
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"data={name!r}: not a local path, and the hub says: {first}") from error


def require_columns(rows: Sequence[Row], *alternatives: Iterable[str]) -> tuple[str, ...]:
    """The first of `alternatives` (sets of columns) that the first row has in full.

    Raises ValueError with the columns found and those expected, and the nearest spelling; with its number for
    a later row that lacks one.
    """
    if not rows:
        raise ValueError("the dataset has no rows")
    found = list(rows[0])
    wanted = [tuple(columns) for columns in alternatives]
    for columns in wanted:
        if set(columns) <= set(found):
            _check_rows(rows, columns)
            return columns
    missing = next(name for name in wanted[0] if name not in found)
    expected = " or ".join("+".join(columns) for columns in wanted)
    hint = did_you_mean(missing, found)
    raise ValueError(f"column {missing!r} is missing: found {', '.join(found)}; expected {expected}{hint}")


def _check_rows(rows: Sequence[Row], columns: Sequence[str]) -> None:
    for number, row in enumerate(rows):
        lacks = next((name for name in columns if name not in row), None)
        if lacks is not None:
            raise ValueError(f"row {number}: column {lacks!r} is missing: found {', '.join(row)}")
