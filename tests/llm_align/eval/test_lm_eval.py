"""lm-eval over our models gives what lm-eval's own Hugging Face model gives."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llm_align.data.tokenizer import byte_tokenizer
from llm_align.models.causal_lm import Small, small_causal_lm

pytest.importorskip("lm_eval", reason="needs the extra `lm-eval`")

from llm_align.eval.lm_eval import AlignedLM, evaluate  # noqa: E402

CONTEXT = 64
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
output_type: generate_until
generation_kwargs: {{until: ["?"], max_gen_toks: 8}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "max_length": CONTEXT}
    model = small_causal_lm(Small(vocab_size=258, eos_token_id=0, pad_token_id=1, **sizes))
    return AlignedLM(model, byte_tokenizer(), batch_size=2)


@pytest.fixture(scope="module")
def peer(model):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model.model, tokenizer=model.tokenizer, max_length=CONTEXT, batch_size=1)


def requests(*arguments):
    return [SimpleNamespace(args=args) for args in arguments]


def test_log_likelihoods_are_the_peers(model, peer):
    pairs = [("What is it? ", "A cat"), ("x" * 90, "yes"), ("", "no context"), ("A", " b")]
    ours, theirs = (
        lm._loglikelihood_tokens([(pair, *encode(lm, *pair)) for pair in pairs]) for lm in (model, peer)
    )
    for (score, greedy), (expected, expected_greedy) in zip(ours, theirs, strict=True):
        assert score == pytest.approx(expected, abs=1e-3)
        assert greedy == bool(expected_greedy)


def encode(lm, context, continuation):
    return lm._encode_pair(context, continuation) if context else ([0], lm.tok_encode(continuation))


def test_a_greedy_continuation_is_recognised(model):
    (text,) = model.generate_until(requests(("Hello", {"max_gen_toks": 1, "until": []})))
    tokens = model.tok_encode(text)
    other = [tokens[0] ^ 1]
    answers = model._loglikelihood_tokens([((), model.tok_encode("Hello"), ids) for ids in (tokens, other)])
    assert [greedy for _, greedy in answers] == [True, False]


def test_long_texts_are_scored_in_windows_as_the_peers(model, peer):
    texts = requests(("short",), ("The quick brown fox jumps over the lazy dog. " * 4,))
    ours, theirs = model.loglikelihood_rolling(texts), peer.loglikelihood_rolling(texts, disable_tqdm=True)
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_task_of_ones_own(model, tmp_path: Path):
    words = model.generate_until(
        requests(*[(f"Q{i}?", {"until": ["?"], "max_gen_toks": 8}) for i in range(4)])
    )
    rows = [{"question": f"Q{i}?", "answer": word if i else "no such answer"} for i, word in enumerate(words)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own_write.yaml").write_text(TASK.format(name="own_write", file=tmp_path / "rows.jsonl"))
    results = evaluate(model, ["own_write"], str(tmp_path))
    assert results["own_write/exact_match"] == 0.75
    with pytest.raises(ValueError, match="no such task"):
        evaluate(model, ["own_wrote"], str(tmp_path))
