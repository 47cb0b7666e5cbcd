"""Win rates of judges whose behaviour is known."""

from __future__ import annotations

import math

import pytest

from llm_align.eval.win_rate import from_rewards, win_rate

PROMPTS = ["p"] * 4
A, B = ["aaa", "aa", "a", "a"], ["b", "b", "bb", "b"]


def longer(prompts, first, second):
    return [0.5 if len(x) == len(y) else float(len(x) > len(y)) for x, y in zip(first, second, strict=True)]


def test_a_fair_judge():
    result = win_rate(longer, PROMPTS, A, B)
    assert result.rate == (1 + 1 + 0 + 0.5) / 4
    assert result.low < result.rate < result.high
    assert result.inconsistent == 0.0
    assert result.first == 0.5
    assert from_rewards([3, 2, 1, 1], [1, 1, 2, 1]) == result


def test_position_bias_cancels_and_is_reported():
    result = win_rate(lambda prompts, first, second: [1.0] * len(first), PROMPTS, A, B)
    assert result.rate == 0.5
    assert result.first == 1.0
    assert result.inconsistent == 1.0


def test_what_is_not_judged_is_left_out():
    def only_a_first(prompts, first, second):
        return [None if text.startswith("b") and len(text) == 2 else 1.0 for text in first]

    result = win_rate(only_a_first, PROMPTS, A, B)
    assert (result.pairs, result.unjudged) == (3, 1)
    assert from_rewards([1.0, math.nan], [0.0, 1.0]).unjudged == 1
    nothing = win_rate(lambda prompts, first, second: [None] * 4, PROMPTS, A, B)
    assert (nothing.rate, nothing.low, nothing.high, nothing.pairs) == (0.5, 0.0, 1.0, 0)


@pytest.mark.parametrize("wrong", [1.5, math.nan, "first"])
def test_faults_are_named(wrong):
    with pytest.raises(ValueError, match="for row 2"):
        win_rate(lambda prompts, first, second: [0.0, 1.0, wrong, 1.0], PROMPTS, A, B)
    with pytest.raises(ValueError, match="1 answers for 4 pairs"):
        win_rate(lambda prompts, first, second: [1.0], PROMPTS, A, B)
    with pytest.raises(ValueError, match="NoneType for 4 pairs: must be a list"):
        win_rate(lambda prompts, first, second: None, PROMPTS, A, B)
    with pytest.raises(ValueError, match="equally many"):
        win_rate(longer, PROMPTS, A, B[:2])
