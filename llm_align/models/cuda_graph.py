"""The decoding step as a CUDA graph: one launch per token instead of one per operation."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_align.models.decoder import FusedDecoder


class GraphedStep:
    """A `FusedDecoder` whose steps replay a CUDA graph, captured anew whenever rows leave the batch."""

    def __init__(self, decoder: FusedDecoder, warmup: int = 3) -> None:
        self.decoder = decoder
        self.warmup = warmup
        self._graph: torch.cuda.CUDAGraph | None = None
        self._tokens = self._column = self._logits = torch.empty(0)

    def prefill(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Read prompts `[P, Lp]`, left-padded under `mask`; return the next token's logits `[P, V]`."""
        self._graph = None
        return self.decoder.prefill(input_ids, mask)

    def expand(self, prompt_index: Tensor) -> None:
        """Give sample b the cache of prompt `prompt_index[b]`, `[B]`."""
        self._graph = None
        self.decoder.expand(prompt_index)

    def keep(self, rows: Tensor, column: int) -> None:
        """Drop all rows but `rows`; the cache is filled up to `column`."""
        self._graph = None
        self.decoder.keep(rows, column)

    def step(self, tokens: Tensor, column: int | Tensor) -> Tensor:
        """Append `tokens [B]` at cache column `column`; the logits `[B, V]` are overwritten by the next
        step."""
        if self._graph is None:
            self._capture(tokens, int(column))
        assert self._graph is not None
        self._tokens.copy_(tokens)
        self._column.fill_(column)
        self._graph.replay()
        return self._logits

    def _capture(self, tokens: Tensor, column: int) -> None:
        self._tokens = tokens.clone()
        self._column = torch.tensor(column, device=tokens.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.warmup):  # writes the same column each time
                self.decoder.step(self._tokens, self._column)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self.decoder.step(self._tokens, self._column)
