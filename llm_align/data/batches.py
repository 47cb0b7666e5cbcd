"""The batch every algorithm speaks: prompts, and responses that point at their prompt.

One type serves supervised tuning (one response per prompt), pairs (two), ranked lists (K) and groups of
samples (G); how the rows are laid out for the model, padded or packed, is `packing`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Responses:
    """P prompts and B responses, right-padded; masks are bool, True is a real token.

    prompt_ids [P, Lp] int64 · prompt_mask [P, Lp] · prompt_index [B] int64: the prompt of each response ·
    response_ids [B, L] int64, the end-of-sequence token included · response_mask [B, L]: tokens that were
    there · loss_mask [B, L]: those of them the policy wrote (tool or environment tokens are False).
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    prompt_index: Tensor
    response_ids: Tensor
    response_mask: Tensor
    loss_mask: Tensor

    def __len__(self) -> int:
        return len(self.response_ids)

    @property
    def num_prompts(self) -> int:
        """Number of prompts P."""
        return len(self.prompt_ids)

    @property
    def lengths(self) -> Tensor:
        """Response lengths `[B]` in tokens."""
        return self.response_mask.sum(1)

    def to(self, device: torch.device | str) -> Responses:
        """The same batch on another device."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)
        }
        return Responses(**moved)

    def select(self, rows: Tensor) -> Responses:
        """Responses `rows` (indices or a bool mask, `[B]`) with the prompts they need, trimmed to their
        length."""
        used, prompt_index = torch.unique(self.prompt_index[rows], return_inverse=True)
        prompt_mask, response_mask = self.prompt_mask[used], self.response_mask[rows]
        width, length = _longest(prompt_mask), _longest(response_mask)
        return Responses(
            prompt_ids=self.prompt_ids[used, :width],
            prompt_mask=prompt_mask[:, :width],
            prompt_index=prompt_index,
            response_ids=self.response_ids[rows, :length],
            response_mask=response_mask[:, :length],
            loss_mask=self.loss_mask[rows, :length],
        )

    def response_lists(self) -> list[list[int]]:
        """Each response's token ids without padding."""
        lengths = self.lengths.tolist()
        return [row[:length] for row, length in zip(self.response_ids.tolist(), lengths, strict=True)]


def make_responses(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    prompt_index: Sequence[int] | None = None,
    loss_masks: Sequence[Sequence[bool]] | None = None,
    pad_id: int = 0,
) -> Responses:
    """Pad lists of token ids into a `Responses`; without `prompt_index`, response i answers prompt i.

    Raises ValueError for an empty prompt or response (row named): a model needs one token to predict the next
    from, and an empty response has no log-probability.
    """
    index = list(range(len(prompts))) if prompt_index is None else list(prompt_index)
    if len(index) != len(responses):
        raise ValueError(f"prompt_index has {len(index)} entries for {len(responses)} responses")
    for name, rows in (("prompt", prompts), ("response", responses)):
        empty = next((i for i, row in enumerate(rows) if len(row) == 0), None)
        if empty is not None:
            raise ValueError(f"{name} {empty} is empty: it must have at least one token")
    prompt_ids, prompt_mask = pad(prompts, pad_id)
    response_ids, response_mask = pad(responses, pad_id)
    loss_mask = response_mask if loss_masks is None else pad(loss_masks, 0)[0].bool()
    return Responses(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        prompt_index=torch.tensor(index),
        response_ids=response_ids,
        response_mask=response_mask,
        loss_mask=loss_mask,
    )


def pad(rows: Sequence[Sequence[int]], pad_id: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """Pad lists into `ids [N, longest]` int64 and `mask [N, longest]` bool, on the right or on the left."""
    longest = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=torch.int64)
        mask[i, place] = True
    return ids, mask


def _longest(mask: Tensor) -> int:
    return int(mask.sum(1).max())
