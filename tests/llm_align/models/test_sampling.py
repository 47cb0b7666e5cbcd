from __future__ import annotations

import pytest
import torch

from llm_align.models.sampling import Sampling, choose

LOGITS = torch.tensor([0.0, 1.0, 2.0, 3.0, -float("inf")])


def draw(sampling: Sampling, num: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    uniform = torch.rand(num, generator=torch.Generator().manual_seed(0))
    return choose(LOGITS.expand(num, -1).clone(), uniform, sampling)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_tempered_softmax(temperature):
    tokens, log_prob = draw(Sampling(temperature=temperature))
    expected = (LOGITS / temperature).softmax(-1)
    frequencies = tokens.bincount(minlength=5) / len(tokens)
    torch.testing.assert_close(frequencies, expected, atol=0.012, rtol=0)
    torch.testing.assert_close(log_prob, expected.log()[tokens])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 2}, {2, 3}),
        ({"top_p": 0.5}, {3}),
        ({"top_p": 0.7}, {2, 3}),
        ({"top_k": 3, "top_p": 0.8}, {2, 3}),
        ({"top_k": 99}, {0, 1, 2, 3}),
    ],
)
def test_truncation_keeps_the_likeliest_and_log_probs_are_the_full_distributions(options, kept):
    tokens, log_prob = draw(Sampling(**options))
    assert set(tokens.tolist()) == kept
    torch.testing.assert_close(log_prob, LOGITS.log_softmax(-1)[tokens])


def test_the_edges_of_the_unit_interval_never_draw_an_impossible_token():
    logits = torch.tensor([[-float("inf"), 0.0, 1.0, -float("inf")]] * 2)
    tokens, _ = choose(logits, torch.tensor([0.0, 1 - 2**-24]), Sampling())
    assert tokens.tolist() == [1, 2]


def test_greedy_ignores_the_random_number():
    tokens, log_prob = draw(Sampling(temperature=0), 3)
    assert tokens.tolist() == [3] * 3
    torch.testing.assert_close(log_prob, LOGITS.log_softmax(-1)[tokens])


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"max_new_tokens": 0}])
def test_bad_settings_name_the_field(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)
