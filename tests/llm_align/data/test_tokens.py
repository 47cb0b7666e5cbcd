from __future__ import annotations

import math

import pytest

from llm_align.data.batches import make_responses, pad
from llm_align.data.chat import render, segments
from llm_align.data.examples import Example, demonstrations, preferences, prompts, ratings, scored
from llm_align.data.tokenizer import byte_tokenizer, train_tokenizer
from llm_align.data.tokens import collate, encode
from llm_align.feedback.steps import labelled

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|eos|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "why"},
    {"role": "assistant", "content": "so"},
]


@pytest.fixture
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def chat():
    made = byte_tokenizer()
    made.chat_template = CHATML
    return made


def text(tokenizer, ids) -> str:
    return tokenizer.decode(ids)


def test_a_demonstration_is_prompt_response_and_eos(tokenizer):
    (item,) = encode(tokenizer, demonstrations([{"prompt": "ab", "completion": " cé"}]), max_length=20)
    assert text(tokenizer, item.prompt) == "ab"
    assert text(tokenizer, item.responses[0]) == " cé<|eos|>"
    assert item.loss_masks == [[True] * 5]


def test_a_text_without_prompt_starts_from_eos_and_learns_everything(tokenizer):
    (item,) = encode(tokenizer, demonstrations([{"text": "abc"}]), max_length=20)
    assert item.prompt == [tokenizer.eos_token_id]
    assert all(item.loss_masks[0])


def test_messages_learn_the_assistants_turns_only(chat):
    (item,) = encode(chat, demonstrations([{"messages": TALK}]), max_length=200)
    assert text(chat, item.prompt) == "<|im_start|>user\nhi<|eos|>\n<|im_start|>assistant\n"
    learnt = [t for t, own in zip(item.responses[0], item.loss_masks[0], strict=True) if own]
    assert text(chat, learnt) == "yes<|eos|>so<|eos|>"
    assert item.responses[0][-1] == chat.eos_token_id
    everything = encode(chat, demonstrations([{"messages": TALK}]), max_length=200, loss_on="all")
    assert sum(everything[0].loss_masks[0]) > sum(item.loss_masks[0])


def test_a_template_is_used_only_if_there_is_one_or_the_plain_one_if_asked(tokenizer):
    with pytest.raises(ValueError, match="row 0: the tokenizer has no chat template"):
        encode(tokenizer, demonstrations([{"messages": TALK}]), max_length=99)
    (item,) = encode(tokenizer, demonstrations([{"messages": TALK}]), max_length=99, template="plain")
    assert text(tokenizer, item.prompt) == "\n\nHuman: hi\n\nAssistant:"
    assert text(tokenizer, item.responses[0]) == " yes\n\nHuman: why\n\nAssistant: so<|eos|>"


def test_chat_preferences_with_and_without_a_prompt_column(chat):
    good, bad = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
    implicit = preferences([{"chosen": [TALK[0], good], "rejected": [TALK[0], bad]}])
    explicit = preferences([{"prompt": [TALK[0]], "chosen": [good], "rejected": [bad]}])
    a, b = encode(chat, [*implicit, *explicit], max_length=99)
    assert (a.prompt, a.responses) == (b.prompt, b.responses)
    assert [text(chat, r) for r in a.responses] == ["good<|eos|>", "bad<|eos|>"]


def test_paired_rows_become_ratings():
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    assert [(e.responses, e.labels) for e in ratings([row])] == [(["a"], [True]), (["b"], [False])]
    assert ratings([{"prompt": "p", "completion": "c", "label": 0}])[0].labels == [False]


@pytest.mark.parametrize(
    ("read", "row", "message"),
    [
        (ratings, {"completion": "c", "label": "false"}, "row 0: label='false': must be true or false"),
        (ratings, {"completion": "c", "label": None}, "row 0: label=None"),
        (labelled, {"completions": ["c"], "labels": [2]}, "row 0: labels=2"),
        (scored, {"completion": "c", "score": "good"}, "row 0: score='good': must be a finite number"),
        (scored, {"completion": "c", "score": math.nan}, "row 0: score=nan"),
    ],
)
def test_a_label_or_score_that_is_none_is_named(read, row, message):
    with pytest.raises(ValueError, match=message):
        read([{"prompt": "p"} | row])


def test_prompts_keep_their_other_columns(tokenizer):
    (item,) = encode(tokenizer, prompts([{"prompt": "p", "answer": "4"}]), max_length=9)
    assert item.responses == []
    assert item.example.columns == {"answer": "4"}


@pytest.mark.parametrize("completion", ["", "  \n"])
def test_an_empty_response_is_refused_by_row(tokenizer, completion):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": completion}]
    with pytest.raises(ValueError, match="row 1: the response is empty"):
        encode(tokenizer, demonstrations(rows), max_length=9)


def test_too_long_is_an_error_or_dropped_with_a_warning_or_cut_at_the_beginning(tokenizer):
    examples = demonstrations([{"prompt": "abcdefgh", "completion": "i"}, {"prompt": "a", "completion": "b"}])
    with pytest.raises(
        ValueError, match="row 0: a prompt of 8 tokens with a response of 2 exceeds max_length=6"
    ):
        encode(tokenizer, examples, max_length=6)
    with pytest.warns(UserWarning, match="1 of 2 examples exceed max_length=6"):
        assert len(encode(tokenizer, examples, max_length=6, too_long="drop")) == 1
    assert text(tokenizer, encode(tokenizer, examples, max_length=6, too_long="keep_end")[0].prompt) == "efgh"


@pytest.mark.parametrize("name", ["eos_token", "pad_token"])
def test_a_tokenizer_without_eos_or_pad_is_refused(tokenizer, name):
    setattr(tokenizer, name, None)
    with pytest.raises(ValueError, match=f"(?i)no {name[:3]} token"):
        encode(tokenizer, demonstrations([{"text": "a"}]), max_length=9)


def test_a_template_that_rewrites_earlier_turns_is_refused(chat):
    chat.chat_template = "{{ messages | length }}" + CHATML
    with pytest.raises(ValueError, match="rewrites earlier turns"):
        segments(chat, TALK)
    with pytest.raises(ValueError, match="role='bot'"):
        render(chat, [{"role": "bot", "content": ""}], open_turn=True)


def test_collate_puts_chosen_rows_first(tokenizer):
    rows = [{"prompt": p, "chosen": "yes", "rejected": "no"} for p in ("a", "bcd")]
    responses = collate(encode(tokenizer, preferences(rows), max_length=20))
    assert responses.prompt_index.tolist() == [0, 1, 0, 1]
    assert responses.lengths.tolist() == [4, 4, 3, 3]
    mixed = [*preferences(rows), Example(prompt="a", responses=["b"])]
    with pytest.raises(ValueError, match="equally many responses"):
        collate(encode(tokenizer, mixed, max_length=20))


def test_select_trims_prompts_and_padding():
    responses = make_responses([[1, 2, 3], [4]], [[5] * 6, [6], [7, 8]], [0, 1, 1])
    part = responses.select(pad([[1, 2]], 0)[0][0])
    assert part.prompt_ids.tolist() == [[4]]
    assert part.response_lists() == [[6], [7, 8]]
    assert part.prompt_index.tolist() == [0, 0]


def test_an_empty_row_is_named():
    with pytest.raises(ValueError, match="response 1 is empty"):
        make_responses([[1]], [[1], []], [0, 0])


def test_trained_tokenizer_is_lossless_and_shorter_than_bytes():
    made = train_tokenizer(["the cat sat on the mat"] * 50, 300)
    line = "the cat, naïve ☂\n\n  x"
    assert made.decode(made(line)["input_ids"]) == line
    assert len(made("the cat sat")["input_ids"]) < 6
    assert (made.eos_token_id, made.pad_token_id) == (0, 1)
    with pytest.raises(ValueError, match="vocab_size=100"):
        train_tokenizer(["a"], 100)
    plain = byte_tokenizer()
    assert len(plain(line)["input_ids"]) == len(line.encode())
    assert plain.decode(plain(line)["input_ids"]) == line
