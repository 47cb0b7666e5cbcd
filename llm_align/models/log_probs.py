"""Log-probabilities of responses: the one function every algorithm asks, and it never builds `[B, L, V]`.

Hidden states are gathered at the positions that predict a response token; the vocabulary head is applied to
chunks of them; the backward pass recomputes each chunk (small batches keep their logits instead).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils import _pytree

from llm_align.data.batches import Responses
from llm_align.data.packing import Packed, pack
from llm_align.models.adapters import unwrap

CHUNK_ELEMENTS = 2**23  # logits held at a time: 32 MiB in float32
ENTRY = "sharded_log_probs"  # the method of a sharded model that gathers its weights (`models.parallel`)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogProbs:
    """`log_prob [B, L]` float32, 0 outside the batch's loss mask; `entropy [B, L]` where it was asked for."""

    log_prob: Tensor
    entropy: Tensor | None


_pytree.register_dataclass(LogProbs)  # FSDP2 looks for a module's output tensors inside


def log_probs(
    model: Any,
    responses: Responses,
    *,
    packed: Packed | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
) -> LogProbs:
    """Log-probability of each response token under `softmax(logits / temperature)`, differentiable once.

    `packed` is the layout of `responses` if it was made before (`packing.pack`), else it is made here. Only
    positions of `responses.loss_mask` are computed. `entropy [B, L]` is the full distribution's, in nats.
    """
    options: dict[str, Any] = {"packed": packed, "temperature": temperature, "entropy": entropy}
    entry = getattr(model, ENTRY, None)
    result: LogProbs = compute(model, responses, **options) if entry is None else entry(responses, **options)
    return result


def compute(
    model: Any, responses: Responses, *, packed: Packed | None, temperature: float, entropy: bool
) -> LogProbs:
    """`log_probs` of a model whose weights are all here."""
    packed = packed or pack(responses)
    mask = responses.loss_mask
    hidden = hidden_states(model, packed)[packed.states[mask]]
    return _at(mask, head_log_probs(model, hidden, responses.response_ids[mask], temperature, entropy))


def hidden_states(model: Any, packed: Packed) -> Tensor:
    """Final hidden states `[R * T, H]` of a packed batch, to be indexed by `packed.states` and
    `packed.final`.

    Raises ValueError for attention that cannot isolate packed sequences (anything but SDPA and eager, or a
    sliding window).
    """
    bare = unwrap(model)
    mask = packed.attention_mask()
    if mask is not None:
        mask = _mask_for(bare, mask)
    output = bare.base_model(
        input_ids=packed.input_ids, attention_mask=mask, position_ids=packed.position_ids, use_cache=False
    )
    states: Tensor = output.last_hidden_state
    return states.flatten(0, 1)


def head_log_probs(
    model: Any, hidden: Tensor, targets: Tensor, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities `[N]` of `targets [N]` given `hidden [N, H]`, and the entropies `[N]` if asked."""
    bare = unwrap(model)
    head = bare.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise ValueError(f"the vocabulary head is a {type(head).__name__}: log_probs needs a dense nn.Linear")
    config = bare.config.get_text_config()
    if getattr(config, "final_logit_softcapping", None):
        raise ValueError(
            f"final_logit_softcapping={config.final_logit_softcapping}: capped logits are not supported"
        )
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    return linear_log_probs(hidden, head.weight, targets, head.bias, temperature / scale, entropy=entropy)


def linear_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    *,
    entropy: bool = False,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> tuple[Tensor, Tensor | None]:
    """`log softmax((hidden @ weight.T + bias) / temperature)` at `targets [N]`, without the `[N, V]` logits.

    hidden [N, H], weight [V, H]; both results are `[N]` float32. At most `chunk_elements` logits exist at a
    time; where all `N * V` fit, they are kept for the backward pass, otherwise computed again.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    arguments = (hidden, weight, bias, targets, temperature, entropy, chunk_elements)
    log_prob, entropies = _HeadLogProb.apply(*arguments)
    return log_prob, entropies if entropy else None


class _HeadLogProb(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        entropy: bool,
        chunk_elements: int,
    ) -> tuple[Tensor, Tensor]:
        num = len(hidden)
        log_prob, normalizer, spread = (hidden.new_zeros(num, dtype=torch.float32) for _ in range(3))
        size = max(1, chunk_elements // len(weight))
        kept = None
        for rows in _chunks(num, size):
            logits = _logits(hidden[rows], weight, bias, temperature)
            normalizer[rows] = logits.logsumexp(-1)
            log_prob[rows] = logits.gather(-1, targets[rows, None])[:, 0] - normalizer[rows]
            if entropy:
                p = (logits - normalizer[rows, None]).exp_()
                spread[rows] = normalizer[rows] - p.mul_(logits).sum(-1)
            if num <= size and any(ctx.needs_input_grad):
                kept = logits
        ctx.save_for_backward(hidden, weight, bias, targets, normalizer, spread, kept)
        ctx.temperature, ctx.entropy, ctx.size = temperature, entropy, size
        return log_prob, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_log_prob: Tensor, grad_entropy: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, targets, normalizer, spread, kept = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        # sums over many chunks are kept in float32, whatever the weights are in
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if need_bias else None
        for rows in _chunks(len(hidden), ctx.size):
            logits = (
                kept.clone() if kept is not None else _logits(hidden[rows], weight, bias, ctx.temperature)
            )
            log_p = logits.sub_(normalizer[rows, None])
            if ctx.entropy:  # -p (g + g_H (log p + H))
                p = log_p.exp().neg_()
                grad = log_p.add_(spread[rows, None]).mul_(grad_entropy[rows, None])
                grad.add_(grad_log_prob[rows, None]).mul_(p)
            else:
                grad = log_p.exp_().mul_(-grad_log_prob[rows, None])
            grad.scatter_add_(-1, targets[rows, None], grad_log_prob[rows, None])
            grad = grad.div_(ctx.temperature).to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = grad @ weight
            if grad_weight is not None:
                _accumulate(grad_weight, grad.t(), hidden[rows])
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *[None] * 4,
        )


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """Tempered logits `[n, V]` in float32; on a GPU bf16 products are also returned in float32."""
    if hidden.is_cuda and hidden.dtype != torch.float32:
        logits = torch.mm(hidden, weight.t(), out_dtype=torch.float32)
        logits = logits if bias is None else logits.add_(bias)
    else:
        with torch.autocast(hidden.device.type, enabled=False):
            logits = F.linear(hidden, weight, bias).float()
    return logits if temperature == 1 else logits.div_(temperature)


def _accumulate(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total += a @ b` with a float32 total: in place, since another matrix of its size would double the
    peak."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a @ b


def _chunks(num: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, num)) for start in range(0, num, size)]


def _at(mask: Tensor, values: tuple[Tensor, Tensor | None]) -> LogProbs:
    log_prob, entropy = values
    return LogProbs(
        log_prob=spread(log_prob, mask), entropy=None if entropy is None else spread(entropy, mask)
    )


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put `values [N]`, one for each True of `mask [B, L]`, at their places; 0 elsewhere.

    Differentiable.
    """
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def _mask_for(model: Any, mask: Tensor) -> Tensor:
    config = model.config.get_text_config()
    implementation = model.config._attn_implementation
    if implementation not in ("sdpa", "eager"):
        raise ValueError(f"attention={implementation!r}: packed rows need 'sdpa' or 'eager'")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (config.model_type == "mistral" and config.sliding_window):
        raise ValueError(f"layers {sorted(kinds)}: packed rows need full attention; pack with row_tokens=0")
    if implementation == "sdpa":
        return mask
    blocked = torch.finfo(model.dtype).min
    return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill_(~mask, blocked)
