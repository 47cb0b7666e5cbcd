"""A policy and its tokenizer as a script's configuration asks: by name or path, or small and from scratch."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from llm_align.data.tokenizer import load_tokenizer, train_tokenizer
from llm_align.models.adapters import Lora, add_lora
from llm_align.models.causal_lm import Small, load_causal_lm, small_causal_lm
from rl_core import distributed
from rl_core.config import require, require_default


@dataclass(kw_only=True, slots=True)
class Config:
    """`name` is a hub id or a folder; empty: a model from scratch, its tokenizer trained on the data."""

    name: str = ""
    pad_token: str | None = None  # for a tokenizer that has none
    dtype: str = "float32"
    attention: str = "sdpa"
    lora_rank: int = 0  # of adapters to train instead of the weights; 0: all weights are trained
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()  # empty: every linear layer
    scratch: Small = field(default_factory=Small)  # without a name; its vocab_size is the tokenizer's

    def __post_init__(self) -> None:
        """Check that what is set is read; `scratch` may stand beside a name that replaces a recipe's."""
        self.lora_targets = tuple(self.lora_targets)  # Hydra reads a list
        if not self.name:
            require_default(self, ["pad_token", "dtype", "attention"], "model.name", group="model")
        if not self.lora_rank:
            names = ["lora_alpha", "lora_dropout", "lora_targets"]
            require_default(self, names, "model.lora_rank above 0", group="model")


def load(cfg: Config, texts: Iterable[str], max_length: int) -> tuple[Any, Any]:
    """Model and tokenizer; `texts` train the tokenizer of a model from scratch.

    Raises ValueError where there is no such model, and where its context is shorter than `max_length`.
    """
    if cfg.name:
        model = load_causal_lm(cfg.name, dtype=cfg.dtype, attention=cfg.attention)
        tokenizer = load_tokenizer(cfg.name, pad_token=cfg.pad_token)
    else:
        tokenizer = train_tokenizer(texts, cfg.scratch.vocab_size)
        ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        model = small_causal_lm(replace(cfg.scratch, vocab_size=len(tokenizer), **ids))
    check_context(model, max_length)
    if cfg.lora_rank:
        options: dict[str, Any] = {"dropout": cfg.lora_dropout, "targets": cfg.lora_targets}
        return add_lora(model, Lora(rank=cfg.lora_rank, alpha=cfg.lora_alpha, **options)), tokenizer
    return model, tokenizer


def load_reference(name: str, tokenizer: Any) -> Any:
    """Another model as the reference policy, frozen.

    Raises ValueError if its tokenizer is not the policy's: their log-probabilities cannot be compared.
    """
    model, theirs = load_causal_lm(name), load_tokenizer(name)
    ours = tokenizer.get_vocab()
    different = sorted(token for token, number in theirs.get_vocab().items() if ours.get(token) != number)
    if different or len(theirs) != len(tokenizer):
        raise ValueError(
            f"reference={name!r}: its tokenizer has {len(theirs)} tokens, the policy's {len(tokenizer)}, and "
            f"{len(different)} have other ids (such as {different[:3]}); both models need one tokenizer"
        )
    return model.requires_grad_(False)


def check_context(model: Any, max_length: int) -> None:
    """Raise ValueError unless the model has positions for `max_length` tokens."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_length
    require(
        max_length <= context,
        "data.max_length",
        max_length,
        f"at most the model's context of {context} tokens, responses included",
    )


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer so that Hugging Face, and `load`, read them by the folder's name.

    LoRA adapters are merged into the weights there, and stand by themselves in `folder/adapter`.
    """
    state = {name: distributed.full(value.detach()) for name, value in model.state_dict().items()}
    if distributed.rank() == 0:
        if isinstance(model, PeftModel):
            model.save_pretrained(str(folder / "adapter"))
            copy.deepcopy(model).merge_and_unload().save_pretrained(folder)
        else:
            model.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)
    distributed.barrier()
