from __future__ import annotations

import pytest

from llm_align.data.sampler import TokenBudget

LENGTHS = [(7 * i) % 50 + 1 for i in range(200)]


def test_every_row_once_an_epoch_within_the_budget_and_with_little_padding():
    sampler = TokenBudget(LENGTHS, 256, seed=0, max_rows=16)
    batches = [sampler.next() for _ in range(sampler.batches_per_epoch)]
    assert sorted(row for batch in batches for row in batch) == list(range(200))
    widths = [max(LENGTHS[row] for row in batch) * len(batch) for batch in batches]
    assert max(widths) <= 256
    assert max(map(len, batches)) <= 16
    assert sum(LENGTHS) / sum(widths) > 0.93


def test_epochs_differ_and_a_seed_repeats():
    a, b = TokenBudget(LENGTHS, 256, seed=0), TokenBudget(LENGTHS, 256, seed=0)
    first = [a.next() for _ in range(a.batches_per_epoch)]
    assert first == [b.next() for _ in range(b.batches_per_epoch)]
    assert first != [a.next() for _ in range(a.batches_per_epoch)]


def test_a_resumed_sampler_goes_on_where_it_stopped():
    whole, cut = TokenBudget(LENGTHS, 256, seed=3), TokenBudget(LENGTHS, 256, seed=3)
    for _ in range(50):
        whole.next(), cut.next()
    resumed = TokenBudget(LENGTHS, 256, seed=99)
    resumed.load_state_dict(cut.state_dict())
    assert [whole.next() for _ in range(60)] == [resumed.next() for _ in range(60)]


def test_a_row_longer_than_the_budget_is_named():
    with pytest.raises(ValueError, match="max_tokens=10: row 1 alone has 11"):
        TokenBudget([3, 11], 10, seed=0)
