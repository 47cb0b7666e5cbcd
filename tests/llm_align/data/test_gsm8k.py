from __future__ import annotations

from pathlib import Path

import pytest

from llm_align.data.gsm8k import final_answer, problem, solutions
from llm_align.data.readers import load_rows

DATA = Path(__file__).parents[4] / "shared" / "data" / "gsm8k"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so\n#### 18", "18"),
        ("#### $1,200.50", "1200.5"),
        ("#### -3.00", "-3"),
        ("A: 42 eggs", "42"),
        ("#### 1\n#### 2", "2"),
        ("#### .5", ".5"),
        ("#### none", None),
        ("18", None),
    ],
)
def test_the_final_answer_is_one_plain_decimal(text, answer):
    assert final_answer(text) == answer


def test_calculator_marks_are_removed_and_a_missing_answer_is_refused():
    row = {"question": "q", "answer": "2+2=<<2+2=4>>4 eggs.\n#### 4"}
    assert problem(row).reasoning == "2+2=4 eggs."
    with pytest.raises(ValueError, match="####"):
        problem({"question": "q", "answer": "four"})


def test_solutions_are_python_literals_or_dicts():
    attempt = {"is_correct": True, "solution": "it's 1"}
    row = {name: str(attempt) for name in ("6b_finetuning", "6b_verification", "175b_finetuning")}
    found = solutions(row | {"175b_verification": attempt})
    assert [(s.text, s.correct) for s in found] == [("it's 1", True)] * 4
    with pytest.raises(ValueError, match="6b_finetuning"):
        solutions({"6b_finetuning": "__import__('os')"})


@needs_data
def test_all_real_rows_read_and_the_marks_of_the_models_agree_with_the_final_answer():
    assert len([problem(row) for row in load_rows(DATA / "train.jsonl.gz")]) == 7473
    agree = []
    for row in load_rows(DATA / "model_solutions.jsonl.gz"):
        truth = final_answer(row["ground_truth"])
        agree += [(final_answer(s.text) == truth) == s.correct for s in solutions(row)]
    assert len(agree) == 4000
    assert sum(agree) / 4000 > 0.98
