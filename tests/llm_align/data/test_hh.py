from __future__ import annotations

from pathlib import Path

import pytest

from llm_align.data.examples import preferences
from llm_align.data.hh import split_pair
from llm_align.data.readers import load_rows

DATA = Path(__file__).parents[4] / "shared" / "data" / "hh-rlhf" / "harmless-base.jsonl.gz"
START = "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"


def test_the_prompt_ends_where_the_answers_begin_even_if_they_begin_alike():
    assert split_pair(START + " same start, a", START + " same start, b") == (
        START,
        " same start, a",
        " same start, b",
    )


def test_one_answer_may_be_the_beginning_of_the_other():
    assert split_pair(START + " yes", START + " yes and no") == (START, " yes", " yes and no")


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("a", "b"), (START + " x", START + " x"), ("\n\nHuman: a", "\n\nHuman: b")]
)
def test_texts_that_cannot_be_split_are_refused(chosen, rejected):
    with pytest.raises(ValueError, match="chosen and rejected"):
        split_pair(chosen, rejected)


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_every_real_pair_splits_and_joins_again():
    rows = [row for row in load_rows(DATA) if row["chosen"] != row["rejected"]]
    examples = preferences(rows)
    assert len(examples) > 1700
    for row, example in zip(rows, examples, strict=True):
        assert example.prompt.endswith("\n\nAssistant:")
        assert [example.prompt + response for response in example.responses] == [
            row["chosen"],
            row["rejected"],
        ]
