"""Other ways to draw responses, behind the call of `generation.generate`: transformers' own loop, and any
OpenAI-compatible server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from llm_align.data.batches import make_responses, pad
from llm_align.models.adapters import unwrap
from llm_align.models.generation import Generated, generate
from llm_align.models.log_probs import log_probs
from llm_align.models.sampling import Sampling
from rl_core.config import require


class Engine(Protocol):
    """Draws responses; row `p * num_samples + g` answers prompt p."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        generator: torch.Generator,
        num_samples: int = 1,
    ) -> Generated:
        """Draw `num_samples` responses to each prompt (token ids)."""
        ...


@dataclass(frozen=True, slots=True)
class OwnEngine:
    """`generation.generate` on a model: the default."""

    model: Any

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        generator: torch.Generator,
        num_samples: int = 1,
    ) -> Generated:
        """Draw with the decode loop of `generation`."""
        return generate(self.model, prompts, sampling, generator=generator, num_samples=num_samples)


@dataclass(frozen=True, slots=True)
class TransformersEngine:
    """Transformers' `generate`, for models or options that the own loop does not know.

    It draws from torch's global generator: a seed from `generator` is set for the call, and the global state
    put back after it. Log-probabilities are teacher-forced afterwards: before top-k and top-p, like ours.
    """

    model: Any
    pad_id: int

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        generator: torch.Generator,
        num_samples: int = 1,
    ) -> Generated:
        """Draw with `model.generate`."""
        bare = unwrap(self.model)
        rows = [list(prompt) for prompt in prompts for _ in range(num_samples)]
        ids, mask = pad(rows, self.pad_id, left=True)
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        devices = [bare.device] if bare.device.type == "cuda" else []
        training = bare.training
        bare.eval()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            output = bare.generate(
                input_ids=ids.to(bare.device),
                attention_mask=mask.long().to(bare.device),
                max_new_tokens=sampling.max_new_tokens,
                pad_token_id=self.pad_id,
                eos_token_id=list(sampling.stop_ids) or None,
                **_sampling_options(sampling),
            )
        texts = [
            _cut(row, sampling.stop_ids, sampling.max_new_tokens)
            for row in output[:, ids.shape[1] :].tolist()
        ]
        index = [p for p in range(len(prompts)) for _ in range(num_samples)]
        responses = make_responses(prompts, texts, index, pad_id=self.pad_id).to(bare.device)
        scores = log_probs(bare, responses, temperature=sampling.temperature or 1.0).log_prob
        bare.train(training)
        ended = torch.tensor([row[-1] in sampling.stop_ids for row in texts], device=bare.device)
        return Generated(responses=responses, log_prob=scores, ended=ended)


def _sampling_options(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
    }


def _cut(row: list[int], stop_ids: tuple[int, ...], limit: int) -> list[int]:
    """The tokens up to the first stop token, which is kept."""
    end = next((i + 1 for i, token in enumerate(row) if token in stop_ids), len(row))
    return row[: min(end, limit)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a server answered: the text, its tokens' log-probabilities if it gives them, why it ended."""

    text: str
    log_prob: list[float] | None
    finish_reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenAIServer:
    """A client of an OpenAI-compatible HTTP server (vLLM, SGLang, llama.cpp, `transformers serve`).

    `url` ends in `/v1`. Requests run `concurrency` at a time. Raises RuntimeError with the server's words
    when it refuses, and ConnectionError when it is not there.
    """

    url: str
    model: str
    api_key: str = "none"
    timeout: float = 600.0
    concurrency: int = 16

    def __post_init__(self) -> None:
        require(
            self.url.startswith(("http://", "https://")), "url", self.url, "an http(s) address ending in /v1"
        )

    def complete(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        seed: int,
        num_samples: int = 1,
        stop: tuple[str, ...] = (),
    ) -> list[Completion]:
        """Complete texts through `/completions`; entry `p * num_samples + g` completes prompt p."""
        bodies = [
            self._body(sampling, seed + p * num_samples + g, stop) | {"prompt": prompt, "logprobs": 0}
            for p, prompt in enumerate(prompts)
            for g in range(num_samples)
        ]
        return [
            Completion(
                text=choice["text"],
                log_prob=(choice.get("logprobs") or {}).get("token_logprobs"),
                finish_reason=choice["finish_reason"],
            )
            for choice in self._post_all("/completions", bodies)
        ]

    def chat(
        self,
        conversations: Sequence[list[dict[str, str]]],
        sampling: Sampling,
        *,
        seed: int,
        stop: tuple[str, ...] = (),
    ) -> list[Completion]:
        """Answer conversations through `/chat/completions`: what judges and critics use."""
        bodies = [
            self._body(sampling, seed + i, stop) | {"messages": messages}
            for i, messages in enumerate(conversations)
        ]
        return [
            Completion(
                text=choice["message"]["content"] or "", log_prob=None, finish_reason=choice["finish_reason"]
            )
            for choice in self._post_all("/chat/completions", bodies)
        ]

    def _body(self, sampling: Sampling, seed: int, stop: tuple[str, ...]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            "stream": False,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k  # not OpenAI's, but every open server's
        if stop:
            body["stop"] = list(stop)
        return body

    def _post_all(self, path: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(self.concurrency) as pool:
            return [answer["choices"][0] for answer in pool.map(lambda body: self._post(path, body), bodies)]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url.rstrip("/") + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self.api_key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                answer: dict[str, Any] = json.load(reply)
                return answer
        except urllib.error.HTTPError as error:
            words = error.read().decode(errors="replace")[:300]
            raise RuntimeError(f"{request.full_url} answered {error.code}: {words}") from error
        except urllib.error.URLError as error:
            raise ConnectionError(f"no server at {request.full_url}: {error.reason}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerEngine:
    """A server as a sampler of training data: texts go out, token ids come back through `tokenizer`.

    The answer is tokenised again, and `policy` (the model being trained) scores it by teacher forcing: a
    server's own log-probabilities belong to its tokens, which need not be ours.
    """

    server: OpenAIServer
    tokenizer: Any
    policy: Any

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        generator: torch.Generator,
        num_samples: int = 1,
    ) -> Generated:
        """Draw through the server; EOS is appended where the server says that the answer ended."""
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        texts = [self.tokenizer.decode(list(prompt)) for prompt in prompts]
        answers = self.server.complete(texts, sampling, seed=seed, num_samples=num_samples)
        eos = self.tokenizer.eos_token_id
        ended = torch.tensor([answer.finish_reason == "stop" for answer in answers])
        rows = [
            self.tokenizer(answer.text, add_special_tokens=False)["input_ids"] + [eos] * int(stopped)
            for answer, stopped in zip(answers, ended, strict=True)
        ]
        index = [p for p in range(len(prompts)) for _ in range(num_samples)]
        device = unwrap(self.policy).device
        responses = make_responses(prompts, rows, index, pad_id=self.tokenizer.pad_token_id).to(device)
        scores: Tensor = log_probs(self.policy, responses, temperature=sampling.temperature or 1.0).log_prob
        return Generated(responses=responses, log_prob=scores, ended=ended.to(device))
