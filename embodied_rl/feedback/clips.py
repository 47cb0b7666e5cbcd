"""A person as teacher: short videos of segments, a page that shows them in pairs, a prompt for the answers.

The run films, asks and pauses; answers are lines of `comparisons.jsonl`, by `answer` or by any other tool;
`run.resume=true` goes on with them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable
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


class Camera(VectorWrapper):
    """Films one piece of the coming rollout in every simulation, when asked to.

    Raises ValueError for environments that cannot be drawn: without MuJoCo, or in other processes.
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        check_drawable(env.unwrapped)
        self.starts = np.zeros(env.num_envs, np.int64)
        self._length, self._t = 0, 0
        self._frames: list[list[NDArray[np.uint8]]] = []

    def film(self, starts: NDArray[np.int64], length: int) -> None:
        """Film `length` steps from step `starts [N]` of the rollout that comes next."""
        self.starts, self._length, self._t = starts, length, 0
        self._frames = [[] for _ in starts]

    def step(self, actions: Any) -> Any:
        """Draw what is to be seen before the step."""
        filmed = (self.starts <= self._t) & (self._t < self.starts + self._length)
        for i in np.flatnonzero(filmed):
            self._frames[i].append(render_frame(self.env.unwrapped, int(i)))
        self._t += 1
        return self.env.step(actions)

    def write(self, segments: Segments, directory: Path) -> None:
        """Write the clips of filmed segments `[S]`, in real time."""
        fps = float(self.env.metadata.get("render_fps", 30.0))
        for name, env in zip(segments.names(), segments.place[:, 1].tolist(), strict=True):
            video = Mp4Writer(directory / f"{name}.mp4", fps=fps)
            for frame in self._frames[env]:
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
    """Ask a person about every open question, until all are judged or "q"; returns how many are left.

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
        word = ""
        while word not in (*ANSWERS, "q"):
            word = read(f"{number}/{len(asked)}, {row['question']} 1, 2, = or q to stop: ").strip()
        if word == "q":
            return len(left) - done
        items = tuple(row["items"])
        store.append(Comparison(question=row["question"], items=items, rank=ANSWERS[word], judge=judge))
    return 0
