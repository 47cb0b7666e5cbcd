"""Causal language models: by name or path, small ones from scratch, frozen copies."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rl_core.config import choice, require

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(kw_only=True, slots=True)
class Small:
    """A Llama-like model from scratch; the defaults have 3.9 million parameters with a 4,096-token
    vocabulary."""

    vocab_size: int = 4096
    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    intermediate_size: int = 0  # 0: 8/3 of the hidden size, rounded up to a multiple of 32
    max_length: int = 1024
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        require(
            self.hidden_size % (2 * self.num_heads) == 0,
            "hidden_size",
            self.hidden_size,
            f"a multiple of twice num_heads={self.num_heads}",
        )
        require(
            self.num_heads % self.num_kv_heads == 0,
            "num_kv_heads",
            self.num_kv_heads,
            f"a divisor of num_heads={self.num_heads}",
        )


def small_causal_lm(config: Small) -> PreTrainedModel:
    """A randomly initialised model (from torch's global generator, as transformers does: seed it before)."""
    width = config.intermediate_size or -(-config.hidden_size * 8 // 3 // 32) * 32
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.max_length,
            tie_word_embeddings=config.tie_embeddings,
            bos_token_id=None,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
        )
    )


def load_causal_lm(
    name_or_path: str | Path, *, dtype: str = "float32", attention: str = "sdpa", revision: str | None = None
) -> PreTrainedModel:
    """A Hugging Face causal LM by hub name or local folder, in evaluation mode.

    Raises ValueError for an unknown dtype or attention, and for a path without a model.
    """
    choice("dtype", dtype, DTYPES)
    choice("attention", attention, ["sdpa", "eager"])
    path = Path(name_or_path)
    if path.is_dir() and not (path / "config.json").exists():
        found = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
        raise ValueError(f"model={str(path)!r}: the folder has no config.json (it holds {found})")
    try:
        return AutoModelForCausalLM.from_pretrained(
            str(name_or_path), dtype=DTYPES[dtype], attn_implementation=attention, revision=revision
        )
    except OSError as error:
        raise ValueError(f"model={str(name_or_path)!r}: {str(error).splitlines()[0]}") from error


def reference_copy(model: Any) -> Any:
    """A frozen copy in evaluation mode: the reference of a fully trained model (LoRA needs none)."""
    return copy.deepcopy(model).eval().requires_grad_(False)
