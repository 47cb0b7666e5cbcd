"""PPO on responses: learns a 4-token language in each of its forms, repeats, resumes."""

from __future__ import annotations

import math

import pytest
import torch

from llm_align.data.examples import Example
from llm_align.data.tokens import encode
from llm_align.models.log_probs import log_probs
from llm_align.models.value_head import ValueModel
from llm_align.online import credit, ppo
from llm_align.online.loop import Experience
from llm_align.online.reference import KL
from rl_core import ppo as core

RATES = {"lr": 1e-2, "critic_lr": 1e-2}


def settings(**options):
    defaults = {"epochs": 4, "minibatch_size": 16, "value_clip": 0.2, "value_coef": 0.1, "max_grad_norm": 1.0}
    return core.Config(**defaults | options)


FORMS = {
    "kl in the reward": {"kl": KL(coef=0.005, estimator="k1", place="reward")},
    "kl in the loss": {"kl": KL(coef=0.01)},
    "kl penalty": {
        "kl": KL(),
        "old_kl_coef": 0.5,
        "ppo": settings(clip_low=math.inf, clip_high=math.inf),
    },
    "shared trunk": {"critic": "shared", "kl": KL(), "ppo": settings(epochs=3)},
    "whitened": {"kl": KL(), "credit": credit.Config(whiten_rewards=True)},
}


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[] if i == 0 else pytest.mark.slow) for i, form in enumerate(FORMS)]
)
def test_every_form_learns_the_language(form, train, language):
    agent = train(ppo, ppo.Config(**RATES | FORMS[form]), 24)
    assert language.mean_reward(agent.policy) >= 0.95


def demonstrations(language, text="d d"):
    examples = [Example(prompt=prompt, responses=[text]) for prompt in ("a", "b c", "d")]
    return encode(language.tokenizer(), examples, max_length=32)


def test_same_seed_same_weights_and_two_and_two_are_four(train, same_weights, language):
    cfg = ppo.Config(
        **RATES,
        kl=KL(coef=0.1, estimator="k1", place="reward", target=0.5, horizon=64),
        ppo=settings(entropy_coef=0.01),
        ptx_coef=0.1,
        ptx_batch_size=2,
    )
    shown = demonstrations(language)
    whole, again = (train(ppo, cfg, 4, demonstrations=shown) for _ in range(2))
    train(ppo, cfg, 2, name="parts", demonstrations=shown)
    parts = train(ppo, cfg, 4, name="parts", resume=True, demonstrations=shown)
    assert same_weights(whole, again)
    assert same_weights(whole, parts)


def test_the_pretraining_gradient_keeps_demonstrations_likely(train, language):
    shown = demonstrations(language)
    responses = ppo.collate(shown)

    def likelihood(coef):
        agent = train(ppo, ppo.Config(**RATES, kl=KL(), ptx_coef=coef), 6, demonstrations=shown)
        return log_probs(agent.policy, responses).log_prob.sum(1).mean().item()

    assert likelihood(1.0) > likelihood(0.0) + 2.0


def test_a_critic_can_be_given(language):
    critic = ValueModel(language.policy(1))
    agent = ppo.Agent(ppo.Config(), language.policy(), critic)
    assert agent.critic is critic
    assert len(agent.optimizer.param_groups) == 2


def test_the_first_minibatch_starts_at_ratio_one(train, language):
    task, policy = language.task(), language.policy()
    cfg = ppo.Config(ppo=settings(epochs=1, minibatch_size=64))
    agent = ppo.Agent(cfg, policy)
    samples = task.draw(policy, range(4), torch.Generator().manual_seed(0))
    experience = Experience(samples=samples, ref_log_prob=samples.log_prob, kl_coef=0.1, temperature=1.0)
    stats = ppo.update(agent, experience, cfg, None, torch.Generator().manual_seed(0))
    assert stats["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert stats["ratio_max"] == pytest.approx(1.0, abs=1e-4)
    assert stats["clip_fraction"] == 0.0


@pytest.mark.parametrize("reward", [1.0, None])
def test_equal_or_no_rewards_go_through(train, language, reward):
    task = language.task(lambda prompts: [reward] * len(prompts))
    agent = train(ppo, ppo.Config(**RATES), 2, task=task)
    assert all(torch.isfinite(p).all() for p in agent.parameters())


def test_wrong_settings_are_refused(train):
    with pytest.raises(ValueError, match="algo.ptx_coef"):
        train(ppo, ppo.Config(ptx_coef=1.0), 1)
    with pytest.raises(ValueError, match="did you mean 'shared'"):
        ppo.Config(critic="share")
    with pytest.raises(ValueError, match="algo.critic_lr"):
        ppo.Config(critic_lr=0.0)
