"""Tiny random models of the families that tests compare on."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB = 97


def tiny(family: str) -> PreTrainedModel:
    """A 2-layer model with weights large enough that its distribution is far from uniform."""
    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": None}
    if family == "gpt2":
        config = GPT2Config(
            vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=4, n_positions=256, initializer_range=0.2, **ids
        )
        return GPT2LMHeadModel(config).eval()
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        **ids,
    }
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**sizes)).eval()
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(head_dim=16, **sizes)).eval()
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


@pytest.fixture(params=["llama", "qwen2", "qwen3", "gpt2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny(request.param)


@pytest.fixture
def llama() -> PreTrainedModel:
    return tiny("llama")


@pytest.fixture
def gpt2() -> PreTrainedModel:
    return tiny("gpt2")
