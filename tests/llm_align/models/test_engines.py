from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import torch
from transformers import GenerationConfig
from transformers.cli.serve import Serve

from llm_align.data.tokenizer import byte_tokenizer
from llm_align.models.causal_lm import Small, small_causal_lm
from llm_align.models.engines import OwnEngine, ServerEngine, TransformersEngine
from llm_align.models.log_probs import log_probs
from llm_align.models.sampling import Sampling
from llm_align.models.server import Completion, OpenAIServer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Small(vocab_size=258, hidden_size=32, num_layers=1, eos_token_id=0, pad_token_id=1)
    return small_causal_lm(config).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def server(model, tokenizer, tmp_path_factory) -> Iterator[OpenAIServer]:
    """`transformers serve` on the model; its seed is one for all requests, so they run one at a time."""
    folder = tmp_path_factory.mktemp("served")
    model.save_pretrained(folder)
    GenerationConfig(do_sample=True, top_k=0, eos_token_id=0, pad_token_id=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{% for turn in messages %}{{ turn['content'] }}{% endfor %}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = Serve(str(folder), host="127.0.0.1", port=port, device="cpu", non_blocking=True)
    while not serve.server.started:
        time.sleep(0.01)
    yield OpenAIServer(url=f"http://127.0.0.1:{port}/v1", model=str(folder), concurrency=1)
    serve.kill_server()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


PROMPTS = [[50, 60, 70], [80]]


def test_transformers_engine_agrees_where_it_must(model):
    sampling = Sampling(max_new_tokens=6, temperature=0, stop_ids=(0,))
    ours = OwnEngine(model).generate(PROMPTS, sampling, generator=seeded(), num_samples=2)
    theirs = TransformersEngine(model, 1).generate(PROMPTS, sampling, generator=seeded(), num_samples=2)
    assert ours.responses.response_lists() == theirs.responses.response_lists()
    torch.testing.assert_close(ours.log_prob, theirs.log_prob, atol=1e-5, rtol=0)


def test_transformers_engine_is_seeded_by_the_generator_and_leaves_the_global_one(model):
    engine, sampling = TransformersEngine(model, 1), Sampling(max_new_tokens=6)
    state = torch.random.get_rng_state()
    a, b = (engine.generate(PROMPTS, sampling, generator=seeded()) for _ in range(2))
    assert a.responses.response_lists() == b.responses.response_lists()
    assert torch.equal(state, torch.random.get_rng_state())


def test_server_engine_draws_and_the_policy_scores(model, tokenizer, server):
    engine = ServerEngine(server=server, tokenizer=tokenizer, policy=model)
    sampling = Sampling(max_new_tokens=6)
    out = engine.generate(PROMPTS, sampling, generator=seeded(), num_samples=3)
    assert out.responses.prompt_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert len({tuple(row) for row in out.responses.response_lists()}) > 2  # sampled, not greedy
    torch.testing.assert_close(out.log_prob, log_probs(model, out.responses).log_prob)
    again = engine.generate(PROMPTS, sampling, generator=seeded(), num_samples=3)
    assert again.responses.response_lists() == out.responses.response_lists()


def test_an_answer_of_nothing_is_its_end_alone(model, tokenizer):
    """A server cut after one token that has no text: this one is made up, as no real one does it at will."""

    class Silent(OpenAIServer):
        def complete(self, prompts, sampling, **options):
            return [Completion(text="", log_prob=None, finish_reason="length") for _ in prompts]

    engine = ServerEngine(server=Silent(url="http://x/v1", model="x"), tokenizer=tokenizer, policy=model)
    out = engine.generate(PROMPTS, Sampling(max_new_tokens=1), generator=seeded())
    assert out.responses.response_lists() == [[0], [0]]
    assert out.ended.all()


def test_a_greedy_server_says_what_our_own_loop_says(model, tokenizer, server):
    sampling = Sampling(max_new_tokens=4, temperature=0, stop_ids=(0,))
    ours = OwnEngine(model).generate(PROMPTS, sampling, generator=seeded())
    answers = server.complete([tokenizer.decode(prompt) for prompt in PROMPTS], sampling, seed=0)
    expected = tokenizer.batch_decode(ours.responses.response_lists(), skip_special_tokens=True)
    assert [answer.text for answer in answers] == expected
    assert [answer.finish_reason for answer in answers] == ["stop" if e else "length" for e in ours.ended]


def test_chat_and_refusals(server):
    (answer,) = server.chat([[{"role": "user", "content": "hi"}]], Sampling(max_new_tokens=4), seed=0)
    assert answer.finish_reason == "length"
    assert answer.text
    with pytest.raises(RuntimeError, match="422.*top_k"):  # its completions know no top-k
        server.complete(["a"], Sampling(top_k=3), seed=0)
    with pytest.raises(RuntimeError, match="400.*requested 'other'"):
        OpenAIServer(url=server.url, model="other").complete(["a"], Sampling(), seed=0)
    with pytest.raises(ConnectionError, match="no server"):
        OpenAIServer(url="http://127.0.0.1:9/v1", model="tiny").complete(["a"], Sampling(), seed=0)
    with pytest.raises(ValueError, match="url='localhost'"):
        OpenAIServer(url="localhost", model="tiny")
