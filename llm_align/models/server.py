"""A client of OpenAI-compatible HTTP servers, for rollouts and for judges."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from llm_align.models.sampling import Sampling
from rl_core.config import require


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
    when it refuses, and ConnectionError when it is not there. `transformers serve` answers greedily unless
    the model's generation_config.json has `do_sample`; all its requests share one random generator, so a
    seed repeats only with `concurrency=1`.
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
