"""The record of a human or machine judgement, the same for robot clips and texts, and its store."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_core.config import did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Some items, ranked by one judge.

    `rank[i]` belongs to `items[i]`, lower is better, equal numbers are ties: `(0, 1)` prefers the first of
    two, `(0, 0)` calls them equal. Items are texts, or names of clips; what is stored elsewhere is named,
    not copied.
    """

    question: str  # what was asked: the prompt, or the robot's instruction
    items: tuple[str, ...]
    rank: tuple[int, ...]
    judge: str  # who judged: a person's alias, a model's name, a rule
    reason: str = ""  # why, in the judge's words

    def __post_init__(self) -> None:
        """Reject a judgement that cannot be learnt from, by field."""
        for name in ("question", "judge", "reason"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name}={getattr(self, name)!r}: must be a string")
        if not self.judge:
            raise ValueError("judge='': must name who judged")
        if len(self.items) < 2 or not all(isinstance(item, str) for item in self.items):
            raise ValueError(f"items={self.items!r}: must be at least two strings")
        if not all(type(rank) is int and rank >= 0 for rank in self.rank):
            raise ValueError(f"rank={self.rank!r}: must be integers >= 0, lower is better")
        if len(self.rank) != len(self.items):
            raise ValueError(f"rank={self.rank!r}: must hold one number for each of {len(self.items)} items")

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield (better, worse) index pairs of `items`; ties yield none."""
        for i, rank in enumerate(self.rank):
            for j, other in enumerate(self.rank):
                if rank < other:
                    yield i, j

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Comparison:
        """Read what `to_json` wrote; a ValueError names a missing, unknown or malformed field."""
        if not isinstance(data, dict):
            raise ValueError(f"must be an object with the fields of a comparison, not {type(data).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        required = known - {"reason"}
        if missing := sorted(required - data.keys()):
            raise ValueError(f"fields {missing} are missing")
        if unknown := sorted(data.keys() - known):
            raise ValueError(f"fields {unknown} are unknown{did_you_mean(unknown[0], known)}")
        for name in ("items", "rank"):
            if not isinstance(data[name], list | tuple):
                raise ValueError(f"{name}={data[name]!r}: must be a list")
        return cls(**{**data, "items": tuple(data["items"]), "rank": tuple(data["rank"])})


class ComparisonStore:
    """Comparisons in a JSONL file, one per line, only ever appended to, by several processes if need be."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def append(self, comparison: Comparison) -> None:
        """Write one line and wait until it is on disk; a file that ends amid a line is refused."""
        line = json.dumps(comparison.to_json(), ensure_ascii=False) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    raise ValueError(f"{self.path}: the last line is cut short; repair or remove it first")
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def __iter__(self) -> Iterator[Comparison]:
        """Yield the comparisons in the order of judgement; nothing where the file does not exist yet.

        A ValueError names the file and the line that is not a comparison.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield Comparison.from_json(json.loads(line.decode().rstrip("\n")))
                except json.JSONDecodeError as error:
                    place = f"{self.path}, line {number}, column {error.colno}"
                    raise ValueError(f"{place}: {error.msg}") from error
                except ValueError as error:  # bytes that are not UTF-8 included
                    raise ValueError(f"{self.path}, line {number}: {error}") from error
