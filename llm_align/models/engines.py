"""Other ways to draw responses, behind the call of `generation.generate`: transformers' own loop, and any
OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from llm_align.data.batches import make_responses, pad
from llm_align.models.adapters import unwrap
from llm_align.models.generation import Generated, generate
from llm_align.models.log_probs import log_probs
from llm_align.models.sampling import Sampling
from llm_align.models.server import OpenAIServer


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
        drawn_ids = output[:, ids.shape[1] :].tolist()
        answers = [_cut(row, sampling.stop_ids, sampling.max_new_tokens) for row in drawn_ids]
        ended = [row[-1] in sampling.stop_ids for row in answers]
        drawn = _scored(bare, prompts, answers, ended, sampling, self.pad_id)
        bare.train(training)
        return drawn


def _scored(
    policy: Any,
    prompts: Sequence[Sequence[int]],
    answers: list[list[int]],
    ended: list[bool],
    sampling: Sampling,
    pad_id: int,
) -> Generated:
    """What others drew, as many answers to each prompt, under the policy's own log-probabilities."""
    device = unwrap(policy).device
    index = [p for p in range(len(prompts)) for _ in range(len(answers) // len(prompts))]
    responses = make_responses(prompts, answers, index, pad_id=pad_id).to(device)
    log_prob = log_probs(policy, responses, temperature=sampling.temperature or 1.0).log_prob
    return Generated(responses=responses, log_prob=log_prob, ended=torch.tensor(ended, device=device))


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
        """Draw through the server; EOS is appended where the answer ended, or where there is none at all."""
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        texts = [self.tokenizer.decode(list(prompt)) for prompt in prompts]
        answers = self.server.complete(texts, sampling, seed=seed, num_samples=num_samples)
        eos = self.tokenizer.eos_token_id
        ended = [answer.finish_reason == "stop" or not answer.text for answer in answers]
        rows = [
            self.tokenizer(answer.text, add_special_tokens=False)["input_ids"] + [eos] * stopped
            for answer, stopped in zip(answers, ended, strict=True)
        ]
        return _scored(self.policy, prompts, rows, ended, sampling, self.tokenizer.pad_token_id)
