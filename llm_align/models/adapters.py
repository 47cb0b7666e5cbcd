"""LoRA by peft: adapters for the policy, the same weights without them as the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model

from rl_core.config import require


@dataclass(kw_only=True, slots=True)
class Lora:
    """Low-rank adapters (Hu et al.

    2021, arXiv:2106.09685) on `targets`, peft's choice per family if empty.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.rank > 0, "rank", self.rank, "> 0")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")


def add_lora(model: Any, config: Lora) -> PeftModel:
    """Freeze `model` and add trainable adapters to it, in place; at the start it computes what it did
    before."""
    targets = list(config.targets) or "all-linear"
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",
    )
    # the wrapper begins in training mode whatever the model was in
    return get_peft_model(model, lora).train(model.training)


@contextmanager
def reference(model: Any) -> Iterator[Any]:
    """The model with its adapters switched off: the reference policy at no memory.

    Raises ValueError for a model without adapters, whose reference is a copy (`causal_lm.reference_copy`).
    """
    if not isinstance(model, PeftModel):
        raise ValueError(
            "reference(model): the model has no LoRA adapters; use reference_copy for a frozen copy"
        )
    with model.disable_adapter():
        yield model


def unwrap(model: Any) -> Any:
    """The Hugging Face model inside a peft wrapper (its layers keep their adapters), or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
