from __future__ import annotations

import torch
from torch import nn

from llm_align.data.batches import make_responses
from llm_align.data.packing import pack
from llm_align.models.causal_lm import reference_copy
from llm_align.models.log_probs import hidden_states, log_probs
from llm_align.models.value_head import ValueModel

RESPONSES = make_responses([[1, 2, 3], [4]], [[5, 6], [7, 8, 9], [3]], [0, 1, 0])


def test_an_untrained_critic_predicts_zero_and_values_are_masked(model):
    critic = ValueModel(model)
    assert not critic(RESPONSES).any()
    nn.init.ones_(critic.output.bias)
    assert torch.equal(critic(RESPONSES), RESPONSES.response_mask.float())


def test_values_and_scores_do_not_depend_on_the_layout(model):
    critic = ValueModel(model)
    nn.init.normal_(critic.output.weight, generator=torch.Generator().manual_seed(0))
    for read in (critic, critic.scores):
        torch.testing.assert_close(
            read(RESPONSES, pack(RESPONSES, 0)), read(RESPONSES, pack(RESPONSES, 16)), atol=1e-5, rtol=0
        )
    last = hidden_states(model, pack(make_responses([[4]], [[7, 8, 9]])))[-1]
    torch.testing.assert_close(critic.scores(RESPONSES)[1], critic.output(last)[0], atol=1e-5, rtol=0)


def test_a_shared_trunk_gives_both_in_one_forward(llama):
    critic = ValueModel(llama)
    nn.init.normal_(critic.output.weight, generator=torch.Generator().manual_seed(0))
    policy, values = critic.policy_and_values(RESPONSES, entropy=True)
    torch.testing.assert_close(policy.log_prob, log_probs(llama, RESPONSES).log_prob)
    torch.testing.assert_close(values, critic(RESPONSES))


def test_a_reference_copy_is_frozen_and_stays(llama):
    copy = reference_copy(llama)
    before = log_probs(copy, RESPONSES).log_prob
    with torch.no_grad():
        llama.model.norm.weight.mul_(2)
    assert torch.equal(before, log_probs(copy, RESPONSES).log_prob)
    assert not any(p.requires_grad for p in copy.parameters())
