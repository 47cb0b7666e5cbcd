"""A causal LM's weights laid out for decoding: projections fused, rotary pairs interleaved, LoRA merged.

Llama, Mistral, Qwen2, Qwen3 and GPT-2 blocks are read out of their Hugging Face modules. The layout is a
snapshot: whoever trains the model reads it anew (a copy of the weights, milliseconds for small models).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

ROTARY_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """RMS norm where `bias` is None, layer norm otherwise."""

    weight: Tensor
    bias: Tensor | None
    eps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One transformer block; matrices are `[in, out]`."""

    norm1: Norm
    qkv: tuple[Tensor, Tensor | None]
    q_norm: Norm | None
    k_norm: Norm | None
    out: tuple[Tensor, Tensor | None]
    norm2: Norm
    up: tuple[Tensor, Tensor | None]  # gate and up side by side where the block is gated
    down: tuple[Tensor, Tensor | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What a decoding step needs; `cis [T, D/2]` are the rotary factors, None with learned positions."""

    blocks: list[Block]
    embedding: Tensor
    position_embedding: Tensor | None
    cis: Tensor | None
    norm: Norm
    head: tuple[Tensor, Tensor | None]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    gated: bool


def unsupported(model: Any) -> str | None:
    """Say why `read` cannot lay out this model (not wrapped by peft), or None where it can."""
    config = model.config
    if config.model_type not in (*ROTARY_FAMILIES, "gpt2"):
        return f"model_type {config.model_type!r} is none of {', '.join((*ROTARY_FAMILIES, 'gpt2'))}"
    if config.model_type == "gpt2":
        if config.activation_function != "gelu_new":
            return f"activation_function is {config.activation_function!r}, not 'gelu_new'"
        if (
            config.scale_attn_by_inverse_layer_idx
            or not config.scale_attn_weights
            or config.add_cross_attention
        ):
            return "its attention is scaled per layer or has cross-attention"
    else:
        if config.hidden_act != "silu":
            return f"hidden_act is {config.hidden_act!r}, not 'silu'"
        if getattr(config, "sliding_window", None) is not None:
            return "it has sliding-window attention"
        if (
            "dynamic" in config.rope_parameters["rope_type"]
            or config.rope_parameters["rope_type"] == "longrope"
        ):
            return "its rotary factors depend on the sequence length"
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in _PROJECTIONS and _dense(module) is None:
            return f"{name} is a {type(module).__name__}, neither a dense layer nor LoRA on one"
    return None


_PROJECTIONS = {
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    *("c_attn", "c_proj", "c_fc", "lm_head"),
}


@torch.no_grad()
def read(model: Any, max_length: int, dtype: torch.dtype | None = None) -> Weights:
    """Lay out `model` for sequences of up to `max_length` tokens, in its own dtype or in `dtype`."""
    assert unsupported(model) is None
    layout = _read_gpt2(model) if model.config.model_type == "gpt2" else _read_rotary(model, max_length)
    return layout if dtype is None else _cast(layout, dtype)


def _read_gpt2(model: Any) -> Weights:
    body, config = model.transformer, model.config
    blocks = [
        Block(
            norm1=_norm(block.ln_1),
            qkv=_fuse(block.attn.c_attn),
            q_norm=None,
            k_norm=None,
            out=_fuse(block.attn.c_proj),
            norm2=_norm(block.ln_2),
            up=_fuse(block.mlp.c_fc),
            down=_fuse(block.mlp.c_proj),
        )
        for block in body.h
    ]
    return Weights(
        blocks=blocks,
        embedding=body.wte.weight,
        position_embedding=body.wpe.weight,
        cis=None,
        norm=_norm(body.ln_f),
        head=_fuse(model.lm_head),
        num_heads=config.n_head,
        num_kv_heads=config.n_head,
        head_dim=config.n_embd // config.n_head,
        gated=False,
    )


def _read_rotary(model: Any, max_length: int) -> Weights:
    body, config = model.model, model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    pairs = torch.arange(head_dim, device=body.norm.weight.device).view(2, -1).t().reshape(-1)
    blocks = []
    for block in body.layers:
        attn, mlp = block.self_attn, block.mlp
        has_norm = config.model_type == "qwen3"
        blocks.append(
            Block(
                norm1=_norm(block.input_layernorm),
                qkv=_fuse_qkv(attn, pairs),
                q_norm=_norm(attn.q_norm, pairs) if has_norm else None,
                k_norm=_norm(attn.k_norm, pairs) if has_norm else None,
                out=_fuse(attn.o_proj),
                norm2=_norm(block.post_attention_layernorm),
                up=_fuse(mlp.gate_proj, mlp.up_proj),
                down=_fuse(mlp.down_proj),
            )
        )
    positions = torch.arange(max_length, device=pairs.device)[None]
    cos, sin = body.rotary_emb(torch.empty(0, device=pairs.device), positions)
    half = head_dim // 2
    return Weights(
        blocks=blocks,
        embedding=body.embed_tokens.weight,
        position_embedding=None,
        cis=torch.complex(cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()),
        norm=_norm(body.norm),
        head=_fuse(model.lm_head),
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        gated=True,
    )


def _dense(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Weight `[in, out]` and bias of a dense layer, active LoRA adapters merged; None for other layers."""
    weight: Any
    if type(module) is LoraLinear:
        base: Any = module.get_base_layer()
        plain = not any(module.use_dora.values()) and not any(module.lora_bias.values())
        if not plain or type(base) not in (nn.Linear, Conv1D):
            return None
        weight = base.weight
        if not module.disable_adapters and not module.merged:
            for name in module.active_adapters:
                if name in module.lora_A:
                    weight = weight + module.get_delta_weight(name)
    elif type(module) in (nn.Linear, Conv1D):
        base, weight = module, module.weight
    else:
        return None
    return (weight if type(base) is Conv1D else weight.t()), base.bias


def _fuse(*modules: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Several dense layers on one input as one `[in, sum of out]` matrix and one bias."""
    dense = [_dense(module) for module in modules]
    assert all(layer is not None for layer in dense)
    weights = [layer[0] for layer in dense if layer is not None]
    biases = [layer[1] for layer in dense if layer is not None and layer[1] is not None]
    return torch.cat(weights, 1), torch.cat(biases) if biases else None


def _fuse_qkv(attention: Any, pairs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Query, key and value projections fused; each query and key head has its rotary halves interleaved.

    A head's score is a dot product, so the same permutation of queries and keys leaves it unchanged, and the
    rotation of (i, i + D/2) pairs becomes one complex product of neighbours.
    """
    weights, biases = [], []
    for name in ("q_proj", "k_proj", "v_proj"):
        layer = _dense(getattr(attention, name))
        assert layer is not None
        weight, bias = layer
        if name != "v_proj":
            heads = torch.arange(weight.shape[1] // len(pairs), device=pairs.device) * len(pairs)
            order = (heads[:, None] + pairs).reshape(-1)
            weight, bias = weight[:, order], None if bias is None else bias[order]
        weights.append(weight)
        biases += [] if bias is None else [bias]
    return torch.cat(weights, 1), torch.cat(biases) if biases else None


def _norm(module: Any, order: Tensor | None = None) -> Norm:
    eps = module.eps if isinstance(module, nn.LayerNorm) else module.variance_epsilon
    weight = module.weight if order is None else module.weight[order]
    return Norm(weight=weight, bias=getattr(module, "bias", None), eps=eps)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """The same layout in another floating dtype; the rotary factors stay complex64."""
    if isinstance(value, Tensor):
        return value if value.is_complex() else value.to(dtype)
    if isinstance(value, tuple | list):
        return type(value)([_cast(item, dtype) for item in value])
    if isinstance(value, Norm | Block | Weights):
        return type(value)(**{name: _cast(getattr(value, name), dtype) for name in value.__slots__})
    return value
