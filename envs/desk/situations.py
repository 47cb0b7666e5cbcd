"""What holds on a desk, in words: where the blocks are, what is open and what is lit.

Tasks state in these words what they need and what they bring about; episodes are started from a situation,
and long-horizon chains are sequences of tasks each of whose needs the tasks before it have met.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

# Places of a block. `slider` in a task's needs or effects is the half of the cabinet that is not covered.
TABLE, LEFT, RIGHT, DRAWER, GRIPPER, STACKED = "table", "left", "right", "drawer", "gripper", "stacked"
_UNCOVERED = {"right": LEFT, "left": RIGHT}  # half of the cabinet to reach into, by where its door is
_FURNITURE = {
    "drawer": ("closed", "open"),
    "slider": ("right", "left"),
    "led": ("off", "on"),
    "bulb": ("off", "on"),
}
_ELSEWHERE = 0.4  # chance that a block which a task leaves free starts in the cabinet or the drawer

Conditions = Mapping[str, str]  # "drawer", "slider", "led", "bulb", "target" (its place), "others" (theirs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """One desk in words."""

    places: tuple[str, ...]  # of the blocks, in the scene's order
    drawer: str = "closed"  # or open
    slider: str = "right"  # or left: the half of the cabinet that the door covers
    led: str = "off"  # or on
    bulb: str = "off"  # or on

    def uncovered(self) -> str:
        """The half of the cabinet that can be reached."""
        return _UNCOVERED[self.slider]


def holds(situation: Situation, needs: Conditions, target: int) -> bool:
    """Whether a task about block `target` can begin: its needs are met, the gripper is free or holds it."""
    if any(getattr(situation, key) != needs[key] for key in _FURNITURE if key in needs):
        return False
    wanted, place = needs.get("target"), situation.places[target]
    if wanted == GRIPPER:
        return place == GRIPPER and (needs.get("others") != TABLE or _has_base(situation, target))
    if GRIPPER in situation.places:
        return False
    if wanted == "slider":
        return place == situation.uncovered()
    if wanted == TABLE:  # no stack: words do not say which block is its lower one
        return place == TABLE and STACKED not in situation.places
    return wanted is None or place == wanted


def _has_base(situation: Situation, target: int) -> bool:
    return any(place == TABLE for i, place in enumerate(situation.places) if i != target)


def after(situation: Situation, effects: Conditions, target: int) -> Situation:
    """The situation once a task about block `target` has succeeded."""
    changed = {key: effects[key] for key in _FURNITURE if key in effects}
    places = list(situation.places)
    if "target" in effects:
        places[target] = situation.uncovered() if effects["target"] == "slider" else effects["target"]
    return replace(situation, places=tuple(places), **changed)


def draw_situation(rng: np.random.Generator, num_blocks: int, needs: Conditions, target: int) -> Situation:
    """A random situation that meets a task's needs; no needs at all gives free play.

    Each half of the cabinet and the drawer hold at most one block, so that a gripper fits around it.
    """
    values = {key: needs.get(key, str(rng.choice(options))) for key, options in _FURNITURE.items()}
    situation = Situation(places=(TABLE,) * num_blocks, **values)
    places = [TABLE] * num_blocks
    if "target" in needs:
        places[target] = situation.uncovered() if needs["target"] == "slider" else needs["target"]
    free = [place for place in (LEFT, RIGHT, DRAWER) if place not in places]
    for block in rng.permutation(num_blocks):
        elsewhere = rng.random() < _ELSEWHERE
        decided = "others" in needs or ("target" in needs and block == target)
        if elsewhere and free and not decided:
            places[block] = free.pop(int(rng.integers(len(free))))
    return replace(situation, places=tuple(places))
