from __future__ import annotations

import pytest
import torch

from llm_align.data.batches import pad
from llm_align.models import weights
from llm_align.models.adapters import Lora, add_lora, reference
from llm_align.models.decoder import FusedDecoder, ModuleDecoder
from llm_align.models.generation import Generated, generate, make_decoder
from llm_align.models.log_probs import log_probs
from llm_align.models.sampling import Sampling

PROMPTS = [[3, 4, 5], [7] * 9, [11, 12, 13, 14, 15]]
STOPS = tuple(range(20, 32))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_same(a: Generated, b: Generated) -> None:
    assert torch.equal(a.responses.response_ids, b.responses.response_ids)
    assert torch.equal(a.responses.response_mask, b.responses.response_mask)
    torch.testing.assert_close(a.log_prob, b.log_prob, atol=1e-5, rtol=0)
    assert torch.equal(a.ended, b.ended)


def test_greedy_is_transformers_greedy(model):
    ours = generate(model, PROMPTS, Sampling(max_new_tokens=24, temperature=0), generator=seeded())
    ids, mask = pad(PROMPTS, 0, left=True)
    theirs = model.generate(
        input_ids=ids, attention_mask=mask.long(), max_new_tokens=24, do_sample=False, pad_token_id=0
    )
    assert torch.equal(ours.responses.response_ids, theirs[:, ids.shape[1] :])


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_probs_are_those_of_teacher_forcing(model, temperature):
    sampling = Sampling(max_new_tokens=24, temperature=temperature, stop_ids=STOPS)
    out = generate(model, PROMPTS, sampling, generator=seeded(), num_samples=4)
    forced = log_probs(model, out.responses, temperature=temperature or 1.0).log_prob
    assert out.responses.lengths.unique().numel() > 1 or temperature == 0
    torch.testing.assert_close(out.log_prob, forced, atol=1e-5, rtol=0)


def test_the_models_own_forward_draws_the_same(model):
    sampling = Sampling(max_new_tokens=24, stop_ids=STOPS)
    own = generate(model, PROMPTS, sampling, generator=seeded(), num_samples=4)
    module = ModuleDecoder(model)
    assert_same(own, generate(model, PROMPTS, sampling, generator=seeded(), num_samples=4, decoder=module))


class _Static(FusedDecoder):
    """Steps as a CUDA graph runs them: a tensor column, the whole cache under a mask."""

    def step(self, tokens, column):
        return super().step(tokens, torch.tensor(column))


@pytest.mark.parametrize("prompts", [PROMPTS, [[3, 4], [5, 6]]])
def test_static_shapes_as_a_cuda_graph_needs_them_change_nothing(model, prompts):
    sampling = Sampling(max_new_tokens=24, stop_ids=STOPS)
    own = generate(model, prompts, sampling, generator=seeded(), num_samples=4)
    static = _Static(weights.read(model, 40), 40)
    assert_same(own, generate(model, prompts, sampling, generator=seeded(), num_samples=4, decoder=static))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_steps_replayed_as_cuda_graphs_draw_the_same(llama):
    """Limits force compaction, after which the graph is captured anew."""
    sampling, limits = Sampling(max_new_tokens=24), [24, 6, 24, 7, 24, 8]
    model, generator = llama.cuda(), torch.Generator("cuda")
    drawn = [
        generate(
            model,
            PROMPTS,
            sampling,
            generator=generator.manual_seed(0),
            num_samples=2,
            limits=limits,
            decoder=decoder,
        )
        for decoder in (None, FusedDecoder(weights.read(model, 40), 40))
    ]
    assert_same(*drawn)


def test_decoding_in_bfloat16_reports_that_samplers_log_probs(model):
    sampling = Sampling(max_new_tokens=8)
    out = generate(model, PROMPTS, sampling, generator=seeded(), dtype=torch.bfloat16)
    forced = log_probs(model, out.responses).log_prob
    torch.testing.assert_close(out.log_prob, forced, atol=0.5, rtol=0.1)
    assert not torch.equal(out.log_prob, forced)
    assert next(model.parameters()).dtype == torch.float32


def test_a_row_draws_the_same_whether_or_not_others_have_finished(llama):
    """Limits force compaction; the rows that go on are not touched by it."""
    sampling = Sampling(max_new_tokens=24)
    full = generate(llama, PROMPTS, sampling, generator=seeded(), num_samples=2)
    limits = [24, 1, 2, 24, 3, 1]
    cut = generate(llama, PROMPTS, sampling, generator=seeded(), num_samples=2, limits=limits)
    assert cut.responses.lengths.tolist() == limits
    for row, length in enumerate(limits):
        assert torch.equal(
            cut.responses.response_ids[row, :length], full.responses.response_ids[row, :length]
        )
    assert not cut.ended.any()


def test_stop_tokens_end_a_response_and_stand_in_it(llama):
    out = generate(llama, PROMPTS, Sampling(stop_ids=STOPS), generator=seeded(), num_samples=8)
    for row, ended in zip(out.responses.response_lists(), out.ended, strict=True):
        assert not set(row[:-1]) & set(STOPS)
        assert bool(ended) == (row[-1] in STOPS)


def test_a_seed_reproduces_and_another_does_not(llama):
    a, b, c = (generate(llama, PROMPTS, Sampling(), generator=seeded(s)) for s in (0, 0, 1))
    assert_same(a, b)
    assert not torch.equal(a.responses.response_ids, c.responses.response_ids)


def test_prompts_read_in_several_pieces_give_the_same(llama):
    sampling = Sampling(max_new_tokens=8)
    pieces = FusedDecoder(weights.read(llama, 17), 17, prefill_tokens=10)
    assert_same(
        generate(llama, PROMPTS, sampling, generator=seeded()),
        generate(llama, PROMPTS, sampling, generator=seeded(), decoder=pieces),
    )


@pytest.mark.parametrize("fixture", ["llama", "gpt2"])
def test_lora_is_merged_and_the_reference_is_the_model_without_it(fixture, request):
    base = request.getfixturevalue(fixture)
    sampling = Sampling(max_new_tokens=12)
    before = generate(base, PROMPTS, sampling, generator=seeded())
    model = add_lora(base, Lora(rank=4))
    assert_same(before, generate(model, PROMPTS, sampling, generator=seeded()))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=seeded())
    after = generate(model, PROMPTS, sampling, generator=seeded())
    torch.testing.assert_close(after.log_prob, log_probs(model, after.responses).log_prob, atol=1e-5, rtol=0)
    assert not torch.equal(after.responses.response_ids, before.responses.response_ids)
    with reference(model):
        assert_same(before, generate(model, PROMPTS, sampling, generator=seeded()))


def test_unknown_families_are_decoded_by_their_own_forward(llama):
    llama.config.hidden_act = "gelu"
    assert "gelu" in weights.unsupported(llama)
    assert isinstance(make_decoder(llama, 16), ModuleDecoder)
    with pytest.raises(ValueError, match="dtype=torch.bfloat16.*hidden_act is 'gelu'"):
        make_decoder(llama, 16, torch.bfloat16)


def test_training_mode_comes_back(llama):
    llama.train()
    generate(llama, [[1]], Sampling(max_new_tokens=1), generator=seeded())
    assert llama.training


@pytest.mark.parametrize(
    ("prompts", "limits", "words"),
    [
        ([], None, "at least one"),
        ([[1], []], None, "at least one"),
        ([[1] * 250], None, "context of 256"),
        ([[1]], [0], "limits"),
    ],
)
def test_bad_input_is_refused(llama, prompts, limits, words):
    with pytest.raises(ValueError, match=words):
        generate(llama, prompts, Sampling(max_new_tokens=16), generator=seeded(), limits=limits)
