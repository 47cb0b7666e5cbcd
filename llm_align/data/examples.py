"""Rows under TRL's column names as typed examples: demonstrations, preferences, ratings, prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_align.data import gsm8k, hh
from llm_align.data.hh import Message
from llm_align.data.readers import Row, require_columns

Text = str | list[Message]


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A prompt with the responses to it, each a text or a list of messages, and its other columns.

    One response is a demonstration (or, with `labels`, a rating), two are a preference (chosen first), K are
    a ranking, best first; none is a prompt to sample from. A prompt of None: all of the text is learnt.
    """

    prompt: Text | None
    responses: list[Text]
    labels: list[bool] | None = None
    margin: float | None = None
    columns: dict[str, Any] | None = None


def demonstrations(rows: Sequence[Row]) -> list[Example]:
    """Rows of `prompt`+`completion`, `messages`, or `text`."""
    columns = require_columns(rows, ("prompt", "completion"), ("messages",), ("text",))
    if columns[0] == "prompt":
        return [Example(prompt=row["prompt"], responses=[row["completion"]]) for row in rows]
    return [Example(prompt=None, responses=[row[columns[0]]]) for row in rows]


def preferences(rows: Sequence[Row]) -> list[Example]:
    """Rows of `prompt`+`chosen`+`rejected` (+`margin`); without `prompt`, the turns both sides share.

    Chosen and rejected may repeat the prompt (chat lists) or be HH transcripts. Raises ValueError naming the
    row whose sides share no prompt or do not differ.
    """
    require_columns(rows, ("chosen", "rejected"))
    examples = []
    for number, row in enumerate(rows):
        try:
            prompt, chosen, rejected = _split(row.get("prompt"), row["chosen"], row["rejected"])
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error
        examples.append(Example(prompt=prompt, responses=[chosen, rejected], margin=row.get("margin")))
    return examples


def ratings(rows: Sequence[Row]) -> list[Example]:
    """Rows of `prompt`+`completion`+`label` (bool); a paired dataset gives a True and a False one per row.

    GSM8K's `model_solutions` give four per row: right or wrong.
    """
    solved = ("question", *gsm8k.SOLVERS)
    columns = require_columns(rows, ("prompt", "completion", "label"), ("chosen", "rejected"), solved)
    if columns == solved:
        return [
            Example(
                prompt=row["question"] + "\n",
                responses=[s.text],
                labels=[s.correct],
                columns={"solver": s.solver},
            )
            for row in rows
            for s in gsm8k.solutions(row)
        ]
    if "chosen" in columns:
        pairs = preferences(rows)
        return [
            Example(prompt=pair.prompt, responses=[response], labels=[good])
            for pair in pairs
            for response, good in zip(pair.responses, (True, False), strict=True)
        ]
    return [
        Example(
            prompt=row["prompt"], responses=[row["completion"]], labels=[truth(number, "label", row["label"])]
        )
        for number, row in enumerate(rows)
    ]


def truth(number: int, column: str, value: Any) -> bool:
    """A label as a bool; ValueError naming row and column for what is neither a bool nor 0 or 1.

    The text "false" would otherwise be true.
    """
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise ValueError(f"row {number}: {column}={value!r}: must be true or false, or 1 or 0")
    return bool(value)


def rankings(rows: Sequence[Row]) -> list[Example]:
    """Rows of `prompt`+`completions`, best first, or in any order with `ranks` (lower is better, ties equal).

    The ranks, sorted, are in `columns["ranks"]`. Raises ValueError naming a row with fewer than two
    completions, or with another number of ranks.
    """
    require_columns(rows, ("prompt", "completions"))
    examples = []
    for number, row in enumerate(rows):
        texts = row["completions"]
        ranks = row.get("ranks") or list(range(len(texts)))
        if len(texts) < 2 or len(ranks) != len(texts):
            raise ValueError(
                f"row {number}: {len(texts)} completions with {len(ranks)} ranks; "
                "expected two or more, and a rank for each"
            )
        order = sorted(range(len(texts)), key=lambda k: ranks[k])
        columns = {"ranks": [ranks[k] for k in order]}
        examples.append(Example(prompt=row["prompt"], responses=[texts[k] for k in order], columns=columns))
    return examples


def scored(rows: Sequence[Row]) -> list[Example]:
    """Rows of `prompt`+`completion`+`score`; the number is in `columns["score"]`.

    Raises ValueError naming a row whose score is no finite number.
    """
    require_columns(rows, ("prompt", "completion", "score"))
    for number, row in enumerate(rows):
        if not isinstance(row["score"], int | float) or not math.isfinite(row["score"]):
            raise ValueError(f"row {number}: score={row['score']!r}: must be a finite number")
    return [
        Example(prompt=row["prompt"], responses=[row["completion"]], columns={"score": float(row["score"])})
        for row in rows
    ]


def prompts(rows: Sequence[Row]) -> list[Example]:
    """Rows of `prompt`; every other column is kept for the reward functions."""
    require_columns(rows, ("prompt",))
    return [
        Example(
            prompt=row["prompt"],
            responses=[],
            columns={name: value for name, value in row.items() if name != "prompt"},
        )
        for row in rows
    ]


def _split(prompt: Text | None, chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    if prompt is not None:
        return prompt, _without(prompt, chosen), _without(prompt, rejected)
    if isinstance(chosen, str) and isinstance(rejected, str):
        return hh.split_pair(chosen, rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise ValueError("chosen and rejected must both be texts, or both lists of messages")
    common = 0
    for a, b in zip(chosen, rejected, strict=False):
        if a != b:
            break
        common += 1
    if common == 0:
        raise ValueError("chosen and rejected share no first message: give the prompt as a column")
    if common == min(len(chosen), len(rejected)):
        raise ValueError("chosen and rejected do not differ in a response of their own")
    return list(chosen[:common]), list(chosen[common:]), list(rejected[common:])


def _without(prompt: Text, response: Text) -> Text:
    """A response that repeats its prompt's messages, without them."""
    if isinstance(prompt, list) and isinstance(response, list) and response[: len(prompt)] == prompt:
        return response[len(prompt) :]
    return response
