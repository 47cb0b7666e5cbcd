"""What to say to the desk and what it means: sentences for every task, splits, `parse`.

`paraphrases(task)` lists sentences, `sample` draws one with politeness and distractor clauses, `parse` finds
the task of any instruction, `nearest` guesses it where words are unknown. The project's own grammar needs no
data; `load` adds human sentences from a YAML of `task: [sentence, ...]`, and `load("calvin")` those of CALVIN
(Mees et al. 2022, arXiv:2112.03227; MIT), which lie in `calvin/`. Splits are for measuring generalisation;
each changes one thing only (see `SPLITS`).
"""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from envs.desk.choices import check_choice
from envs.desk.grammar import (
    CALVIN_TASKS,
    COLOR_TASKS,
    COLORS,
    HELDOUT_COMPOSITIONS,
    HELDOUT_OBJECTS,
    OBJECT_TASKS,
    SEEN_COLORS,
    TASK_NAMES,
    draw_frame,
    phrases,
)
from envs.desk.meaning import Meaning, normalise, understand, unknown_words

Human = Mapping[str, tuple[str, ...]]

CALVIN = "calvin"  # CALVIN's human sentences, in place of a path
_CALVIN_PATH = Path(__file__).parent / "calvin" / "instructions.yaml"
SPLITS: dict[str, str] = {
    "seen": "tasks and wordings to train on",
    "paraphrase": "the same tasks in wordings that are held out",
    "color": "blocks in colours that are held out",
    "object": "objects that are held out: a bowl, a cup, a mug",
    "composition": "a verb and a block, each seen, that are never seen together",
    "all": "every task of the others in every wording",
}
_SEEN_TASKS = (*(task for task in CALVIN_TASKS if task not in HELDOUT_COMPOSITIONS), "place_block")
_TASKS_OF_SPLIT = {
    "seen": _SEEN_TASKS,
    "paraphrase": _SEEN_TASKS,
    "color": COLOR_TASKS,
    "object": OBJECT_TASKS,
    "composition": HELDOUT_COMPOSITIONS,
    "all": TASK_NAMES,
}
WORDINGS = ("seen", "paraphrase", "all")  # to train on, held out, both
_NEAR, _GUESSES = 6, 200  # known words tried for an unknown one, and sentences that they make
_HELDOUT_SHARE = 5  # one human sentence in this many is held out


def tasks(split: str) -> tuple[str, ...]:
    """Names of the tasks of a split; `all` includes held-out colours and objects."""
    return _TASKS_OF_SPLIT[check_choice("split", split, SPLITS)]


def load(path: Path | str) -> Human:
    """Read human sentences, `{task: [sentence, ...]}`, from a YAML or, of "calvin", those of CALVIN.

    Raises ValueError naming the file and what is wrong: an unknown task (with the nearest one), no sentence,
    or one sentence under two tasks.
    """
    file = _CALVIN_PATH if path == CALVIN else Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected `task: [sentence, ...]` for at least one task")
    owner: dict[str, str] = {}
    for task, sentences in content.items():
        try:
            check_choice("task", task, TASK_NAMES)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if not isinstance(sentences, list) or not sentences or not all(isinstance(s, str) for s in sentences):
            raise ValueError(f"{path}: {task}: expected a list of sentences, got {sentences!r}")
        for sentence in sentences:
            other = owner.setdefault(normalise(sentence), task)
            if other != task:
                raise ValueError(f"{path}: {sentence!r} stands under {other} and under {task}")
    return {task: tuple(dict.fromkeys(sentences)) for task, sentences in content.items()}


def paraphrases(
    task: str, split: str = "all", *, target: str = "", human: Human | None = None
) -> tuple[str, ...]:
    """Plain sentences for a task, without politeness or distractors.

    `target` names the thing (a colour, or bowl, cup, mug) in tasks that leave it open (`place_in_drawer`);
    human sentences leave it open too and are left out then. Raises ValueError for an unknown task, split or
    target, and for a task that is not of the split.
    """
    own, spoken = _plain(task, _wording(task, split), target, human)
    return tuple(dict.fromkeys(own + spoken))


def sample(
    task: str,
    rng: np.random.Generator,
    split: str = "seen",
    *,
    target: str = "",
    human: Human | None = None,
) -> str:
    """Draw a sentence of the split as `say` does. Raises as `paraphrases` does."""
    return say(task, rng, _wording(task, split), target=target, human=human)


def say(
    task: str,
    rng: np.random.Generator,
    wording: str = "seen",
    *,
    target: str = "",
    human: Human | None = None,
    things: tuple[str, ...] = SEEN_COLORS,
) -> str:
    """Draw a sentence for any task, half of the time with a politeness or distractor clause or both.

    Of two sources, grammar and `human`, each is drawn half of the time. `wording` is one of `WORDINGS`;
    `things` are the names of what lies on the desk, which clauses may mention.
    """
    own, spoken = _plain(task, wording, target, human)
    source = spoken if spoken and (not own or rng.random() < 0.5) else own
    text = source[rng.integers(len(source))]
    if rng.random() < 0.5:
        return text
    return draw_frame(text, rng, heldout=wording != "seen", things=things)


def parse(instruction: str, *, human: Human | None = None) -> Meaning:
    """Find the task of an instruction, and colour and object where it names them.

    A sentence of `human` means the task it stands under, any other what the rules say. Raises ValueError for
    unknown words (naming each with the nearest known ones) and for instructions with no or several meanings.
    """
    task = _lookup(human or {}).get(normalise(instruction))
    if not task:
        return understand(instruction)
    color = next((color for color in COLORS if f"_{color}_" in task), "")
    return Meaning(task=task, color=color, object="block" if "_block" in task else "")


def understood(instruction: str, path: str, fallback: str, say: Callable[[str], None]) -> Meaning:
    """`parse` with the sentences that `load` finds at `path`, if any.

    Where that fails and `fallback` is "nearest", the answer is `nearest`'s, and what was guessed is said.
    """
    human = load(path) if path else None
    try:
        return parse(instruction, human=human)
    except ValueError as error:
        if fallback != "nearest":
            raise
        meaning, sentence = nearest(instruction, human=human)
        say(f"{error}; taken for {sentence!r}")
        return meaning


def nearest(instruction: str, *, human: Human | None = None) -> tuple[Meaning, str]:
    """Guess: the meaning of the known sentence that is nearest, and that sentence.

    Unknown words are first replaced by near known ones. Of what then makes sense a known sentence is the
    answer, else what has the nearest words.
    """
    near, words = unknown_words(instruction, _NEAR), normalise(instruction).split()
    choices = itertools.product(*(near.get(word) or [word] for word in words))
    found: dict[str, Meaning] = {}
    for choice in itertools.islice(choices, _GUESSES):
        with contextlib.suppress(ValueError):
            found[" ".join(choice)] = parse(" ".join(choice), human=human)
    if found:
        best = next((guess for guess in found if guess in _known_sentences()), next(iter(found)))
        return found[best], best.replace(" ,", ",")
    wanted = {near[word][0] if near.get(word) else word for word in words}
    best = max(_known_sentences(), key=lambda sentence: _similarity(wanted, sentence))
    return parse(best), best


def _similarity(wanted: set[str], sentence: str) -> float:
    words = set(normalise(sentence).split())
    return len(words & wanted) / len(words | wanted)


@cache
def _known_sentences() -> tuple[str, ...]:
    return tuple(phrase.text for task in CALVIN_TASKS for phrase in phrases(task) if not phrase.heldout)


def _lookup(human: Human) -> dict[str, str]:
    return {normalise(sentence): task for task, sentences in human.items() for sentence in sentences}


def _wording(task: str, split: str) -> str:
    """The wording of a split; ValueError where the task is not of the split."""
    check_choice("task", task, TASK_NAMES)
    if task not in tasks(split):
        of = next(name for name in SPLITS if task in tasks(name))
        raise ValueError(f"task={task!r}: is not of split {split!r} ({SPLITS[split]}) but of {of!r}")
    return split if split in WORDINGS else "seen"


def _plain(task: str, wording: str, target: str, human: Human | None) -> tuple[tuple[str, ...], ...]:
    """Sentences of the grammar, and those of people, which name no target."""
    check_choice("wording", wording, WORDINGS)
    own = _own(check_choice("task", task, TASK_NAMES), wording, target)
    if not human or target or task not in human:
        return own, ()
    spoken = (text for text in human[task] if _fits(_human_heldout(text, task, human), wording))
    return own, tuple(spoken)


@cache
def _own(task: str, wording: str, target: str) -> tuple[str, ...]:
    if target:
        check_choice("target", target, COLORS + HELDOUT_OBJECTS)
    return tuple(phrase.text for phrase in phrases(task, target) if _fits(phrase.heldout, wording))


def _fits(heldout: bool, wording: str) -> bool:
    return wording == "all" or heldout == (wording == "paraphrase")


def _human_heldout(sentence: str, task: str, human: Human) -> bool:
    """Whether a human sentence is held out, by checksum: the same wording in every colour and direction."""
    first = human[task][0]  # never: a task with one sentence must keep it for training
    wording = " ".join(
        "*" if word in (*COLORS, "left", "right", "on", "off") else word for word in sentence.split()
    )
    return sentence != first and zlib.crc32(wording.encode()) % _HELDOUT_SHARE == 0
