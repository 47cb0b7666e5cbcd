from __future__ import annotations

import json

import pytest
import torch

from llm_align.data import examples as kinds
from llm_align.data import loader
from llm_align.data.tokenizer import byte_tokenizer
from tests.llm_align.offline import small

HH = "\n\nHuman: {}\n\nAssistant: {}"


def dialogue(first, answer):
    return HH.format(first, "ok") + HH.format("and then", answer)


def encoded(rows):
    return loader.tokenize(loader.Config(max_length=200), byte_tokenizer(), kinds.preferences(rows))


def test_a_conversation_is_on_one_side_and_stays_there():
    early = [{"chosen": HH.format(n, "yes"), "rejected": HH.format(n, "no")} for n in range(200)]
    late = [{"chosen": dialogue(n, "a"), "rejected": dialogue(n, "b")} for n in range(200)]
    train, held_out = loader.split(encoded(early + late), 0.2)
    beginnings = [{loader._beginning(item.example) for item in side} for side in (train, held_out)]
    assert not beginnings[0] & beginnings[1]
    assert 40 < len(held_out) < 120
    assert held_out[: len(held_out) // 2] == loader.split(encoded(early), 0.2)[1]
    assert loader.split(encoded(early), 0.0)[1] == []
    folds = [loader.split(encoded(early), 0.2, fold)[1] for fold in range(5)]
    assert sorted(item.prompt for fold in folds for item in fold) == sorted(i.prompt for i in encoded(early))


def test_a_grid_has_a_place_for_every_response():
    items = [*small.preferences(1, answers=3), *small.preferences(2, answers=2)]
    batch = loader.make_batch(items, [0, 2])
    assert batch.grid(torch.arange(1, 6)).tolist() == [[1, 2, 3], [4, 5, 0]]
    assert batch.first_rows().tolist() == [0, 3]
    assert batch.responses.prompt_index.tolist() == [0, 0, 0, 1, 1]


def test_once_has_every_example_and_leaves_the_position_alone():
    data = small.batches(small.preferences(20), batch_size=3)
    before = data.state_dict()
    seen = [row for batch in data.once() for row in batch.rows]
    assert sorted(seen) == list(range(20))
    assert data.state_dict() == before


def test_empty_responses_are_an_error_or_left_out(tmp_path):
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": " ", "rejected": "c"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    cfg = loader.Config(source=str(file))
    with pytest.raises(ValueError, match="row 1: the response is empty"):
        loader.tokenize(cfg, byte_tokenizer(), loader.read(cfg, kinds.preferences))
    with pytest.warns(UserWarning, match="1 of 2 examples have an empty response"):
        assert len(loader.read(loader.Config(source=str(file), empty="drop"), kinds.preferences)) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": 1.0}, r"data\.held_out=1\.0: must be in \[0, 1\)"),
        ({"too_long": "cut"}, "must be one of drop, error, keep_end"),
        ({"held_out": 0.2, "fold": 5}, r"data\.fold=5: must be 0 to 4"),
        ({"batch_size": 0}, r"data\.batch_size=0"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        loader.Config(**settings)


def test_a_row_longer_than_the_budget_and_an_empty_dataset_are_errors():
    with pytest.raises(ValueError, match=r"max_tokens=4: row \d+ alone has"):
        small.batches(small.preferences(4), max_tokens=4)
    with pytest.raises(ValueError, match="leaves 1 or more examples to train on"):
        small.batches([])
