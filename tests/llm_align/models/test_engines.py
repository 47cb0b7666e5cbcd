from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from llm_align.data.tokenizer import byte_tokenizer
from llm_align.models.causal_lm import Small, small_causal_lm
from llm_align.models.engines import OwnEngine, ServerEngine, TransformersEngine
from llm_align.models.generation import generate
from llm_align.models.log_probs import log_probs
from llm_align.models.sampling import Sampling
from llm_align.models.server import OpenAIServer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Small(vocab_size=258, hidden_size=32, num_layers=1, eos_token_id=0, pad_token_id=1)
    return small_causal_lm(config).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def server(model, tokenizer):
    """A real HTTP server on this machine that speaks the completions protocol and samples from the model."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body["model"] != "tiny":
                self.reply(404, {"error": {"message": f"unknown model {body['model']}"}})
                return
            chat = self.path.endswith("/chat/completions")
            text = body["messages"][-1]["content"] if chat else body["prompt"]
            limit, temperature = body["max_tokens"], body["temperature"]
            sampling = Sampling(max_new_tokens=limit, temperature=temperature, stop_ids=(0,))
            out = generate(
                model,
                [tokenizer(text)["input_ids"]],
                sampling,
                generator=torch.Generator().manual_seed(body["seed"]),
            )
            answer = tokenizer.decode(out.responses.response_lists()[0], skip_special_tokens=True)
            choice = {"finish_reason": "stop" if bool(out.ended[0]) else "length"}
            choice |= {"message": {"content": answer}} if chat else {"text": answer}
            choice |= {"logprobs": {"token_logprobs": out.log_prob[0].tolist()}}
            self.reply(200, {"choices": [choice]})

        def reply(self, code, content):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    http.shutdown()
    http.server_close()


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
    engine = ServerEngine(server=OpenAIServer(url=server, model="tiny"), tokenizer=tokenizer, policy=model)
    sampling = Sampling(max_new_tokens=6)
    out = engine.generate(PROMPTS, sampling, generator=seeded(), num_samples=3)
    assert out.responses.prompt_index.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(out.log_prob, log_probs(model, out.responses).log_prob)
    again = engine.generate(PROMPTS, sampling, generator=seeded(), num_samples=3)
    assert again.responses.response_lists() == out.responses.response_lists()


def test_chat_and_refusals(server):
    client = OpenAIServer(url=server, model="tiny")
    (answer,) = client.chat([[{"role": "user", "content": "hi"}]], Sampling(max_new_tokens=4), seed=0)
    assert answer.finish_reason == "length"
    with pytest.raises(RuntimeError, match="404.*unknown model other"):
        OpenAIServer(url=server, model="other").complete(["a"], Sampling(), seed=0)
    with pytest.raises(ConnectionError, match="no server"):
        OpenAIServer(url="http://127.0.0.1:9/v1", model="tiny").complete(["a"], Sampling(), seed=0)
    with pytest.raises(ValueError, match="url='localhost'"):
        OpenAIServer(url="localhost", model="tiny")
