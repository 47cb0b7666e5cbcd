"""GSM8K (Cobbe et al.

2021, arXiv:2110.14168): worked answers, the final number, solutions written by models.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MARK = re.compile(r"<<[^<>]*>>")  # <<16-3-4=9>>: what the paper's calculator was called with
_FINAL = re.compile(r"(?:####|\bA:)\s*([^\n]*)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
SOLVERS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A question, its worked answer without calculator marks, and the final number as a plain decimal."""

    question: str
    reasoning: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """One model's attempt at a problem."""

    solver: str
    text: str
    correct: bool


def problem(row: Mapping[str, Any]) -> Problem:
    """Read a row of `question`, `answer`.

    Raises ValueError if the answer has no number after `####`.
    """
    answer = final_answer(row["answer"])
    if answer is None or "####" not in row["answer"]:
        raise ValueError(f"answer {row['answer'][-40:]!r}: there must be a number after '####'")
    reasoning = without_marks(row["answer"]).split("####")[0].rstrip()
    return Problem(question=row["question"], reasoning=reasoning, answer=answer)


def solutions(row: Mapping[str, Any]) -> list[Solution]:
    """Read the four attempts in a row of `model_solutions`, given as dicts or as Python literals."""
    found = []
    for solver in SOLVERS:
        value = row[solver]
        try:
            attempt = ast.literal_eval(value) if isinstance(value, str) else value
            found.append(
                Solution(
                    solver=solver,
                    text=without_marks(attempt["solution"]),
                    correct=bool(attempt["is_correct"]),
                )
            )
        except (ValueError, SyntaxError, KeyError, TypeError) as error:
            raise ValueError(f"{solver}: not a dict of solution and is_correct ({error!r})") from error
    return found


def final_answer(text: str) -> str | None:
    """The number after the last `####` (or `A:`) as a plain decimal, `None` where there is none.

    "#### $1,200.50" gives "1200.5"; two answers are equal exactly when their strings are.
    """
    finals = _FINAL.findall(text)
    number = _NUMBER.search(finals[-1]) if finals else None
    if number is None:
        return None
    digits = number[0].replace(",", "")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits if digits not in ("", "-", "-0") else "0"


def without_marks(text: str) -> str:
    """The text without `<<...>>` calculator marks."""
    return _MARK.sub("", text)
