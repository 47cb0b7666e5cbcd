"""Accuracy and pass@k by hand and by enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from llm_align.data.batches import make_responses
from llm_align.eval.accuracy import pass_at_k, verifiable, wilson
from llm_align.eval.held_out import summary
from llm_align.online.rollout import Samples


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer():
    correct = torch.tensor([[True, False, False, True, False], [False] * 5, [True] * 5])
    for k in range(1, 6):
        subsets = list(itertools.combinations(range(5), k))
        expected = [sum(any(row[i] for i in s) for s in subsets) / len(subsets) for row in correct.tolist()]
        assert pass_at_k(correct, k).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="k=6"):
        pass_at_k(correct, 6)


def judged(*rewards: float) -> Samples:
    return Samples(
        responses=make_responses([[1], [1]], [[2]] * 4, [0, 0, 1, 1]),
        log_prob=torch.zeros(4, 1),
        ended=torch.ones(4, dtype=torch.bool),
        reward=torch.tensor(rewards),
        parts={},
        texts=[""] * 4,
        group_size=2,
    )


def test_pass_at_k_of_rewards_that_are_no_verdicts_is_refused():
    assert summary(judged(1.0, 0.0, math.nan, 1.0), ks=(2,))["pass@2"] == 1.0
    with pytest.raises(ValueError, match="ks=.2.: must be empty where rewards are other numbers"):
        summary(judged(0.7, 0.0, math.nan, 1.0), ks=(2,))


def test_verifiable_by_hand():
    values = verifiable(judged(1.0, 0.0, math.nan, 1.0), ks=(1, 2))
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert (values["accuracy_low"], values["accuracy_high"]) == wilson(2 / 3, 2)
    assert values["pass@1"] == 0.5
    assert values["pass@2"] == 1.0


def test_wilson_is_the_published_interval():
    low, high = wilson(0.5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(0.3, 0) == (0.0, 1.0)
