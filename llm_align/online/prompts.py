"""Prompts to sample from: a file's rows as token ids, with their other columns for the rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_align.data import examples, loader
from llm_align.data.examples import Example
from llm_align.data.readers import load_rows, require_columns
from llm_align.data.tokens import Encoded, encode
from llm_align.models import loading
from rl_core.config import require


@dataclass(kw_only=True, slots=True)
class Config:
    """Where the prompts are, and how many are kept for evaluation."""

    source: str = ""  # .jsonl (.gz), .parquet, a folder of datasets.save_to_disk, or a hub id
    split: str = "train"
    column: str = "prompt"  # GSM8K calls it question; where it is missing, the prompts of chosen and rejected
    suffix: str = ""  # written after each text prompt
    limit: int = 0  # rows read at most; 0 reads all
    held_out: float = 0.0  # share of conversations kept for evaluation: those that `data.loader` keeps
    fold: int = 0  # which
    max_length: int = 512  # tokens of a prompt
    template: str = "own"  # own: the tokenizer's chat template | plain
    too_long: str = "drop"  # drop | error | keep_end
    demonstrations: str = ""  # rows for PPO's pretraining gradient

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.limit >= 0, "data.limit", self.limit, ">= 0")
        loader.check_split(self.held_out, self.fold)
        require(self.max_length >= 1, "data.max_length", self.max_length, "at least 1")


def read(cfg: Config) -> list[Example]:
    """Prompts with their rows' other columns.

    Raises ValueError for a source that cannot be read, a missing column (found and expected are named), and a
    row whose prompt is no prompt. An empty text is one: what follows is written from nothing.
    """
    require(bool(cfg.source), "data.source", cfg.source, "a file, a folder or a hub id")
    rows = load_rows(cfg.source, cfg.split)[: cfg.limit or None]
    if require_columns(rows, (cfg.column,), ("chosen", "rejected"))[0] == "chosen":
        rows = [{cfg.column: pair.prompt} for pair in examples.preferences(rows)]
    for number, row in enumerate(rows):
        if not isinstance(row[cfg.column], str | list):
            kind = type(row[cfg.column]).__name__
            raise ValueError(f"row {number}: {cfg.column} is {kind}: must be a text or a list of messages")
    return examples.prompts([{**row, "prompt": _with_suffix(row[cfg.column], cfg.suffix)} for row in rows])


def tokenize(cfg: Config, tokenizer: Any, asked: list[Example]) -> tuple[list[Encoded], list[Encoded]]:
    """Prompts to train on, and those held out to evaluate on."""
    options: dict[str, Any] = {"template": cfg.template, "too_long": cfg.too_long}
    # `encode` leaves room for one token of a response
    encoded = encode(tokenizer, asked, max_length=cfg.max_length + 1, **options)
    return loader.split(encoded, cfg.held_out, cfg.fold)


def load_model(cfg: loading.Config, max_length: int) -> tuple[Any, Any]:
    """Model and tokenizer by name: what has learnt nothing yet is not worth sampling from."""
    require(bool(cfg.name), "model.name", cfg.name, "a model's folder or hub id")
    return loading.load(cfg, (), max_length)


def check_demonstrations(cfg: Config, algorithm: str) -> None:
    """Raise ValueError for demonstrations that `algorithm` has no use for."""
    fits = algorithm == "ppo" or not cfg.demonstrations
    require(fits, "data.demonstrations", cfg.demonstrations, "empty: only PPO learns from it")


def demonstrations(cfg: Config, tokenizer: Any) -> dict[str, list[Encoded]]:
    """PPO's option of that name, if asked for: rows of `prompt`+`completion`, `messages` or `text`.

    Those that are too long are dropped.
    """
    if not cfg.demonstrations:
        return {}
    rows = examples.demonstrations(load_rows(cfg.demonstrations))
    return {"demonstrations": encode(tokenizer, rows, max_length=cfg.max_length, too_long="drop")}


def _with_suffix(prompt: Any, suffix: str) -> Any:
    return prompt + suffix if isinstance(prompt, str) else prompt
