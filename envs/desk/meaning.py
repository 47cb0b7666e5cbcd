"""From an instruction to the task it asks for, by rules on its words.

An instruction has exactly one meaning or none: what is unknown, contradictory or open (which light? which
block?) is a ValueError that says so. Clauses about what to leave alone are cut out first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from envs.desk.grammar import COLORS, HELDOUT_OBJECTS, TASK_NAMES, frames, phrases

_LIFT = {"lift", "pick", "grasp", "grab", "raise", "hoist", "take", "fetch", "get", "seize", "remove"}
_ROTATE = {"rotate", "turn", "twist", "spin", "pivot"}
_PUSH = {"push", "slide", "sweep", "shove", "nudge", "shift", "move"}
_PUT = {"put", "place", "store", "stow", "drop", "set", "insert"}
_VERBS = (
    _LIFT | _ROTATE | _PUSH | _PUT | {"open", "close", "shut", "pull", "press", "toggle", "stack", "unstack"}
)
_LIGHTS = {"led", "button", "bulb", "lightbulb", "lamp", "light", "switch"}
_BLOCKS = {"block", "blocks", "cube", "cubes", "brick", "object", "objects"}
_DIRECTIONS = {"left": "left", "leftwards": "left", "counterclockwise": "left", "anticlockwise": "left"} | {
    "right": "right", "rightwards": "right", "clockwise": "right"
}  # fmt: skip
_CONTAINER = (
    r"\b(?:in|into|inside|to|towards|on|onto) (?:the )?(?:open )?(?:sliding )?(drawer|slider|cabinet|shelf)\b"
)
_ASIDE = re.compile(
    r"(?:\b(?:but|and) )?"
    r"\b(?:leave|leaving|ignore|ignoring|do not|never|without|not|rather than|instead of)\b"
    rf".*?(?=,|$|\band (?:{'|'.join(sorted(_VERBS))})\b|\bthen\b)"
)
_OWN_OBJECT = re.compile(rf"\b(?:{'|'.join(sorted(_VERBS))})\b(?: \w+)? (?:the|a|another)\b")
# Words that the rules understand or may skip besides those of the grammar.
_MORE_WORDS = """
a an all alone and at bring by can desk do down each edge first for from gently get go hand handle have here i
in insert instead into is it its let lying me mind my need not of off on onto one other out over pile please
pull rather robot shelf side slowly so some stacked sliding than that the their then there this those to top
tower toward towards two under up upward downward upwards downwards want way which with would you your could
another anything carefully falls degrees 90 grasped
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What an instruction asks for."""

    task: str  # one of `envs.desk.grammar.TASK_NAMES`
    color: str = ""  # of the object; empty where the instruction leaves it open
    object: str = ""  # block, bowl, cup, mug; empty for tasks about the desk's own parts
    reference: str = ""  # colour of the block to stack on, where it is said


def normalise(instruction: str) -> str:
    """Lower case, commas as separate words, no other punctuation: equal sentences become equal strings."""
    text = instruction.lower().replace("’", "'").replace("don't", "do not")
    text = re.sub(r"\b(anti|counter)[- ]clockwise\b", "counterclockwise", text)
    text = re.sub(r"[;,.!?:]+", " , ", text)
    text = re.sub(r"[^a-z0-9', ]+", " ", text)
    return re.sub(r"\s+", " ", text).strip(" ,")


@cache
def vocabulary() -> frozenset[str]:
    """Every word that an instruction may contain."""
    sentences = [phrase.text for task in TASK_NAMES for phrase in phrases(task)]
    sentences += [phrase.text for phrase in frames("lift", heldout=True)]
    words = {word for text in sentences for word in normalise(text).split() if word != ","}
    return frozenset(
        words
        | _VERBS
        | _LIGHTS
        | _BLOCKS
        | set(_DIRECTIONS)
        | {*COLORS, *HELDOUT_OBJECTS, *_MORE_WORDS.split()}
    )


def unknown_words(instruction: str, num_near: int = 3) -> dict[str, list[str]]:
    """Words that no rule knows, each with up to so many of the nearest known ones."""
    known = vocabulary()
    words = [word for word in normalise(instruction).split() if word != "," and word not in known]
    return {word: difflib.get_close_matches(word, sorted(known), n=num_near, cutoff=0.5) for word in words}


def understand(instruction: str) -> Meaning:
    """Find the task of an instruction.

    Raises ValueError for unknown words (naming each with the nearest known ones), for an instruction that
    fits several tasks, and for one that fits none.
    """
    unknown = unknown_words(instruction)
    if unknown:
        hints = [
            f"{word!r}" + (f" (nearest: {', '.join(near)})" if near else "") for word, near in unknown.items()
        ]
        raise ValueError(f"instruction={instruction!r}: unknown word {', '.join(hints)}")
    text = re.sub(r"\s+", " ", _ASIDE.sub(" ", normalise(instruction))).strip(" ,")
    try:
        _check_single(text)
        meaning = _apply_rules(text)
    except _OpenError as error:
        raise ValueError(f"instruction={instruction!r}: {error}") from None
    if not meaning:
        raise ValueError(
            f"instruction={instruction!r}: asks for nothing that can be done on the desk (rotate, push, "
            f"lift, place, stack a block; drawer, sliding door, light bulb, LED)"
        )
    assert meaning.task in TASK_NAMES, meaning
    return meaning


def _apply_rules(text: str) -> Meaning | None:
    words = _Words(text)
    return next((meaning for rule in _RULES if (meaning := rule(words))), None)


def _check_single(text: str) -> None:
    """Refuse "lift the red block, then close the drawer"; "grasp the red block and turn it" is one task."""
    tasks: list[str] = []
    for clause in re.split(r",|\band\b|\bthen\b", text):
        if not _OWN_OBJECT.search(clause):
            continue
        try:
            meaning = _apply_rules(clause)
        except _OpenError:
            meaning = None
        task = meaning.task if meaning else ""
        if tasks and task != tasks[-1]:
            raise _OpenError(f"asks for several things in a row, the first {tasks[0]}; give one at a time")
        if task:
            tasks.append(task)


class _OpenError(Exception):
    """The instruction leaves open, or says twice, what must be said once."""


class _Words:
    """An instruction's words, and what they say about colour, object and direction."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.set = set(text.split())

    def any(self, words: Iterable[str]) -> bool:
        return not self.set.isdisjoint(words)

    def says(self, pattern: str) -> bool:
        return re.search(pattern, self.text) is not None

    def one(self, what: str, meanings: dict[str, str]) -> str:
        """The one meaning among those of the words, "" for none."""
        found = {meanings[word] for word in self.set if word in meanings}
        if len(found) > 1:
            raise _OpenError(f"says {' and '.join(sorted(found))}; say one {what}")
        return found.pop() if found else ""

    def direction(self) -> str:
        return self.one("direction", _DIRECTIONS)

    def color(self) -> str:
        return self.one("colour", {color: color for color in COLORS})

    def object(self) -> str:
        """Which kind of thing is named, "" for none."""
        kinds = {word: "block" for word in _BLOCKS} | {word: word for word in HELDOUT_OBJECTS}
        kind = self.one("object", kinds)
        return kind or ("block" if self.any(COLORS) else "")

    def thing(self) -> tuple[str, str, str]:
        """The object as in task names, its colour and its kind."""
        color, kind = self.color(), self.object()
        if kind == "block" and not color:
            raise _OpenError(f"which block? say its colour ({', '.join(COLORS)})")
        return (f"{color}_block" if kind == "block" else kind), color, kind


def _light(words: _Words) -> Meaning | None:
    """The LED, which is green and has the button; the bulb, which is yellow and has the switch."""
    if not words.any(_LIGHTS) or words.any(_BLOCKS):
        return None
    led = words.any({"led", "button", "green"})
    bulb = words.any({"bulb", "lightbulb", "yellow"}) or (not led and words.says(r"\b(the|a|light) switch\b"))
    if led == bulb:
        raise _OpenError("which light? say light bulb (yellow, switch) or LED (green, button)")
    on = words.says(r"\bon\b(?! (the )?(table|desk|shelf)\b)|\blight up\b")
    off = words.says(r"\boff\b|\bput out\b")
    if bulb and not on and not off:
        on, off = words.any({"up", "upward", "upwards"}), words.any({"down", "downward", "downwards"})
    if on == off:
        raise _OpenError("say whether to turn the light on or off")
    return Meaning(task=f"turn_{'on' if on else 'off'}_{'led' if led else 'lightbulb'}")


def _stack(words: _Words) -> Meaning | None:
    """Onto another block, or off one."""
    if words.any({"unstack", "collapse"}) or words.says(r"\bknock over\b"):
        return Meaning(task="unstack_block", object="block")
    colors = re.findall(rf"\b({'|'.join(COLORS)})\b", words.text)
    on_block = words.says(
        r"\b(on top of|onto|on) (each other|(the |a |another )?(other )?"
        rf"({'|'.join(COLORS)})? ?(block|cube|object|one)\b)"
    )
    if (words.any(_PUT | {"stack"}) and on_block) or words.says(
        r"(?<!the )(?<!a )\bstack (the|blocks)\b|\bpile up\b|\bbuild\b"
    ):
        return Meaning(
            task="stack_block", object="block", color=colors[0] if colors else "",
            reference=colors[1] if len(colors) > 1 else "",
        )  # fmt: skip
    if words.any({"take", "remove", "lift", "pick"}) and words.any({"top", "stack", "stacked", "tower"}):
        return Meaning(task="unstack_block", object="block", color=words.color())
    return None


def _into(words: _Words) -> Meaning | None:
    """Into the drawer or the cabinet behind the sliding door, or onto the mark."""
    if words.any({"mark"}) and words.any(_PUT | _PUSH):
        return Meaning(task="place_block", color=words.color(), object=words.object() or "block")
    places = set(re.findall(_CONTAINER, words.text))
    moved = words.any(_BLOCKS | set(COLORS) | set(HELDOUT_OBJECTS) | {"it", "hold"})
    if not places or not (moved or words.says(r"\bplace in\b")):
        return None
    if len(places) > 1 and "drawer" in places:
        raise _OpenError("says drawer and cabinet; say one place")
    name = "drawer" if "drawer" in places else "slider"
    carried = words.any(_PUT) or words.says(r"\bmove (the|it)\b.*\b(in|into|inside) ")
    if not carried and not (name == "drawer" and words.any(_PUSH)):
        return None
    verb = "place_in" if carried else "push_into"
    return Meaning(task=f"{verb}_{name}", color=words.color(), object=words.object() or "block")


def _object(words: _Words) -> Meaning | None:
    """Turn, push or lift one object."""
    if not words.object():
        return None
    direction = words.direction()
    verb = "rotate" if words.any(_ROTATE) else "push" if words.any(_PUSH) else ""
    if verb and not direction:
        raise _OpenError("say left or right")
    if verb:
        thing, color, kind = words.thing()
        return Meaning(task=f"{verb}_{thing}_{direction}", color=color, object=kind)
    if not words.any(_LIFT):
        return None
    thing, color, kind = words.thing()
    inside, drawer = words.any({"slider", "cabinet", "shelf"}), words.any({"drawer"})
    if inside and drawer:
        raise _OpenError("says drawer and cabinet; say one place")
    place = "slider" if inside else "drawer" if drawer else "table"
    return Meaning(task=f"lift_{thing}_{place}", color=color, object=kind)


def _furniture(words: _Words) -> Meaning | None:
    """Open or close the drawer, slide the door."""
    if words.any({"door", "slider"}):
        direction = words.direction()
        if not direction:
            raise _OpenError("say left or right")
        return Meaning(task=f"move_slider_{direction}")
    if not words.any({"drawer"}):
        return None
    opens, closes = words.any({"open"}), words.any({"close", "shut"})
    if opens and closes:
        raise _OpenError("says open and close; say one")
    if not opens and not closes:
        opens = words.any({"pull"})
        closes = not opens and words.any({"push"})
    return Meaning(task="open_drawer" if opens else "close_drawer") if opens or closes else None


_RULES: tuple[Callable[[_Words], Meaning | None], ...] = (_light, _stack, _into, _object, _furniture)
