"""Best-of-n: what is kept, and that imitating it learns a 4-token language."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from llm_align.online import best_of_n


def test_imitating_the_best_learns_the_language(train, language):
    agent = train(best_of_n, best_of_n.Config(lr=1e-2), 50)
    assert language.mean_reward(agent.policy) >= 0.95


def test_same_seed_same_weights_and_two_and_two_are_four(train, same_weights):
    cfg = best_of_n.Config(lr=1e-2, keep=2, epochs=2, minibatches=2)
    whole, again = train(best_of_n, cfg, 4), train(best_of_n, cfg, 4)
    train(best_of_n, cfg, 2, name="parts")
    parts = train(best_of_n, cfg, 4, name="parts", resume=True)
    assert same_weights(whole, again)
    assert same_weights(whole, parts)


def test_the_best_by_hand(language):
    drawn = language.task().draw(language.policy(), range(2), torch.Generator().manual_seed(0), group_size=3)
    drawn = dataclasses.replace(drawn, reward=torch.tensor([0.0, 2.0, 1.0, math.nan, math.nan, -1.0]))
    assert best_of_n.best(drawn).tolist() == [1, 5]
    assert best_of_n.best(drawn, keep=2).tolist() == [1, 2, 5]
    assert best_of_n.best(drawn, min_reward=0.0).tolist() == [1]


def test_nothing_good_enough_takes_no_step(train, language, same_weights):
    agent = train(best_of_n, best_of_n.Config(min_reward=2.0), 2)
    assert same_weights(agent.policy, language.policy())


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="algo.keep=0"):
        best_of_n.Config(keep=0)


def test_a_choice_of_all_is_refused(train, language):
    alone = {"group_size": 1}
    with pytest.raises(ValueError, match="algo.keep=1: must be less than rollout.group_size=1"):
        train(best_of_n, best_of_n.Config(), 1, task=language.task(**alone))
    with pytest.raises(ValueError, match="algo.keep=9"):
        train(best_of_n, best_of_n.Config(keep=9, min_reward=0.5), 1)
    train(best_of_n, best_of_n.Config(min_reward=0.1), 1, task=language.task(**alone))
