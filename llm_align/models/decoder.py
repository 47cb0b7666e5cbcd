"""Decoding steps over a preallocated key/value cache: a fused one for known families, a module one for the
rest.

Both have the same four methods, so that the loop in `generation` does not know which it drives: `prefill`,
`expand` to several samples per prompt, `step`, and `keep` for compaction. Rows are left-padded, so that all
of them write the same cache column.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from llm_align.models.weights import Block, Norm, Weights


class Decoder(Protocol):
    """What the generation loop drives."""

    def prefill(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Read prompts `[P, Lp]`, left-padded under `mask`; return the next token's logits `[P, V]`."""
        ...

    def expand(self, prompt_index: Tensor) -> None:
        """Give sample b the cache of prompt `prompt_index[b]`, `[B]`."""
        ...

    def step(self, tokens: Tensor, column: int | Tensor) -> Tensor:
        """Append `tokens [B]` at cache column `column`; return the next token's logits `[B, V]`."""
        ...

    def keep(self, rows: Tensor, column: int) -> None:
        """Drop all rows but `rows`; the cache is filled up to `column`."""
        ...


class FusedDecoder:
    """The step of a Llama-, Qwen- or GPT-2-like model as about ten operations a block.

    `column` given as an int reads only the filled part of the cache; as a 0-d tensor it has static shapes
    (the whole cache is read under a mask), which a CUDA graph needs.
    """

    def __init__(self, weights: Weights, max_length: int, prefill_tokens: int = 8192) -> None:
        self.weights = weights
        self.max_length = max_length
        self.prefill_tokens = prefill_tokens
        self.cache = torch.empty(0)
        self.bias: Tensor | None = None  # [B, 1, 1, T]: -inf at padded columns; None where nothing is padded
        self.offset = torch.empty(0)  # [B]: a row's position is its column minus its padding

    def prefill(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Read prompts `[P, Lp]`, left-padded under `mask`; return the next token's logits `[P, V]`."""
        w, (num, length) = self.weights, input_ids.shape
        shape = (len(w.blocks), 2, num, w.num_kv_heads, self.max_length, w.head_dim)
        self.cache = torch.zeros(shape, dtype=w.embedding.dtype, device=input_ids.device)
        self.offset = length - mask.sum(1)
        self.bias = None
        if not bool(mask.all()):
            bias = torch.zeros(num, self.max_length, dtype=w.embedding.dtype, device=input_ids.device)
            bias[:, :length].masked_fill_(~mask, float("-inf"))
            self.bias = bias[:, None, None]
        rows = max(1, self.prefill_tokens // length)
        logits = [
            self._prefill_rows(input_ids[start : start + rows], mask[start : start + rows], start)
            for start in range(0, num, rows)
        ]
        return torch.cat(logits)

    def _prefill_rows(self, input_ids: Tensor, mask: Tensor, start: int) -> Tensor:
        w, (num, length) = self.weights, input_ids.shape
        positions = (mask.long().cumsum(1) - 1).clamp_min(0)
        x, cis = _embed(w, input_ids, positions)
        attend = None
        if self.bias is not None:
            causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
            # a padded query sees itself, so that its row of the softmax is not empty (NaN)
            itself = torch.eye(length, dtype=torch.bool, device=mask.device)
            attend = (causal & mask[:, None, :] | itself)[:, None]
        repeats = w.num_heads // w.num_kv_heads
        for index, block in enumerate(w.blocks):
            q, k, v = (t.transpose(1, 2) for t in _project(w, block, x, cis))
            self.cache[index, 0, start : start + num, :, :length] = k
            self.cache[index, 1, start : start + num, :, :length] = v
            k, v = (t.repeat_interleave(repeats, 1) for t in (k, v)) if repeats > 1 else (k, v)
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, is_causal=attend is None)
            x = _finish(w, block, x, seen.transpose(1, 2).reshape(num, length, -1))
        return _logits(w, x[:, -1])

    def expand(self, prompt_index: Tensor) -> None:
        """Give sample b the cache of prompt `prompt_index[b]`, `[B]`."""
        self.cache = self.cache.index_select(2, prompt_index)
        self._select(prompt_index)

    def keep(self, rows: Tensor, column: int) -> None:
        """Drop all rows but `rows`; the cache is filled up to `column`."""
        # columns beyond `column` hold nothing yet, so they are not copied
        old = self.cache[:, :, :, :, :column]
        cache = self.cache[:, :, : len(rows)]
        cache[:, :, :, :, :column] = old[:, :, rows]
        self.cache = cache
        self._select(rows)

    def _select(self, rows: Tensor) -> None:
        self.offset = self.offset[rows]
        self.bias = None if self.bias is None else self.bias[rows]

    def step(self, tokens: Tensor, column: int | Tensor) -> Tensor:
        """Append `tokens [B]` at cache column `column`; return the next token's logits `[B, V]`."""
        w, num = self.weights, len(tokens)
        x, cis = _embed(w, tokens, column - self.offset)
        filled, bias = self._readable(column)
        grouped = (num, w.num_kv_heads, w.num_heads // w.num_kv_heads, w.head_dim)
        for index, block in enumerate(w.blocks):
            q, k, v = _project(w, block, x, cis)
            keys, values = self.cache[index, 0], self.cache[index, 1]
            if isinstance(column, int):
                keys[:, :, column], values[:, :, column] = k, v
            else:
                keys.index_copy_(2, column[None], k[:, :, None])
                values.index_copy_(2, column[None], v[:, :, None])
            seen = F.scaled_dot_product_attention(
                q.reshape(grouped), keys[:, :, :filled], values[:, :, :filled], attn_mask=bias
            )
            x = _finish(w, block, x, seen.reshape(num, -1))
        return _logits(w, x)

    def _readable(self, column: int | Tensor) -> tuple[int, Tensor | None]:
        """How many columns a step reads, and the additive mask over them."""
        if isinstance(column, int):
            return column + 1, None if self.bias is None else self.bias[..., : column + 1]
        ahead = torch.arange(self.max_length, device=self.offset.device) > column
        bias = torch.zeros_like(ahead, dtype=self.cache.dtype).masked_fill(ahead, float("-inf"))[
            None, None, None
        ]
        return self.max_length, bias if self.bias is None else self.bias + bias


def _embed(w: Weights, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """Embeddings `[..., H]`, and the rotary factors `[..., 1, D/2]`, complex."""
    x = F.embedding(tokens, w.embedding)
    if w.cis is None:
        assert w.position_embedding is not None
        return x + F.embedding(positions, w.position_embedding), None
    return x, w.cis[positions][..., None, :]


def _project(w: Weights, block: Block, x: Tensor, cis: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries `[..., heads, D]`, keys and values `[..., kv_heads, D]`, rotated."""
    qkv = _linear(_normalize(x, block.norm1), block.qkv).view(*x.shape[:-1], -1, w.head_dim)
    sizes = [w.num_heads, w.num_kv_heads, w.num_kv_heads]
    if block.q_norm is not None and block.k_norm is not None:
        q, k, v = torch.split(qkv, sizes, -2)
        qkv = torch.cat([_normalize(q, block.q_norm), _normalize(k, block.k_norm), v], -2)
    if cis is not None:
        turned = qkv[..., : w.num_heads + w.num_kv_heads, :]
        pairs = turned.float().unflatten(-1, (-1, 2))  # in float32 a view: the product is then in place
        torch.view_as_complex(pairs).mul_(cis)
        if qkv.dtype != torch.float32:
            turned.copy_(pairs.flatten(-2))
    q, k, v = torch.split(qkv, sizes, -2)
    return q, k, v


def _finish(w: Weights, block: Block, x: Tensor, seen: Tensor) -> Tensor:
    """Output projection, feed-forward and both residuals."""
    x = x + _linear(seen, block.out)
    hidden = _linear(_normalize(x, block.norm2), block.up)
    if w.gated:
        gate, up = hidden.chunk(2, -1)
        hidden = F.silu(gate) * up
    else:
        hidden = F.gelu(hidden, approximate="tanh")
    return x + _linear(hidden, block.down)


def _logits(w: Weights, x: Tensor) -> Tensor:
    return _linear(_normalize(x, w.norm), w.head)


def _linear(x: Tensor, layer: tuple[Tensor, Tensor | None]) -> Tensor:
    weight, bias = layer
    return x @ weight if bias is None else F.linear(x, weight.t(), bias)


def _normalize(x: Tensor, norm: Norm) -> Tensor:
    if norm.bias is not None:
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.eps)


class ModuleDecoder:
    """Any Hugging Face causal LM, through its own forward and a `DynamicCache`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cache = DynamicCache(config=model.config)
        self.mask = torch.empty(0)

    def prefill(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Read prompts `[P, Lp]`, left-padded under `mask`; return the next token's logits `[P, V]`."""
        self.mask = mask
        return self._forward(input_ids, (mask.long().cumsum(1) - 1).clamp_min(0))

    def expand(self, prompt_index: Tensor) -> None:
        """Give sample b the cache of prompt `prompt_index[b]`, `[B]`."""
        self.cache.batch_select_indices(prompt_index)
        self.mask = self.mask[prompt_index]

    def step(self, tokens: Tensor, column: int | Tensor) -> Tensor:
        """Append `tokens [B]` at the end of the cache; return the next token's logits `[B, V]`."""
        assert column == self.mask.shape[1]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        return self._forward(tokens[:, None], self.mask.sum(1, keepdim=True) - 1)

    def keep(self, rows: Tensor, column: int) -> None:
        """Drop all rows but `rows`."""
        self.expand(rows)

    def _forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        output = self.model(
            input_ids=input_ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits
