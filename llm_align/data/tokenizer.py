"""Tokenizers: a model's own, and byte-level ones trained here for models made from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rl_core.config import require

EOS, PAD = "<|eos|>", "<|pad|>"


def load_tokenizer(name_or_path: str | Path, *, pad_token: str | None = None) -> Any:
    """A Hugging Face tokenizer by hub name or folder; `pad_token` sets a padding token it lacks."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name_or_path))
    except (OSError, ValueError) as error:
        raise ValueError(f"tokenizer={str(name_or_path)!r}: {str(error).splitlines()[0]}") from error
    if pad_token is not None:
        tokenizer.pad_token = pad_token
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from `texts`, every text encodable and decoded exactly; EOS is id 0, padding id
    1.

    Raises ValueError for a vocabulary that does not hold the 256 bytes and the two special tokens.
    """
    require(vocab_size >= 258, "vocab_size", vocab_size, ">= 258 (256 bytes and two special tokens)")
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte: 258 ids, EOS 0 and padding 1, nothing to train."""
    vocab = {EOS: 0, PAD: 1}
    vocab |= {letter: 2 + i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = _byte_level(models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens([EOS, PAD])
    return _wrap(tokenizer)


def _byte_level(model: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )
