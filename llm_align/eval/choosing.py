"""Choosing among several answers to one question: by a score, by majority, and what bounds them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from llm_align.data.examples import Example
from llm_align.data.gsm8k import final_answer
from llm_align.eval.accuracy import wilson

Interval = tuple[float, float, float]  # rate, low, high


def choosers(examples: Sequence[Example], scores: Sequence[float]) -> dict[str, Interval]:
    """How often each way of choosing one of a question's rated answers is right, with 95 % intervals.

    `best_score` takes the highest score; `majority` the most frequent final answer (`gsm8k.final_answer`;
    ties in expectation); `random` any; `oracle` is right where one of them is. Questions are equal prompts.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        groups[str(example.prompt)].append(row)
    rates: dict[str, list[float]] = defaultdict(list)
    for rows in groups.values():
        right = [bool(examples[row].labels and examples[row].labels[0]) for row in rows]  # type: ignore[index]
        answers = [final_answer(str(examples[row].responses[0])) for row in rows]
        score = [scores[row] for row in rows]
        rates["best_score"].append(_mean([r for r, s in zip(right, score, strict=True) if s == max(score)]))
        rates["majority"].append(_majority(answers, right))
        rates["random"].append(_mean(right))
        rates["oracle"].append(float(any(right)))
    return {name: (_mean(values), *wilson(_mean(values), len(values))) for name, values in rates.items()}


def _majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return _mean(right)
    winners = [answer for answer, count in votes.items() if count == max(votes.values())]
    return _mean([_mean([r for r, a in zip(right, answers, strict=True) if a == w]) for w in winners])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
