from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import MistralConfig, MistralForCausalLM

from llm_align.data.batches import Responses, make_responses
from llm_align.data.packing import pack
from llm_align.models.log_probs import hidden_states, linear_log_probs, log_probs

PROMPTS = [[3, 4, 5], [6] * 9, [7, 8]]
ANSWERS = [[9, 10, 11, 12], [13], [14, 15, 16], [17, 18, 19, 20, 21], [22, 23], [24, 25]]
INDEX = [0, 1, 2, 0, 1, 0]


def batch() -> Responses:
    return make_responses(PROMPTS, ANSWERS, INDEX)


def naive(model, temperature: float = 1.0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """One sequence at a time, full logits."""
    log_prob, entropy = [], []
    for answer, p in zip(ANSWERS, INDEX, strict=True):
        ids = torch.tensor([PROMPTS[p] + answer])
        logits = model(input_ids=ids).logits[0, len(PROMPTS[p]) - 1 : -1].float() / temperature
        every = F.log_softmax(logits, -1)
        log_prob.append(every[torch.arange(len(answer)), torch.tensor(answer)])
        entropy.append(-(every.exp() * every).sum(-1))
    return log_prob, entropy


@pytest.mark.parametrize("row_tokens", [None, 0, 14, 40])
@pytest.mark.parametrize("share", [True, False])
def test_every_layout_equals_one_sequence_at_a_time_with_full_logits(model, row_tokens, share):
    responses = batch()
    packed = pack(responses, row_tokens, share)
    out = log_probs(model, responses, packed=packed, temperature=0.7, entropy=True)
    for row, (log_prob, entropy) in enumerate(zip(*naive(model, 0.7), strict=True)):
        torch.testing.assert_close(out.log_prob[row, : len(log_prob)], log_prob, atol=1e-5, rtol=0)
        torch.testing.assert_close(out.entropy[row, : len(entropy)], entropy, atol=1e-5, rtol=0)
        assert not out.log_prob[row, len(log_prob) :].any()


@pytest.mark.parametrize("row_tokens", [None, 0])
def test_parameter_gradients_equal_the_naive_ones(model, row_tokens):
    responses = batch()
    out = log_probs(model, responses, packed=pack(responses, row_tokens), entropy=True)
    (out.log_prob.sin().sum() + out.entropy.square().sum()).backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    log_prob, entropy = (torch.cat(values) for values in naive(model))
    (log_prob.sin().sum() + entropy.square().sum()).backward()
    for name, parameter in model.named_parameters():
        scale = parameter.grad.abs().max().clamp_min(1.0)
        torch.testing.assert_close(ours[name] / scale, parameter.grad / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunk_elements", [1, 200, 10**6])
@pytest.mark.parametrize("with_bias", [True, False])
def test_chunks_pass_gradcheck(chunk_elements, with_bias):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, requires_grad=True) for shape in ((7, 5), (40, 5), (40,))
    )
    targets = torch.randint(40, (7,), generator=generator)
    inputs = (hidden, weight, bias) if with_bias else (hidden, weight)
    out = linear_log_probs(
        hidden, weight, targets, bias if with_bias else None, 1.3, entropy=True, chunk_elements=chunk_elements
    )
    ours = torch.autograd.grad(out[0].square().sum() + out[1].exp().sum(), inputs)
    every = F.log_softmax(F.linear(hidden, weight, bias if with_bias else None) / 1.3, -1)
    expected = every.gather(1, targets[:, None])[:, 0], -(every.exp() * every).sum(1)
    theirs = torch.autograd.grad(expected[0].square().sum() + expected[1].exp().sum(), inputs)
    for a, b in zip((*out, *ours), (*expected, *theirs), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


class Largest(TorchDispatchMode):
    """Remembers the most elements that any tensor computed under it had."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize(("chunk_elements", "largest"), [(600, 300 * 4), (10**6, 64 * 300)])
def test_no_more_logits_exist_at_a_time_than_asked_for(chunk_elements, largest):
    """64 positions, 300 words, width 4: in chunks, nothing is larger than the weights' gradient."""
    hidden, weight = torch.randn(64, 4, requires_grad=True), torch.randn(300, 4, requires_grad=True)
    with Largest() as seen:
        options = {"entropy": True, "chunk_elements": chunk_elements}
        log_prob, entropy = linear_log_probs(hidden, weight, torch.arange(64), **options)
        (log_prob + entropy).sum().backward()
    assert seen.numel == largest


def test_one_half_of_the_forward_works_where_only_the_hidden_states_need_a_gradient():
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(9, 4)
    linear_log_probs(hidden, weight, torch.tensor([0, 1, 2]))[0].sum().backward()
    assert hidden.grad is not None


def test_autocast_gives_bf16_products_and_float32_results(llama):
    responses = batch()
    with torch.autocast("cpu", torch.bfloat16):
        low = log_probs(llama, responses).log_prob
    assert low.dtype == torch.float32
    low.sum().backward()
    torch.testing.assert_close(low, log_probs(llama, responses).log_prob, atol=0.3, rtol=0.1)


def test_eager_attention_isolates_too(llama):
    responses = batch()
    expected = log_probs(llama, responses).log_prob
    llama.set_attn_implementation("eager")
    torch.testing.assert_close(log_probs(llama, responses).log_prob, expected, atol=1e-5, rtol=0)


def test_environment_tokens_have_no_log_probability(llama):
    masks = [[True] * len(answer) for answer in ANSWERS]
    masks[0] = [True, False, False, True]
    full, masked = batch(), make_responses(PROMPTS, ANSWERS, INDEX, masks)
    expected = log_probs(llama, full).log_prob
    expected[0, 1:3] = 0.0
    torch.testing.assert_close(log_probs(llama, masked).log_prob, expected, atol=1e-5, rtol=0)


def test_sliding_windows_refuse_packed_rows_and_accept_plain_ones():
    config = MistralConfig(
        vocab_size=97, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=4, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model, responses = MistralForCausalLM(config), batch()
    with pytest.raises(ValueError, match="row_tokens=0"):
        hidden_states(model, pack(responses))
    assert hidden_states(model, pack(responses, 0)).shape[1] == 16
