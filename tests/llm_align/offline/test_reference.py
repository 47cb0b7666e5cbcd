from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llm_align.data.loader import make_batch
from llm_align.models.adapters import Lora, add_lora
from llm_align.models.log_probs import log_probs
from llm_align.offline import reference
from tests.llm_align.offline import small

ITEMS = small.preferences(6)


def ask(model, items, folder, batch_tokens=40, precision="float32"):
    return reference.reference_log_probs(
        model, items, batch_tokens=batch_tokens, folder=folder, precision=precision
    )


class CountedModel:
    """How many rows the policy was asked for."""

    def __init__(self, monkeypatch):
        self.rows = 0
        real = reference.log_probs

        def counted(model, responses, **options):
            self.rows += len(responses)
            return real(model, responses, **options)

        monkeypatch.setattr(reference, "log_probs", counted)


def test_sums_are_those_of_log_probs_in_any_batching():
    model = small.small_policy()
    batch = make_batch(ITEMS, range(len(ITEMS)))
    want = batch.grid(log_probs(model, batch.responses).log_prob.sum(1)).detach()
    for batch_tokens in (1, 40, 1000):
        torch.testing.assert_close(ask(model, ITEMS, None, batch_tokens), want, atol=1e-5, rtol=0)


def test_only_what_is_new_is_computed(tmp_path, monkeypatch):
    asked = CountedModel(monkeypatch)
    model = small.small_policy()
    first = ask(model, ITEMS[:4], tmp_path)
    assert asked.rows == 8
    assert torch.equal(ask(model, ITEMS[3::-1], tmp_path), first.flip(0))
    assert asked.rows == 8
    ask(model, ITEMS, tmp_path)
    assert asked.rows == 12


def test_other_weights_masks_and_arithmetic_are_other_entries(tmp_path, monkeypatch):
    asked = CountedModel(monkeypatch)
    ask(small.small_policy(), ITEMS[:1], tmp_path)
    masked = replace(ITEMS[0], loss_masks=[[False] * len(mask) for mask in ITEMS[0].loss_masks])
    assert not ask(small.small_policy(), [masked], tmp_path).any()
    ask(small.small_policy(seed=1), ITEMS[:1], tmp_path)
    ask(small.small_policy(), ITEMS[:1], tmp_path, precision="bfloat16")
    assert asked.rows == 8
    assert len(list(tmp_path.iterdir())) == 3


def test_adapters_do_not_change_the_fingerprint():
    plain = reference.fingerprint(small.small_policy())
    assert reference.fingerprint(add_lora(small.small_policy(), Lora(rank=2))) == plain


def test_a_damaged_file_is_reported_and_replaced(tmp_path):
    model = small.small_policy()
    want = ask(model, ITEMS, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    with pytest.warns(UserWarning, match="is damaged"):
        assert torch.equal(ask(model, ITEMS, tmp_path), want)
    assert torch.equal(ask(model, ITEMS, tmp_path), want)


def test_mismatched_answers_belong_to_another_prompt():
    items = small.ratings(8)  # two answers to each prompt in turn
    for own, other in zip(items, reference.mismatch(items), strict=True):
        assert own.prompt == other.prompt
        assert any(other.responses == item.responses and item.prompt != own.prompt for item in items)
    with pytest.raises(ValueError, match="all prompts are equal"):
        reference.mismatch([small.encoded([2], [[3]], labels=[True])] * 2)
