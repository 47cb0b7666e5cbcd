"""Laying out responses for the model: several to a row, a shared prompt once, nobody seeing a stranger.

Isolation is an explicit block mask with restarted positions, so it holds on SDPA and on the CPU: packed and
unpacked log-probabilities are equal (tested to 1e-5), which position ids alone give only under
FlashAttention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llm_align.data.batches import Responses

# a masked row costs its length squared in attention; longer rows save less padding than that
ROW_TOKENS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """R rows of T tokens, and where to find each response in them.

    input_ids, position_ids [R, T] int64 · prompt_of, response_of [R, T]: which prompt a token belongs to (-1:
    padding) and which response (-1: the prompt itself) · states [B, L]: index into the flattened `[R * T]`
    hidden states of the one that predicts response token t · final [B]: index of the last response token's.
    """

    input_ids: Tensor
    position_ids: Tensor
    prompt_of: Tensor
    response_of: Tensor
    states: Tensor
    final: Tensor
    isolated: bool  # one response to a row: a plain causal mask is enough

    def attention_mask(self) -> Tensor | None:
        """Bool `[R, 1, T, T]`, True where query (row) may see key (column); None where plain causal does."""
        if self.isolated:
            return None
        query, key = self.response_of[:, :, None], self.response_of[:, None, :]
        mask = (self.prompt_of[:, :, None] == self.prompt_of[:, None, :]) & ((key == -1) | (key == query))
        return mask.tril_()[:, None]


@dataclass(frozen=True, slots=True)
class _Unit:
    """A prompt with some of its responses."""

    prompt: int
    responses: list[int]
    length: int


def pack(responses: Responses, row_tokens: int | None = None, share_prompts: bool = True) -> Packed:
    """Lay out `responses` in rows of at most `row_tokens` tokens.

    With `share_prompts`, a prompt stands once per row before all of its responses, which see it but not each
    other; a group too long for a row is split. Without, each response has its own copy. `row_tokens` None is
    the longest group, at most 1024, and at least the longest prompt with its response; 0 gives every response
    a row of its own. Raises ValueError if a prompt with one response does not fit `row_tokens`.
    """
    prompts, lengths = responses.prompt_mask.sum(1).tolist(), responses.lengths.tolist()
    owner = responses.prompt_index.tolist()
    longest = max(prompts[p] + length for p, length in zip(owner, lengths, strict=True))
    if row_tokens == 0:
        rows = [[_Unit(p, [b], prompts[p] + lengths[b])] for b, p in enumerate(owner)]
        return _place(responses, rows, prompts, lengths)
    groups: dict[int, list[int]] = {}
    for b, p in enumerate(owner):
        groups.setdefault(p if share_prompts else b, []).append(b)
    if row_tokens is None:
        largest = max(prompts[owner[g[0]]] + sum(lengths[b] for b in g) for g in groups.values())
        row_tokens = max(longest, min(largest, ROW_TOKENS))
    if longest > row_tokens:
        raise ValueError(
            f"row_tokens={row_tokens}: the longest prompt with its response has {longest} tokens"
        )
    units: list[_Unit] = []
    for group in groups.values():
        units += _split(owner[group[0]], group, prompts, lengths, row_tokens)
    return _place(responses, _first_fit(units, row_tokens), prompts, lengths)


def _split(
    prompt: int, group: list[int], prompts: list[int], lengths: list[int], row_tokens: int
) -> list[_Unit]:
    """The group as units that fit a row each."""
    units: list[_Unit] = []
    members: list[int] = []
    used = prompts[prompt]
    for b in group:
        if used + lengths[b] > row_tokens:
            units.append(_Unit(prompt, members, used))
            members, used = [], prompts[prompt]
        members = [*members, b]
        used += lengths[b]
    return [*units, _Unit(prompt, members, used)]


def _first_fit(units: list[_Unit], row_tokens: int) -> list[list[_Unit]]:
    """First-fit decreasing: the longest units first, each into the first row with room."""
    rows: list[list[_Unit]] = []
    room: list[int] = []
    for unit in sorted(units, key=lambda unit: -unit.length):
        place = next((i for i, left in enumerate(room) if left >= unit.length), None)
        if place is None:
            rows.append([unit])
            room.append(row_tokens - unit.length)
        else:
            rows[place].append(unit)
            room[place] -= unit.length
    return rows


def _place(responses: Responses, rows: list[list[_Unit]], prompts: list[int], lengths: list[int]) -> Packed:
    width = max(sum(unit.length for unit in row) for row in rows)
    shape = (len(rows), width)
    prompt_ids, response_ids = responses.prompt_ids.cpu(), responses.response_ids.cpu()
    input_ids, position_ids = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    prompt_of, response_of = torch.full(shape, -1), torch.full(shape, -1)
    states = torch.zeros(response_ids.shape, dtype=torch.int64)
    final = torch.zeros(len(response_ids), dtype=torch.int64)
    for r, row in enumerate(rows):
        at = 0
        for number, unit in enumerate(row):
            head = prompts[unit.prompt]
            prompt_of[r, at : at + unit.length] = number
            input_ids[r, at : at + head] = prompt_ids[unit.prompt, :head]
            position_ids[r, at : at + head] = torch.arange(head)
            last_prompt_token = r * width + at + head - 1
            at += head
            for b in unit.responses:
                length = lengths[b]
                input_ids[r, at : at + length] = response_ids[b, :length]
                position_ids[r, at : at + length] = torch.arange(head, head + length)
                response_of[r, at : at + length] = b
                states[b, 0] = last_prompt_token
                states[b, 1:length] = r * width + at + torch.arange(length - 1)
                final[b] = r * width + at + length - 1
                at += length
        position_ids[r, at:] = torch.arange(width - at)
    device = responses.response_ids.device
    isolated = all(len(row) == 1 and len(row[0].responses) == 1 for row in rows)
    if isolated:
        position_ids = torch.arange(width).expand(shape)
    tensors = (input_ids, position_ids, prompt_of, response_of, states, final)
    input_ids, position_ids, prompt_of, response_of, states, final = (t.to(device) for t in tensors)
    return Packed(
        input_ids=input_ids,
        position_ids=position_ids,
        prompt_of=prompt_of,
        response_of=response_of,
        states=states,
        final=final,
        isolated=isolated,
    )
