"""A four-word language with a preference in it, tiny policies, and runs that a power cut can end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llm_align.data.examples import Example
from llm_align.data.loader import Batches, Config
from llm_align.data.tokens import Encoded
from llm_align.models.causal_lm import Small, small_causal_lm
from rl_core import run

EOS, WORDS = 0, (2, 3, 4, 5)


def small_policy(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes = Small(
        vocab_size=8,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        max_length=64,
        eos_token_id=EOS,
    )
    return small_causal_lm(sizes)


def encoded(
    prompt: Sequence[int],
    responses: Sequence[Sequence[int]],
    labels: list[bool] | None = None,
    margin: float | None = None,
) -> Encoded:
    example = Example(prompt="", responses=[""] * len(responses), labels=labels, margin=margin)
    masks = [[True] * (len(response) + 1) for response in responses]
    ids = [[*response, EOS] for response in responses]
    return Encoded(prompt=list(prompt), responses=ids, loss_masks=masks, example=example)


def preferences(num: int = 32, answers: int = 2) -> list[Encoded]:
    """Words after a prompt of two; answers of word 2 are the best, then those of word 3, and so on."""
    g = torch.Generator().manual_seed(5)
    items = []
    for number in range(num):
        prompt = [WORDS[int(i)] for i in torch.randint(4, (2,), generator=g)]
        responses = [[WORDS[k]] * (1 + (number + k) % 3) for k in range(answers)]
        items.append(encoded(prompt, responses, margin=0.5))
    return items


def ratings(num: int = 32) -> list[Encoded]:
    items = []
    for pair in preferences(num // 2):
        for k, label in enumerate((True, False)):
            items.append(encoded(pair.prompt, [pair.responses[k][:-1]], labels=[label]))
    return items


def batches(items: Sequence[Encoded], **settings: Any) -> Batches:
    cfg = Config(source="made here", **{"batch_size": 8, "max_tokens": 512} | settings)
    return Batches(items, cfg, seed=0)


@dataclass
class Root:
    """What a script's configuration is to a run."""

    run: run.Config


def make_run(folder: Path, **settings: Any) -> run.Run:
    cfg = run.Config(dir=str(folder), device="cpu", tensorboard=False, **{"steps": 4} | settings)
    return run.Run(cfg, config=Root(run=cfg))


class PowerCutError(RuntimeError):
    """What ends a run between two updates."""


def cut_at(data: Batches, call: int) -> Batches:
    """Make draw number `call` from `data` fail."""
    draw, calls = data.next, iter(range(1, call + 1))

    def next_or_fail() -> Any:
        if next(calls) == call:
            raise PowerCutError
        return draw()

    data.next = next_or_fail  # type: ignore[method-assign]
    return data


def weights(agent: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.parameters()])
