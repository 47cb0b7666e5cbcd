"""REINFORCE and its relatives: learn a 4-token language, repeat, resume; baselines by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from llm_align.data.batches import make_responses
from llm_align.models.value_head import ValueModel
from llm_align.online import reinforce
from llm_align.online.credit import Config as Credit
from llm_align.online.loop import Experience
from llm_align.online.reference import KL
from llm_align.online.rollout import Samples

MEMBERS = {
    "reinforce": {"baseline": "batch"},
    "scst": {"baseline": "greedy"},
    "rloo": {"baseline": "leave_one_out"},
    "a2c": {"baseline": "value", "critic_lr": 1e-2},
    "minimum risk": {"objective": "minimum_risk"},
}


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_learns_the_language(member, train, language):
    agent = train(reinforce, reinforce.Config(lr=1e-2, **MEMBERS[member]), 50)
    assert language.mean_reward(agent.policy) >= 0.95


@pytest.mark.parametrize("member", ["scst", "a2c"])
def test_same_seed_same_weights_and_two_and_two_are_four(member, train, same_weights):
    kl = KL(coef=0.1, estimator="k1", place="reward", target=0.5, horizon=64)
    cfg = reinforce.Config(lr=1e-2, kl=kl, entropy_coef=0.01, warmup=3, **MEMBERS[member])
    whole, again = train(reinforce, cfg, 4), train(reinforce, cfg, 4)
    train(reinforce, cfg, 2, name="parts")
    parts = train(reinforce, cfg, 4, name="parts", resume=True)
    assert same_weights(whole, again)
    assert same_weights(whole, parts)


def experience(reward, rows=([2], [2], [3], [4]), **options):
    responses = make_responses([[5], [5]], rows, [0, 0, 1, 1])
    samples = Samples(
        responses=responses,
        log_prob=-1.0 * responses.loss_mask,
        ended=torch.ones(4, dtype=torch.bool),
        reward=torch.tensor(reward),
        parts={},
        texts=[""] * 4,
        group_size=2,
    )
    settings = {"ref_log_prob": None, "kl_coef": 0.0, "temperature": 1.0} | options
    return Experience(samples=samples, **settings)


def test_baselines_by_hand():
    drawn = experience([1.0, 3.0, 5.0, math.nan])

    def advantage(baseline):
        return reinforce.advantages(drawn, baseline, KL(), greedy=torch.tensor([1.0, 2.0])).tolist()

    assert advantage("none") == [1.0, 3.0, 5.0, 0.0]
    assert advantage("batch") == [-2.0, 0.0, 2.0, 0.0]
    assert advantage("greedy") == [0.0, 2.0, 3.0, 0.0]
    assert advantage("leave_one_out") == [-2.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize("baseline", ["none", "batch", "value"])
def test_whitened_or_not_what_nothing_judged_teaches_nothing(baseline, language):
    drawn = experience([1.0, 3.0, 5.0, math.nan])
    cfg = reinforce.Config(baseline=baseline, whiten=True)
    critic = ValueModel(language.policy()) if baseline == "value" else None
    agent = reinforce.Agent(cfg, language.policy(), critic)
    advantage = reinforce.token_advantages(agent, drawn, cfg, None)[0][:, 0]
    expected = torch.tensor([-1.0, 0.0, 1.0, 0.0])
    torch.testing.assert_close(advantage, expected, atol=1e-5, rtol=0)


def test_kl_in_the_reward_by_hand():
    kl = KL(coef=1.0, estimator="k1", place="reward")
    drawn = experience([1.0, 1.0, 1.0, 1.0], ref_log_prob=torch.full((4, 1), -3.0), kl_coef=0.25)
    assert reinforce.charged_reward(drawn, kl).tolist() == [0.5] * 4


def test_minimum_risk_by_hand():
    log_prob = torch.tensor([[0.8, 0.2]]).log()
    reward, both = torch.tensor([[1.0, 0.0]]), torch.tensor([[True, True]])
    assert reinforce.minimum_risk(log_prob, reward, both, 1.0).item() == pytest.approx(-0.8)
    sharper = 0.8**2 / (0.8**2 + 0.2**2)
    assert reinforce.minimum_risk(log_prob, reward, both, 2.0).item() == pytest.approx(-sharper)
    assert reinforce.minimum_risk(log_prob, reward, torch.tensor([[True, False]]), 2.0).item() == -1.0
    assert reinforce.minimum_risk(log_prob, reward, ~both, 2.0).item() == 0.0


def test_a_candidate_counts_once():
    drawn = experience([1.0, 1.0, math.nan, 2.0]).samples
    assert reinforce.first_of_its_kind(drawn).tolist() == [True, False, False, True]
    longer = dataclasses.replace(
        drawn, responses=make_responses([[5], [5]], [[2], [2, 0], [2], [4]], [0, 0, 1, 1])
    )
    assert reinforce.first_of_its_kind(longer).tolist() == [True, True, False, True]


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("reward", [1.0, None])
def test_equal_or_no_rewards_go_through(train, language, member, reward):
    task = language.task(lambda prompts: [reward] * len(prompts))
    agent = train(reinforce, reinforce.Config(lr=1e-2, **MEMBERS[member]), 2, task=task)
    assert all(torch.isfinite(p).all() for p in agent.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "gredy"}, "did you mean 'greedy'"),
        ({"objective": "risk"}, "algo.objective"),
        ({"alpha": 0.0}, "algo.alpha"),
        ({"alpha": 1.0}, "algo.alpha=1.0: must be 0.005 with .*read by minimum_risk"),
        ({"objective": "minimum_risk", "baseline": "value"}, "algo.baseline='value'"),
        ({"critic_lr": 1.0}, "algo.critic_lr=1.0"),
        ({"credit": Credit(lam=0.9)}, "only algo.baseline=value"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        reinforce.Config(**options)


@pytest.mark.parametrize(
    ("options", "drawn", "message"),
    [
        (
            {"baseline": "leave_one_out"},
            {"group_size": 1},
            "rollout.group_size=1: .* algo.baseline=leave_one",
        ),
        ({"objective": "minimum_risk"}, {"group_size": 1}, "rollout.group_size=1: .* algo.objective"),
        ({"baseline": "batch"}, {"group_size": 1, "prompts": 1}, "rollout.prompts x group_size=1"),
    ],
)
def test_a_response_alone_has_no_baseline(options, drawn, message, train, language):
    with pytest.raises(ValueError, match=message):
        train(reinforce, reinforce.Config(**options), 1, task=language.task(**drawn))
