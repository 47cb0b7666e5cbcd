"""The decoding step as a CUDA graph: one launch per token instead of one per operation."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_align.models.decoder import FusedDecoder
from rl_core.accelerate import CudaGraph


class GraphedStep:
    """A `FusedDecoder` whose steps replay a CUDA graph, captured anew whenever rows leave the batch."""

    def __init__(self, decoder: FusedDecoder) -> None:
        self.decoder = decoder
        self._step: CudaGraph | None = None

    def prefill(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Read prompts `[P, Lp]`, left-padded under `mask`; return the next token's logits `[P, V]`."""
        self._step = None
        return self.decoder.prefill(input_ids, mask)

    def expand(self, prompt_index: Tensor) -> None:
        """Give sample b the cache of prompt `prompt_index[b]`, `[B]`."""
        self._step = None
        self.decoder.expand(prompt_index)

    def keep(self, rows: Tensor, column: int) -> None:
        """Drop all rows but `rows`; the cache is filled up to `column`."""
        self._step = None
        self.decoder.keep(rows, column)

    def step(self, tokens: Tensor, column: int | Tensor) -> Tensor:
        """Append `tokens [B]` at cache column `column`; return the next token's logits `[B, V]`."""
        if self._step is None:
            self._step = CudaGraph(lambda tokens, column: {"logits": self.decoder.step(tokens, column)})
        if isinstance(column, int):
            column = torch.full((), column, device=tokens.device)  # no wait, as a copy from the host has
        return self._step(tokens, column)["logits"]
