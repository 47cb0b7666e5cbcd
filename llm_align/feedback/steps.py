"""Process rewards: solutions as labelled steps (Lightman et al. 2023, arXiv:2305.20050).

A step's score is read after its last token, and is a logit of the step being right; a solution's is the
`last`, `min` or `mean` of its steps' (min: one wrong step spoils it).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_align.data.chat import render
from llm_align.data.examples import Example, truth
from llm_align.data.loader import Batch, Config
from llm_align.data.readers import Row, require_columns
from llm_align.data.tokens import Encoded, check_tokenizer, ids_of
from llm_align.feedback.scorer import Scorer
from rl_core import distributed

# scores [P, S] and mask [P, S] -> [P]
AGGREGATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "last": lambda score, mask: score.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0],
    "min": lambda score, mask: score.masked_fill(~mask, torch.inf).amin(1),
    "mean": lambda score, mask: score.masked_fill(~mask, 0.0).sum(1) / mask.sum(1),
}


def labelled(rows: Sequence[Row]) -> list[Example]:
    """Rows of `prompt`+`completions` (the steps)+`labels` (bool each), TRL's columns for process rewards.

    Raises ValueError naming a row without steps, or with another number of labels.
    """
    require_columns(rows, ("prompt", "completions", "labels"))
    for number, row in enumerate(rows):
        found = len(row["completions"]), len(row["labels"])
        if found[0] == 0 or found[0] != found[1]:
            raise ValueError(f"row {number}: {found[0]} steps with {found[1]} labels; expected one for each")
    return [
        Example(
            prompt=row["prompt"],
            responses=list(row["completions"]),
            labels=[truth(number, "labels", label) for label in row["labels"]],
        )
        for number, row in enumerate(rows)
    ]


def encode(
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    max_length: int,
    template: str = "own",
    too_long: str = "error",
    separator: str = "\n",
) -> list[Encoded]:
    """One response per example: its steps, each with `separator` after it, and EOS.

    Where each step ends is in the example's `columns["ends"]`. A prompt that is a chat is written as
    `template` says, up to the assistant's turn. `too_long` is `tokens.encode`'s: error | drop | keep_end.
    Raises ValueError naming the row of a chat that cannot be written, and of an example longer than
    `max_length`.
    """
    check_tokenizer(tokenizer)
    openings = [_opening(tokenizer, number, example, template) for number, example in enumerate(examples)]
    flat = ids_of(tokenizer, [f"{text}{separator}" for example in examples for text in example.responses])
    ids, encoded = iter(flat), []
    for number, (example, prompt) in enumerate(zip(examples, ids_of(tokenizer, openings), strict=True)):
        steps = [next(ids) for _ in example.responses]
        ends = [total - 1 for total in accumulate(map(len, steps))]
        response = [*chain.from_iterable(steps), tokenizer.eos_token_id]
        room = max_length - len(response)
        if too_long == "keep_end" and room > 0:
            prompt = prompt[-room:]
        if len(prompt) > room and too_long == "drop":
            warnings.warn(f"row {number} exceeds data.max_length={max_length}: left out", stacklevel=2)
            continue
        if len(prompt) > room:
            raise ValueError(
                f"row {number}: {len(prompt) + len(response)} tokens exceed data.max_length={max_length}"
            )
        whole = Example(prompt=example.prompt, responses=[], labels=example.labels, columns={"ends": ends})
        encoded.append(
            Encoded(
                prompt=prompt or [tokenizer.eos_token_id],
                responses=[response],
                loss_masks=[[True] * len(response)],
                example=whole,
            )
        )
    return encoded


def _opening(tokenizer: Any, number: int, example: Example, template: str) -> str:
    if not isinstance(example.prompt, list):
        return example.prompt or ""
    try:
        return render(tokenizer, example.prompt, template=template, open_turn=True)
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error


def tokenize(cfg: Config, tokenizer: Any, examples: Sequence[Example]) -> list[Encoded]:
    """`encode` with the settings of `cfg`."""
    options = {"template": cfg.template, "too_long": cfg.too_long}
    return encode(tokenizer, examples, max_length=cfg.max_length, **options)


def step_scores(scorer: Scorer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Score of every step, `[P, S]`, and which steps there are, `[P, S]` bool."""
    ends = [(example.columns or {})["ends"] for example in batch.examples]
    device = batch.mask.device
    counts = torch.tensor([len(own) for own in ends], device=device)
    mask = torch.arange(int(counts.max()), device=device) < counts[:, None]
    rows = mask.nonzero()[:, 0]
    tokens = torch.tensor([end for own in ends for end in own], device=device)
    flat = scorer.at_tokens(batch.responses, rows, tokens)
    return torch.zeros(mask.shape, device=device).masked_scatter(mask, flat), mask


def loss(scorer: Scorer, batch: Batch) -> Tensor:
    """Binary cross-entropy of the steps' labels, every step of all processes weighing the same; a scalar."""
    score, mask = step_scores(scorer, batch)
    summed = F.binary_cross_entropy_with_logits(score[mask], _labels(batch), reduction="sum")
    return summed / distributed.total(mask.sum())


def evaluate(scorer: Scorer, batch: Batch, aggregation: str) -> dict[str, Tensor]:
    """Loss, accuracy over steps, and over solutions: all right or not, by the aggregated score."""
    score, mask = step_scores(scorer, batch)
    label = _labels(batch)
    whole = torch.tensor([all(example.labels or []) for example in batch.examples], device=score.device)
    return {
        "loss": F.binary_cross_entropy_with_logits(score[mask], label),
        "accuracy": ((score[mask] > 0) == label.bool()).float().mean(),
        "solution_accuracy": ((AGGREGATIONS[aggregation](score, mask) > 0) == whole).float().mean(),
    }


def _labels(batch: Batch) -> Tensor:
    labels = [float(label) for example in batch.examples for label in example.labels or []]
    return torch.tensor(labels, device=batch.mask.device)
