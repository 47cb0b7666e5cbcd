"""The table of completions: what the policy wrote, and what was said of it, for a person to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_align.online.rollout import Samples
from rl_core import distributed
from rl_core.metrics import rewind


class CompletionTable:
    """`completions.jsonl` in a run's directory: some responses of every logged step, evenly spread over it.

    A row has `step`, `prompt`, `completion`, `reward`, `reward_<name>` of every function, and the columns of
    `log_extra`; None is what nothing judged. Of several processes the first one writes.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._file, self._count, self._begun = folder / "completions.jsonl", count, False

    def write(self, step: int, samples: Samples, prompts: Sequence[Any]) -> None:
        """Write up to `count` of B responses to `prompts [B / group_size]`."""
        if distributed.rank() != 0 or self._count == 0:
            return
        if not self._begun:  # a resumed run writes again what a killed one wrote after its checkpoint
            rewind(self._file, step - 1)
            self._begun = True
        shown = range(0, len(samples), -(-len(samples) // self._count))
        with self._file.open("a") as stream:
            for place in shown:
                row = {"step": step, "prompt": prompts[place // samples.group_size]} | _row(samples, place)
                stream.write(json.dumps(row, default=_plain) + "\n")


def _row(samples: Samples, place: int) -> dict[str, Any]:
    scores = {"reward": samples.reward} | {f"reward_{name}": part for name, part in samples.parts.items()}
    numbers = {name: float(score[place]) for name, score in scores.items()}
    judged = {name: number if number == number else None for name, number in numbers.items()}
    extra = {name: values[place] for name, values in samples.logged.columns.items()}
    return {"completion": samples.texts[place], **judged, **extra}


def _plain(value: Any) -> Any:
    """Tensors and NumPy numbers as lists and numbers, anything else in words."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
