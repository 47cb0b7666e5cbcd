"""Sentences for every task of the desk: a grammar of verbs, colours, relations, politeness, distractors.

A pattern such as `(lift|raise*) the {color} block` lists alternatives; a star marks words that are held out:
a sentence with any of them belongs to the held-out paraphrases. The names of the 34 tasks are those of CALVIN
(Mees et al. 2022, arXiv:2112.03227); the sentences are this project's own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

SEEN_COLORS, HELDOUT_COLORS = ("red", "blue", "pink"), ("green", "yellow", "purple")
COLORS = SEEN_COLORS + HELDOUT_COLORS
HELDOUT_OBJECTS = ("bowl", "cup", "mug")
# Verb and object are each seen in other tasks, never together.
HELDOUT_COMPOSITIONS = (
    "rotate_pink_block_right",
    "rotate_pink_block_left",
    "push_blue_block_right",
    "push_blue_block_left",
    "lift_red_block_drawer",
)

_GRASP = "(grasp|take|grab|seize*) {it} (and|, then) "
_TURN = "(rotate|turn|twist|spin*|pivot*)"
_PUSH = "(push|slide|sweep|shove|nudge*|shift*)"
_SHIFT = "(move|slide|push|shift*)"
_LIFT = "(lift|pick up|grab|raise*|hoist*)"
_PUT = "(put|place|store|stow*|drop*)"
_INSIDE = "(in|into|inside*) the"

# Tasks about one object: `{thing}` is `red_block`, `green_block`, `bowl`; `{it}` is "the red block".
_ABOUT_OBJECT = {
    "rotate_{thing}_right": (
        _TURN + " {it} (right|to the right|clockwise|90 degrees to the right|towards the right*)",
        _GRASP + "(turn|rotate|spin*) it (right|to the right*)",
    ),
    "rotate_{thing}_left": (
        _TURN + " {it} (left|to the left|counterclockwise|90 degrees to the left|towards the left*)",
        _GRASP + "(turn|rotate|spin*) it (left|to the left*)",
    ),
    "push_{thing}_right": (_PUSH + " {it} (right|to the right|towards the right|rightwards*)",),
    "push_{thing}_left": (_PUSH + " {it} (left|to the left|towards the left|leftwards*)",),
    "lift_{thing}_table": (
        _LIFT + " {it}(| up| from the table| off the table| from the desk*)",
        _GRASP + "(lift it up|raise it*)",
    ),
    "lift_{thing}_slider": (
        _LIFT + " {it} (from|lying in|out of*) the (slider|cabinet|sliding cabinet)",
        _LIFT + " {it} (from|lying on) the shelf",
    ),
    "lift_{thing}_drawer": (
        _LIFT + " {it} (from|in|lying in|out of*) the drawer",
        "(reach|go) into the drawer and (lift|grasp|fetch*) {it}",
    ),
}  # fmt: skip

# `{block}` is "the block" and the like, or "the red block" or "the bowl" where a target is named.
_ABOUT_DESK = {
    "move_slider_left": (
        _SHIFT + " the (door|sliding door|cabinet door*) (left|to the left|all the way to the left)",
        "(grasp|take*) the door handle and (slide|move) it to the left",
    ),
    "move_slider_right": (
        _SHIFT + " the (door|sliding door|cabinet door*) (right|to the right|all the way to the right)",
        "(grasp|take*) the door handle and (slide|move) it to the right",
    ),
    "open_drawer": (
        "(open|pull open|pull out*) the (drawer|cabinet drawer)",
        "(grasp|take*) the (drawer handle|handle of the drawer) and (open it|pull)",
    ),
    "close_drawer": (
        "(close|shut|push shut*) the (drawer|cabinet drawer)",
        "(grasp|take*) the (drawer handle|handle of the drawer) and (close it|push)",
    ),
    "place_in_slider": (_PUT + " {block} " + _INSIDE + " (slider|cabinet|sliding cabinet)",),
    "place_in_drawer": (
        _PUT + " {block} " + _INSIDE + " drawer",
        "(move|go|drive*) to the drawer and (put|place|drop*) {block}",
    ),
    "push_into_drawer": (
        _PUSH + " {block} into the drawer",
        "(push|slide*) {block} so that it falls into the drawer",
    ),
    "stack_block": (
        "(stack|put|place|set*) {block} on top of (another block|the other block|a block)",
        "(stack the blocks|stack the blocks on top of each other)",
        "(build a tower of blocks*|pile up the blocks*)",
    ),
    "unstack_block": (
        "(unstack|collapse|knock over*) the (blocks|stacked blocks|tower)",
        "(take off|remove|lift off*) the (top block|stacked block|block on top)",
        "(take|remove) a block from the (stack|tower)",
    ),
    "turn_on_lightbulb": (
        "(turn on|switch on|light up*) the (light bulb|yellow light|yellow lamp)",
        "(push|move|slide|flip*) the switch (up|upwards)",
        "(use|toggle|flip*) the switch to turn on the (light bulb|yellow light)",
    ),
    "turn_off_lightbulb": (
        "(turn off|switch off|put out*) the (light bulb|yellow light|yellow lamp)",
        "(push|move|slide|flip*) the switch (down|downwards)",
        "(use|toggle|flip*) the switch to turn off the (light bulb|yellow light)",
    ),
    "turn_on_led": (
        "(turn on|switch on|light up*) the (led|led light|green light|green lamp)",
        "(push|press|push down|hit*) the button to turn on the (led|led light|green light)",
    ),
    "turn_off_led": (
        "(turn off|switch off|put out*) the (led|led light|green light|green lamp)",
        "(push|press|push down|hit*) the button to turn off the (led|led light|green light)",
    ),
    # Not among the 34: a goal on the surface of the desk.
    "place_block": ("(put|place|set*|move) {block} (on|onto*) the mark",),
}  # fmt: skip

_ANY_BLOCK = "(the block|the object|the grasped object|what you hold*)"
_ON_DESK = "(the block|the object|a block*)"  # where the hand is empty
_POLITE = (
    "{s}", "please {s}", "{s}, please", "could you {s}?", "now {s}", "robot, {s}", "would you kindly {s}?*",
    "i would like you to {s}*",
)  # fmt: skip
_DISTRACTORS = (
    "{s}", "{s}, but leave the {other} alone", "{s} and do not touch the {other}", "ignore the {other}, {s}",
    "{s} without touching the {other}*", "never mind the {other}, {s}*",
)  # fmt: skip
_PARTS = ("drawer", "sliding door", "switch", "button")  # that distractors may name, besides what lies about


@dataclass(frozen=True, slots=True)
class Phrase:
    """A sentence, and whether any of its words is held out."""

    text: str
    heldout: bool = False


def _fill_names(things: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the tasks about some objects, object by object."""
    return tuple(name.format(thing=thing) for name in _ABOUT_OBJECT for thing in things)


def things(colors: tuple[str, ...] = SEEN_COLORS) -> tuple[str, ...]:
    """Names of blocks as they stand in task names."""
    return tuple(f"{color}_block" for color in colors)


CALVIN_TASKS = _fill_names(things()) + tuple(name for name in _ABOUT_DESK if name != "place_block")
COLOR_TASKS = _fill_names(things(HELDOUT_COLORS))
OBJECT_TASKS = _fill_names(HELDOUT_OBJECTS)
TASK_NAMES = (*CALVIN_TASKS, *COLOR_TASKS, *OBJECT_TASKS, "place_block")


@cache
def phrases(task: str, target: str = "") -> tuple[Phrase, ...]:
    """Every plain sentence of a task of `TASK_NAMES`, without politeness and distractors.

    `target` names the thing, by its colour or as bowl, cup or mug, in tasks that leave it open,
    `place_in_drawer` for instance.
    """
    patterns, noun = _patterns(task, target)
    found: dict[str, bool] = {}
    for pattern in patterns:
        for text, heldout in _expand(pattern.replace("{it}", noun).replace("{block}", noun)):
            found[text] = found.get(text, True) and heldout
    return tuple(Phrase(text, heldout) for text, heldout in found.items())


def _patterns(task: str, target: str) -> tuple[tuple[str, ...], str]:
    """Patterns of a task and the words for what it is about."""
    if task in _ABOUT_DESK:
        anything = _ON_DESK if task == "push_into_drawer" else _ANY_BLOCK
        return _ABOUT_DESK[task], _noun(target) if target else anything
    for thing in things(COLORS) + HELDOUT_OBJECTS:
        name = task.replace(f"_{thing}_", "_{thing}_")
        if name in _ABOUT_OBJECT:
            return _ABOUT_OBJECT[name], _noun(thing.removesuffix("_block"))
    raise KeyError(task)


def _noun(target: str) -> str:
    if target in HELDOUT_OBJECTS:
        return f"the {target}"
    return f"(the {target} block|the {target} cube*)"


def frames(text: str, *, heldout: bool, things: tuple[str, ...] = SEEN_COLORS) -> Iterator[Phrase]:
    """The sentence with every politeness and distractor clause; `heldout` includes those held out.

    `things` are the names of what lies on the desk, which clauses may tell to leave alone.
    """
    for outer, clause, other, held in _choices(text, heldout, things):
        yield Phrase(_dress(text, outer, clause, other), held)


def draw_frame(
    text: str, rng: np.random.Generator, *, heldout: bool, things: tuple[str, ...] = SEEN_COLORS
) -> str:
    """One of `frames`."""
    choices = _choices(text, heldout, things)
    return _dress(text, *choices[rng.integers(len(choices))][:3])


def _dress(text: str, outer: str, clause: str, other: str) -> str:
    return outer.format(s=clause.format(s=text, other=other))


def _choices(text: str, heldout: bool, things: tuple[str, ...]) -> list[tuple[str, str, str, bool]]:
    """Politeness, clause and what it is about, and whether the words are held out."""
    others = [thing if thing in HELDOUT_OBJECTS else f"{thing} block" for thing in things]
    others = [other for other in (*others, *_PARTS) if not set(other.split()) - {"block"} & set(text.split())]
    others = [other for other in others if not _same_device(other, text)]
    return [
        (outer, clause, other, held)
        for outer, clause, held in _frames(heldout)
        for other in (others if "{other}" in clause else [""])
    ]


@cache
def _frames(heldout: bool) -> tuple[tuple[str, str, bool], ...]:
    """Every politeness with every distractor clause, and whether either is held out."""
    pairs = []
    for outer, clause in itertools.product(_POLITE, _DISTRACTORS):
        held = outer.endswith("*") or clause.endswith("*")
        # A clause in front of a question would read "could you ignore the drawer, ...?": left out.
        if (heldout or not held) and (outer == "{s}" or not clause.startswith(("ignore", "never"))):
            pairs.append((outer.rstrip("*"), clause.rstrip("*"), held))
    return tuple(pairs)


def _same_device(other: str, text: str) -> bool:
    """Whether a distractor is what the sentence is about under another name."""
    aliases = {
        "switch": ("bulb", "yellow"),
        "button": ("led", "green light", "green lamp"),
        "sliding door": ("cabinet", "slider", "shelf", "door"),
    }
    return any(alias in text for alias in aliases.get(other, ())) or (
        other.endswith("block") and "another" in text
    )


def _expand(pattern: str) -> list[tuple[str, bool]]:
    """Every sentence of a pattern, and whether it has a starred alternative."""
    parts = [part.split("|") for part in re.split(r"[()]", pattern)]
    result = []
    for choice in itertools.product(*parts):
        text = re.sub(r"\s+", " ", "".join(part.removesuffix("*") for part in choice)).replace(" ,", ",")
        result.append((text.strip(), any(part.endswith("*") for part in choice)))
    return result
