"""Checks of names that a user chose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

_MANY = 40  # names beyond which a message shows only the nearest


def check_choice(field: str, value: str, accepted: Sequence[str] | Mapping[str, object]) -> str:
    """Return `value` if it is accepted, else raise a ValueError that names the nearest accepted ones."""
    if value in accepted:
        return value
    near = difflib.get_close_matches(str(value), list(accepted), n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    shown = f"one of {list(accepted)}" if len(accepted) <= _MANY else f"one of {len(accepted)} names"
    raise ValueError(f"{field}={value!r}: expected {shown}{hint}")


def at_least_one(field: str, names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several as a tuple; a ValueError where there is none or one stands twice."""
    names = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{field}={names}: expected at least one name, each once")
    return names
