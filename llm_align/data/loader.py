"""From a dataset to batches of token ids: what every offline algorithm trains on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm_align.data import hh
from llm_align.data.batches import Responses, make_responses
from llm_align.data.examples import Example, Text
from llm_align.data.readers import Row, load_rows
from llm_align.data.sampler import TokenBudget
from llm_align.data.tokens import Encoded, encode
from rl_core import distributed
from rl_core.config import choice, require
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """Where the rows come from and how they are cut into batches."""

    source: str = ""  # .jsonl (.gz), .parquet, a folder of datasets.save_to_disk, or a hub id
    split: str = "train"
    limit: int = 0  # rows read at most; 0 reads all
    held_out: float = 0.1  # share of conversations kept for evaluation
    fold: int = 0  # which: 0 to 1 / held_out - 1, for cross-validation
    max_length: int = 1024  # tokens of a prompt with one response
    template: str = "own"  # own: the tokenizer's chat template | plain: HH's turns
    empty: str = "error"  # error | drop: examples with a response that has no text
    too_long: str = "drop"  # drop | error | keep_end (cuts the prompt at its beginning)
    loss_on: str = "assistant"  # of messages: assistant | all
    batch_size: int = 16  # examples to a batch at most, of all processes together
    max_tokens: int = 16_384  # tokens to a batch at most, likewise

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.limit >= 0, "data.limit", self.limit, "at least 0 (all rows)")
        check_split(self.held_out, self.fold)
        for name in ("max_length", "batch_size", "max_tokens"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")
        choice("data.template", self.template, ["own", "plain"])
        choice("data.empty", self.empty, ["error", "drop"])
        choice("data.too_long", self.too_long, ["drop", "error", "keep_end"])
        choice("data.loss_on", self.loss_on, ["assistant", "all"])


def check_split(held_out: float, fold: int) -> None:
    """Raise ValueError for a share that is none, or a fold that it does not have."""
    require(0 <= held_out < 1, "data.held_out", held_out, "in [0, 1)")
    last = max(round(1 / held_out) - 1, 0) if held_out else 0
    require(0 <= fold <= last, "data.fold", fold, f"0 to {last} with this data.held_out")


def read(cfg: Config, to_examples: Callable[[Sequence[Row]], list[Example]]) -> list[Example]:
    """Examples of `cfg.source`.

    Raises ValueError for a source that cannot be read and for columns that are missing (found and expected
    are named).
    """
    require(bool(cfg.source), "data.source", cfg.source, "a file, a folder or a hub id")
    rows = load_rows(cfg.source, cfg.split)
    examples = to_examples(rows[: cfg.limit or None])
    if cfg.empty == "error":
        return examples  # the row is named where it is tokenised
    kept = [example for example in examples if all(map(_has_text, example.responses))]
    if len(kept) < len(examples):
        dropped = f"{len(examples) - len(kept)} of {len(examples)} examples"
        warnings.warn(f"{dropped} have an empty response and are left out", stacklevel=2)
    return kept


def split(encoded: Sequence[Encoded], held_out: float, fold: int = 0) -> tuple[list[Encoded], list[Encoded]]:
    """Examples to train on and to evaluate on, by a hash of how each conversation begins.

    HH holds several pairs from different points of one conversation: they stay on one side. The same example
    is on the same side whatever else the dataset holds. The held-out sides of different folds do not overlap.
    """
    sides: tuple[list[Encoded], list[Encoded]] = ([], [])
    for item in encoded:
        digest = hashlib.blake2b(_beginning(item.example).encode(), digest_size=4).digest()
        place = int.from_bytes(digest, "big") / 2**32
        sides[fold * held_out <= place < (fold + 1) * held_out].append(item)
    return sides


def texts(examples: Sequence[Example]) -> Iterator[str]:
    """Every prompt and response as plain text, to train a tokenizer on."""
    for example in examples:
        for text in (example.prompt, *example.responses):
            if isinstance(text, str):
                yield text
            else:
                yield from (message["content"] for message in text or [])


def tokenize(cfg: Config, tokenizer: Any, examples: Sequence[Example]) -> list[Encoded]:
    """`tokens.encode` with the settings of `cfg`."""
    return encode(
        tokenizer,
        examples,
        max_length=cfg.max_length,
        template=cfg.template,
        too_long=cfg.too_long,
        loss_on=cfg.loss_on,
    )


Tokenize = Callable[[Config, Any, Sequence[Example]], list[Encoded]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """P examples: their numbers in the dataset, and their responses, all of the first prompt first.

    mask `[P, K]` bool: which responses exist; examples of one batch may have different numbers of them.
    """

    rows: list[int]
    examples: list[Example]
    responses: Responses
    mask: Tensor

    def grid(self, values: Tensor) -> Tensor:
        """Lay out one value per response, `[B] -> [P, K]`, 0 where there is no response."""
        grid = torch.zeros(self.mask.shape, dtype=values.dtype, device=values.device)
        return grid.masked_scatter(self.mask, values)

    def first_rows(self) -> Tensor:
        """Where the first response of each example stands among the responses, `[P]`."""
        counts = self.mask.sum(1)
        return counts.cumsum(0) - counts


def make_batch(encoded: Sequence[Encoded], rows: Sequence[int], pad_id: int = 0) -> Batch:
    """Pad the examples `rows` of `encoded` into a batch."""
    items = [encoded[row] for row in rows]
    counts = torch.tensor([len(item.responses) for item in items])
    responses = make_responses(
        [item.prompt for item in items],
        [response for item in items for response in item.responses],
        [number for number, item in enumerate(items) for _ in item.responses],
        [mask for item in items for mask in item.loss_masks],
        pad_id,
    )
    mask = torch.arange(int(counts.max())) < counts[:, None]
    examples = [item.example for item in items]
    return Batch(rows=list(rows), examples=examples, responses=responses, mask=mask)


class Batches:
    """Batches of encoded examples, of similar lengths and under a token budget, on `device`.

    Its state is the position in the dataset: give it to `run.steps(agent, data=batches)`. Of several
    processes each gets its share of every batch.
    """

    def __init__(
        self, encoded: Sequence[Encoded], cfg: Config, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        count = distributed.size()
        enough = f"a dataset that leaves {count} or more examples to train on and, if any, to evaluate on"
        require(len(encoded) >= count, "data.source", cfg.source, enough)
        require(cfg.batch_size >= count, "data.batch_size", cfg.batch_size, f"at least the {count} processes")
        lengths = [item.num_tokens for item in encoded]
        self.encoded = encoded
        self._sampler = TokenBudget(lengths, cfg.max_tokens, seed, cfg.batch_size, count)
        self._device = device

    def __len__(self) -> int:
        return len(self.encoded)

    def next(self) -> Batch:
        """The next batch, without end; each epoch has every example once, in another order."""
        return self._batch(self._sampler.next())

    def once(self) -> Iterator[Batch]:
        """Every example once, short ones first; does not move the position of `next`."""
        order = sorted(range(len(self.encoded)), key=lambda row: self.encoded[row].num_tokens)
        yield from map(self._batch, self._sampler.cut(order))

    def state_dict(self) -> dict[str, Any]:
        """The sampler's position."""
        return self._sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._sampler.load_state_dict(state_dict)

    def _batch(self, rows: list[int]) -> Batch:
        batch = make_batch(self.encoded, distributed.share(rows)[0])
        return Batch(
            rows=batch.rows,
            examples=batch.examples,
            responses=batch.responses.to(self._device),
            mask=batch.mask.to(self._device),
        )


def batches(
    cfg: Config,
    tokenizer: Any,
    examples: Sequence[Example],
    run: Run,
    how: Tokenize = tokenize,
) -> tuple[Batches, Batches | None]:
    """Training and held-out batches on the run's device; no held-out ones where no example falls there."""
    train, held_out = split(how(cfg, tokenizer, examples), cfg.held_out, cfg.fold)
    options: dict[str, Any] = {"seed": run.cfg.seed, "device": run.device}
    return Batches(train, cfg, **options), Batches(held_out, cfg, **options) if held_out else None


def _has_text(response: Text) -> bool:
    return bool(response.strip() if isinstance(response, str) else response)


def _beginning(example: Example) -> str:
    text = example.prompt if example.prompt is not None else example.responses[0]
    if isinstance(text, list):
        return str(text[0]["content"])
    return text.split(hh.ASSISTANT)[0] if text.startswith(hh.HUMAN) else text
