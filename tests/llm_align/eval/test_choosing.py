"""Choosing among answers, by hand."""

from __future__ import annotations

import pytest

from llm_align.data.examples import Example, ratings
from llm_align.eval.choosing import choosers


def answers(prompt, *found):
    return [Example(prompt=prompt, responses=[f"so\nA: {number}"], labels=[good]) for number, good in found]


def test_each_way_of_choosing_by_hand():
    examples = [
        *answers("p", (1, False), (1, False), (2, True), (3, False)),
        *answers("q", (4, True), (4, True), (5, False), (6, False)),
        *answers("r", (7, False), (8, True)),
        *answers("s", (9, False), (9, False)),
    ]
    found = choosers(examples, [0, 0, 1, 0, 0, 0, 0, 3, 2, 2, 0, 1])
    assert found["best_score"][0] == (1 + 0 + 0.5 + 0) / 4
    assert found["majority"][0] == (0 + 1 + 0.5 + 0) / 4
    assert found["random"][0] == (0.25 + 0.5 + 0.5 + 0) / 4
    assert found["oracle"][0] == 0.75
    assert all(low < rate < high for rate, low, high in found.values())


def test_answers_without_a_number_do_not_vote():
    silent = Example(prompt="p", responses=["I do not know"], labels=[False])
    found = choosers([silent, silent, *answers("p", (1, True))], [0, 0, 0])
    assert found["majority"][0] == 1.0
    assert choosers([silent], [0])["majority"][0] == 0.0


def test_gsm8ks_solutions_are_ratings():
    row = {
        solver: str({"solution": f"<<1+1=2>>{solver}\nA: 2", "is_correct": "175b" in solver})
        for solver in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    }
    found = ratings([{"question": "1 + 1?", **row}])
    assert [item.labels for item in found] == [[False], [False], [True], [True]]
    assert {item.prompt for item in found} == {"1 + 1?\n"}
    assert found[0].responses == ["6b_finetuning\nA: 2"]
    with pytest.raises(ValueError, match="question"):
        ratings([{"qestion": "1 + 1?", **row}])
