"""The rollout: groups, what the sampler said, truncations, several engines, conversations."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from llm_align.feedback.rewards import Reward, Rewards
from llm_align.models.engines import TransformersEngine
from llm_align.models.log_probs import log_probs
from llm_align.models.sampling import Sampling
from llm_align.online import credit, rollout
from llm_align.online.reference import minibatches


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_groups_are_judged_with_the_columns_of_their_prompt(language):
    seen = {}

    def function(prompts, completions, completion_ids, answer, **columns):
        seen.update(prompts=prompts, answer=answer, completions=completions, more=columns)
        return [float(len(ids)) for ids in completion_ids]

    samples = language.task(function).draw(language.policy(), [2, 0], seeded(), group_size=3)
    assert seen["prompts"] == seen["answer"] == ["d"] * 3 + ["a b"] * 3
    assert seen["completions"] == samples.texts
    assert samples.reward.tolist() == samples.responses.lengths.float().tolist()
    assert samples.grouped(samples.reward).shape == (2, 3)
    forced = log_probs(language.policy(), samples.responses).log_prob
    torch.testing.assert_close(samples.log_prob, forced, atol=1e-5, rtol=0)


def test_a_response_cut_at_its_limit_is_not_ended(language):
    samples = language.task().draw(language.policy(), range(4), seeded())
    last = samples.responses.response_ids.gather(1, samples.responses.lengths[:, None] - 1)[:, 0]
    assert torch.equal(samples.ended, last == language.vocab["[eos]"])
    assert samples.ended.any()
    assert not samples.ended.all()
    assert (samples.responses.lengths[~samples.ended] == language.length).all()


def test_chat_prompts_come_with_messages(language):
    def function(prompts, completions):
        assert prompts[0] == [{"role": "user", "content": "a"}]
        return [float(completion[0]["role"] == "assistant") for completion in completions]

    task = language.task(function)
    chat = dataclasses.replace(
        task.prompts[0],
        example=dataclasses.replace(task.prompts[0].example, prompt=[{"role": "user", "content": "a"}]),
    )
    task = dataclasses.replace(task, prompts=[chat])
    assert task.draw(language.policy(), [0], seeded()).reward.tolist() == [1.0] * 8


def test_another_engine_gives_the_same_kind_of_samples(language):
    policy = language.policy()
    task = dataclasses.replace(language.task(), engine=TransformersEngine(policy, pad_id=1))
    samples = task.draw(policy, range(4), seeded())
    assert len(samples) == 32
    forced = log_probs(policy, samples.responses).log_prob
    torch.testing.assert_close(samples.log_prob, forced, atol=1e-5, rtol=0)


def test_greedy_leaves_the_generator_alone(language):
    generator = seeded()
    samples = language.task().greedy(language.policy(), range(4), generator)
    assert len(samples) == 4
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_select_and_join_are_inverse(language):
    samples = language.task().draw(language.policy(), range(4), seeded())
    first, second = (samples.groups(torch.tensor(which)) for which in ([1, 1, 0, 0], [0, 0, 1, 1]))
    whole = rollout.join([first, second])
    assert torch.equal(whole.reward, samples.reward)
    assert whole.texts == samples.texts
    assert whole.responses.response_lists() == samples.responses.response_lists()
    width = whole.log_prob.shape[1]
    assert torch.equal(whole.log_prob, samples.log_prob[:, :width])
    again = log_probs(language.policy(), whole.responses).log_prob
    torch.testing.assert_close(again, whole.log_prob, atol=1e-5, rtol=0)


def test_minibatches_cover_every_row_once_and_keep_prompts_together():
    index = torch.arange(4).repeat_interleave(2)
    parts = list(minibatches(index, 2, seeded()))
    assert sorted(torch.cat(parts).tolist()) == list(range(8))
    assert all(index[part].unique().numel() == 2 for part in parts)
    assert len(list(minibatches(index[:1], 3, seeded()))) == 1


def test_the_environments_words_are_masked(language):
    """It answers once with "b c"; the policy's tokens before and after carry the loss, its words do not."""
    calls = []

    def environment(prompts, completions, answer):
        calls.append((prompts, completions))
        return ["b c" if prompt == "d" else None for prompt in prompts]

    task = language.task(max_turns=3, environment=environment)
    policy = language.policy()
    samples = task.draw(policy, [2, 3], seeded(), group_size=8)
    responses = samples.responses
    masked = responses.response_mask & ~responses.loss_mask
    spoke = masked.any(1)
    assert not spoke[8:].any()
    assert spoke[:8].any()
    words = [language.vocab["b"], language.vocab["c"]]
    for row in spoke.nonzero()[:, 0].tolist():
        said = responses.response_ids[row][masked[row]].tolist()
        assert said == words * (len(said) // 2)
    assert len(calls) == 2  # the last turn is not answered
    forced = log_probs(policy, responses).log_prob
    torch.testing.assert_close(samples.log_prob, forced, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "0 answers to"),
        (None, "returned NoneType to .* must be a list"),
        ("b", "returned str to"),
        ([7] * 32, "returned 7 to turn 0: must be a text, or None"),
    ],
)
def test_an_environment_that_answers_wrongly_is_named(language, answers, message):
    def world(completions):  # it need not take the columns
        return answers[: len(completions)] if isinstance(answers, list) else answers

    task = language.task(max_turns=2, environment=world)
    with pytest.raises(ValueError, match=message):
        task.draw(language.policy(), range(4), seeded())


def test_a_conversation_that_fills_the_context_is_a_truncation(language):
    """The policy has 64 positions; replies of 20 tokens leave room for two of its turns, not for a third."""
    policy, length = language.policy(), language.length
    long = " ".join(["b"] * 20)
    task = language.task(max_turns=9, environment=lambda prompts, completions, answer: [long] * len(prompts))
    samples = task.draw(policy, range(4), seeded(), group_size=32)
    responses = samples.responses
    replies = (responses.response_mask & ~responses.loss_mask).sum(1) // 20
    own = responses.loss_mask.sum(1)
    assert int(replies.max()) == 2  # prompt, 3 turns and 3 replies would be above 64
    assert int(responses.lengths.max()) + 2 <= 64
    full = (replies == 2) & (responses.response_ids.gather(1, responses.lengths[:, None] - 1)[:, 0] == 0)
    assert full.any()
    assert not samples.ended[full].any()  # they stopped by themselves and were not asked on: no room
    assert (own <= 3 * length).all()
    values = credit.next_values(torch.zeros_like(samples.log_prob), responses.loss_mask, torch.ones(len(own)))
    assert values.gather(1, responses.lengths[:, None] - 1)[full].eq(1).all()  # what bootstraps counts


@pytest.mark.parametrize(
    ("options", "message"),
    [({"group_size": 0}, "rollout.group_size=0"), ({"temperature": 0.0}, "rollout.temperature=0.0")],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rollout.Config(**options)


def test_a_task_needs_prompts_and_an_end_of_sequence(language):
    task = language.task()
    with pytest.raises(ValueError, match="rollout.max_turns=3: must be above 1 with an environment"):
        language.task(max_turns=3)
    with pytest.raises(ValueError, match="prompts=0: must be at least one, within data.max_length"):
        dataclasses.replace(task, prompts=[])
    tokenizer = language.tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no EOS token"):
        dataclasses.replace(task, tokenizer=tokenizer)


def test_nothing_judged_is_nan(language):
    task = dataclasses.replace(
        language.task(),
        rewards=Rewards([Reward(name="none", function=lambda prompts: [None] * len(prompts))]),
    )
    assert all(math.isnan(value) for value in task.draw(language.policy(), [0], seeded()).reward.tolist())


def test_stop_ids_join_the_tokenizers_and_the_models(language):
    policy = language.policy()
    policy.generation_config.eos_token_id = [5, 0]
    assert rollout.stop_ids(language.tokenizer(), policy) == (0, 5)
    assert Sampling(stop_ids=(0, 5)).stop_ids == (0, 5)
