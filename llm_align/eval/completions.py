"""Texts that a model writes, as rows of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from llm_align.data.readers import Row
from llm_align.data.tokens import Encoded
from llm_align.models.generation import generate
from llm_align.models.sampling import Sampling


def completions(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Encoded],
    sampling: Sampling,
    *,
    generator: torch.Generator,
    num_samples: int = 1,
    batch_size: int = 16,
) -> Iterator[Row]:
    """Rows of `prompt`, `completion`, the sampler's `log_prob` (a sum), and whether the text `ended`."""
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        ids = [item.prompt for item in part]
        drawn = generate(model, ids, sampling, generator=generator, num_samples=num_samples)
        texts = tokenizer.batch_decode(drawn.responses.response_lists(), skip_special_tokens=True)
        columns = zip(texts, drawn.log_prob.sum(1).tolist(), drawn.ended.tolist(), strict=True)
        for row, (text, log_prob, ended) in enumerate(columns):
            prompt = part[row // num_samples].example.prompt
            yield {"prompt": prompt, "completion": text, "log_prob": log_prob, "ended": ended}
