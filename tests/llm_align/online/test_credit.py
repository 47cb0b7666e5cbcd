"""Token rewards and advantages of responses, by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from llm_align.data.batches import make_responses
from llm_align.models.value_head import ValueModel
from llm_align.online import credit
from llm_align.online.reference import KL
from llm_align.online.rollout import Samples

NONE = KL()


def samples(ended=(True, False)):
    """Two responses to one prompt; the second has a word of an environment in its middle."""
    responses = make_responses([[3]], [[4, 0], [4, 5, 4]], [0, 0], [[True, True], [True, False, True]])
    return Samples(
        responses=responses,
        log_prob=-1.0 * responses.loss_mask,
        ended=torch.tensor(ended),
        reward=torch.tensor([2.0, 3.0]),
        parts={},
        texts=["", ""],
        group_size=2,
    )


def test_the_score_is_at_the_last_token_of_the_policys():
    rewards = credit.token_rewards(samples(), credit.Config(), NONE, 0.0, None)
    assert rewards.tolist() == [[0, 2, 0], [0, 0, 3]]
    penalised = credit.Config(missing_eos_penalty=1.5, clip_score=2.5)
    assert credit.token_rewards(samples(), penalised, NONE, 0.0, None).tolist() == [[0, 2, 0], [0, 0, 1]]
    bootstrap = credit.Config(truncated="bootstrap")
    assert credit.token_rewards(samples(), bootstrap, NONE, 0.0, None).tolist() == [[0, 2, 0], [0, 0, 0]]


def test_kl_is_charged_at_every_token_of_the_policys():
    kl = KL(coef=1.0, estimator="k1", place="reward")
    drawn = samples()
    ref = drawn.log_prob - 0.5 * drawn.responses.loss_mask
    rewards = credit.token_rewards(drawn, credit.Config(), kl, 2.0, ref)
    assert rewards.tolist() == [[-1, 1, 0], [-1, 0, 2]]


def test_next_values_skip_the_environments_words():
    mask = torch.tensor([[True, True, False], [True, False, True]])
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 4.0]])
    after = credit.next_values(values, mask, torch.tensor([7.0, 8.0]))
    assert after[mask].tolist() == [2.0, 7.0, 4.0, 8.0]


@pytest.mark.parametrize("truncated", ["score", "bootstrap"])
def test_a_truncation_bootstraps_from_the_critic_or_ends(language, truncated):
    """lam=0, gamma=1: the advantage is r + V(next) - V; a critic that says 5 everywhere makes it easy."""
    critic = ValueModel(language.policy())
    torch.nn.init.constant_(critic.output.bias, 5.0)
    cfg = credit.Config(lam=0.0, truncated=truncated)
    drawn = samples()
    rewards = credit.token_rewards(drawn, cfg, NONE, 0.0, None)
    values, advantage, returns = credit.estimate(drawn, critic, rewards, cfg)
    mask = drawn.responses.loss_mask
    assert values[mask].tolist() == [5.0] * 4
    last = 5.0 - 5.0 if truncated == "bootstrap" else 3.0 - 5.0
    assert advantage[mask].tolist() == [0.0, 2.0 - 5.0, 0.0, last]
    assert torch.equal(returns[mask], (advantage + values)[mask])
    terminal = dataclasses.replace(drawn, ended=torch.tensor([True, True]))
    rewards = credit.token_rewards(terminal, cfg, NONE, 0.0, None)
    assert credit.estimate(terminal, critic, rewards, cfg)[1][mask].tolist() == [0.0, -3.0, 0.0, -2.0]


def test_whitening_keeps_the_mean():
    rewards = credit.token_rewards(samples(), credit.Config(whiten_rewards=True), NONE, 0.0, None)
    mask = samples().responses.loss_mask
    assert rewards[mask].mean() == pytest.approx(5 / 4)
    assert rewards[mask].std() == pytest.approx(1.0)


def test_what_nothing_judged_earns_nothing_and_does_not_scale_the_rest():
    cfg = credit.Config(whiten_rewards=True)
    drawn = dataclasses.replace(samples(), reward=torch.tensor([2.0, math.nan]))
    rewards = credit.token_rewards(drawn, cfg, NONE, 0.0, None)
    alone = credit.token_rewards(drawn.select(torch.tensor([0])), cfg, NONE, 0.0, None)
    assert rewards[1].tolist() == [0.0] * 3
    assert torch.equal(rewards[:1, : alone.shape[1]], alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 1.5}, "algo.credit.lam=1.5"),
        ({"truncated": "scores"}, "did you mean 'score'"),
        ({"truncated": "bootstrap", "missing_eos_penalty": 1.0}, "0 with truncated=bootstrap"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        credit.Config(**options)
