from __future__ import annotations

import pytest
import torch

from llm_align.data.batches import make_responses
from llm_align.data.packing import pack

RESPONSES = make_responses([[1, 2], [3]], [[4, 5], [6], [7, 8, 9]], [0, 0, 1])


def test_a_shared_prompt_stands_once_and_its_responses_do_not_see_each_other():
    packed = pack(RESPONSES, 9)
    assert packed.input_ids.tolist() == [[1, 2, 4, 5, 6, 3, 7, 8, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1, 2, 3]]
    seen = packed.attention_mask()[0, 0]
    assert seen[4].tolist() == [True, True, False, False, True, False, False, False, False]
    assert seen[6].tolist() == [False] * 5 + [True, True, False, False]
    assert packed.states.tolist() == [[1, 2, 0], [1, 0, 0], [5, 6, 7]]
    assert packed.final.tolist() == [3, 4, 8]


def test_without_sharing_every_response_has_its_prompt():
    packed = pack(RESPONSES, 11, share_prompts=False)
    assert sorted(packed.input_ids[packed.prompt_of >= 0].tolist()) == [1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]


def test_groups_longer_than_a_row_are_split_and_rows_stay_within_the_budget():
    packed = pack(RESPONSES, 4)
    assert packed.input_ids.shape == (3, 4)
    with pytest.raises(ValueError, match="row_tokens=3: .* 4 tokens"):
        pack(RESPONSES, 3)


def test_one_response_to_a_row_needs_no_mask():
    packed = pack(RESPONSES, 0)
    assert packed.attention_mask() is None
    assert packed.input_ids.shape == (3, 4)


def test_padding_sees_something_so_that_no_softmax_is_empty():
    assert pack(RESPONSES, 5).attention_mask().any(-1).all()


def test_random_batches_keep_every_token_once():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 20, (40,), generator=generator).tolist()
    responses = make_responses([[1] * 5] * 8, [[2] * n for n in lengths], [i % 8 for i in range(40)])
    packed = pack(responses, 64)
    assert packed.input_ids.shape[1] <= 64
    assert int((packed.input_ids == 2).sum()) == sum(lengths)
    flat = packed.response_of.flatten()
    assert torch.equal(flat[packed.final], torch.arange(40))
