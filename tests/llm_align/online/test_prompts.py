"""Prompts are split where every other script splits the same file."""

from __future__ import annotations

import json

import pytest

from llm_align.data import examples, loader
from llm_align.data.tokenizer import byte_tokenizer
from llm_align.online import prompts


def test_held_out_prompts_are_those_of_the_held_out_pairs(tmp_path):
    talks = [f"\n\nHuman: {n % 15}?\n\nAssistant: {n}\n\nHuman: and?\n\nAssistant:" for n in range(40)]
    rows = [{"chosen": f"{talk} yes", "rejected": f"{talk} no"} for talk in talks]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = loader.Config(source=str(file), held_out=0.3, fold=1)
    pairs = loader.tokenize(cfg, byte_tokenizer(), loader.read(cfg, examples.preferences))
    expected = [
        [item.example.prompt for item in side] for side in loader.split(pairs, cfg.held_out, cfg.fold)
    ]
    own = prompts.Config(source=str(file), held_out=0.3, fold=1)
    found = prompts.tokenize(own, byte_tokenizer(), prompts.read(own))
    assert [[item.example.prompt for item in side] for side in found] == expected
    assert all(expected)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"data\.fold=3: must be 0 to 1"):
        prompts.Config(held_out=0.5, fold=3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": None}, "row 1: prompt is NoneType: must be a text or a list of messages"),
        ({"prompt": 7}, "row 1: prompt is int"),
        ({"question": "?"}, "row 1: column 'prompt' is missing: found question"),
        ({"prompt": ["hello"]}, "row 1: message 0: found 'hello'; expected a role and a text"),
        ({"prompt": [{"role": "assistant", "content": "hello"}]}, "row 1: .* refuses .*: the user begins"),
    ],
)
def test_what_is_no_prompt_is_named_by_its_row(row, message, tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('the user begins') }}{% endif %}"
        "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in ({"prompt": ""}, row)))
    cfg = prompts.Config(source=str(file))
    with pytest.raises(ValueError, match=message):
        prompts.tokenize(cfg, tokenizer, prompts.read(cfg))


def test_an_empty_prompt_is_one(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": ""}\n')
    cfg, tokenizer = prompts.Config(source=str(tmp_path / "prompts.jsonl")), byte_tokenizer()
    (encoded,), _ = prompts.tokenize(cfg, tokenizer, prompts.read(cfg))
    assert encoded.prompt == [tokenizer.eos_token_id]
