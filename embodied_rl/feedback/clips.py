"""A person as teacher: short videos of segments, a page that shows them in pairs, a prompt for the answers.

The run films, asks and pauses; answers are lines of `comparisons.jsonl`, by `answer` or by any other tool;
`run.resume=true` goes on with them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from embodied_rl.eval.video import Mp4Writer
from embodied_rl.feedback.judgements import CLIPS, COMPARISONS, Folder, item_names
from embodied_rl.feedback.segments import Segments
from envs.frames import check_drawable, render_frame
from rl_core.comparisons import Comparison, ComparisonStore

QUESTIONS, PAGE = "questions.jsonl", "questions.html"
ANSWERS = {"1": (0, 1), "2": (1, 0), "=": (0, 0)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A piece of a rollout: a simulation, the first step, and where its clip goes."""

    env: int
    start: int
    file: Path


class Camera(VectorWrapper):
    """Films pieces of the coming rollout, when asked to; `whole` are those that no end of an episode cut.

    Raises ValueError for environments that cannot be drawn: without MuJoCo, or in other processes.
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        check_drawable(env.unwrapped)
        self.film([], 0)

    def film(self, pieces: Sequence[Piece], length: int) -> None:
        """Film these pieces of `length` steps in the rollout that comes next."""
        self._pieces, self._length, self._t = pieces, length, 0
        self._open: list[tuple[Piece, list[NDArray[np.uint8]]]] = []
        self.whole: list[Piece] = []

    def step(self, actions: Any) -> Any:
        """Draw what is to be seen before the step; a clip is written when it ends: frames do not pile up."""
        self._open += [(piece, []) for piece in self._pieces if piece.start == self._t]
        for piece, frames in self._open:
            frames.append(render_frame(self.env.unwrapped, piece.env))
        result = self.env.step(actions)
        self._t += 1
        ended = result[2] | result[3]
        for piece, frames in self._open:
            if len(frames) == self._length:
                self._write(piece.file, frames)
                self.whole.append(piece)
        self._open = [
            (piece, frames)
            for piece, frames in self._open
            if len(frames) < self._length and not ended[piece.env]
        ]
        return result

    def _write(self, file: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
        """In real time."""
        video = Mp4Writer(file, fps=float(self.env.metadata.get("render_fps", 30.0)))
        for frame in frames:
            video.add(frame)
        video.close()


def ask(folder: Folder, pairs: Segments) -> None:
    """Write the questions that are open now: `questions.jsonl`, and `questions.html` to look at."""
    items = item_names(pairs)
    lines = [json.dumps({"question": folder.question(), "items": pair}) for pair in items]
    (folder.path / QUESTIONS).write_text("".join(f"{line}\n" for line in lines))
    rows = "".join(_row(number, pair) for number, pair in enumerate(items, 1))
    (folder.path / PAGE).write_text(
        f"<!doctype html><meta charset=utf-8><title>Comparisons</title><h1>{html.escape(folder.question())}"
        "</h1><style>body{font-family:system-ui;margin:2em} td{padding:0.3em 1em}</style>"
        f"<table><tr><th><th>1<th>2</tr>{rows}</table>\n"
    )


def _row(number: int, items: tuple[str, str]) -> str:
    videos = "".join(f"<td><video src={CLIPS}/{item}.mp4 autoplay loop muted></video>" for item in items)
    return f"<tr><td>{number}{videos}</tr>"


def answer(folder: Path, judge: str, read: Callable[[str], str] = input) -> int:
    """Ask a person about every open question, until "q" or the end of the input; returns how many are left.

    Each answer is on disk at once. Raises ValueError for a folder without questions.
    """
    file = folder / QUESTIONS
    if not file.exists():
        raise ValueError(f"{file}: no questions; train with algo.feedback.teacher.kind=person first")
    asked = [json.loads(line) for line in file.read_text().splitlines()]
    store = ComparisonStore(folder / COMPARISONS)
    judged = {comparison.items for comparison in store}
    left = [row for row in enumerate(asked, 1) if tuple(row[1]["items"]) not in judged]
    for done, (number, row) in enumerate(left):
        word = _reply(f"{number}/{len(asked)}, {row['question']} 1, 2, = or q to stop: ", read)
        if word == "q":
            return len(left) - done
        items = tuple(row["items"])
        store.append(Comparison(question=row["question"], items=items, rank=ANSWERS[word], judge=judge))
    return 0


def _reply(prompt: str, read: Callable[[str], str]) -> str:
    word = ""
    while word not in (*ANSWERS, "q"):
        try:
            word = read(prompt).strip()
        except EOFError:  # Ctrl-D, or a file of answers that is at its end
            return "q"
    return word
