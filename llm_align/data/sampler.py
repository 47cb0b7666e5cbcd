"""Batches under a token budget, of similar lengths, in an order that a checkpoint can resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rl_core.config import require


class TokenBudget:
    """Endless batches of row numbers: rows sorted by length, cut at `max_tokens` padded tokens, shuffled.

    Each epoch sees every row once. Equal lengths are ordered at random, so batches differ between epochs. The
    state is three integers; the order is a function of them. Every batch has `min_rows` or more, over the
    budget if need be. Raises ValueError for a row that alone exceeds the budget.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        max_tokens: int,
        seed: int,
        max_rows: int | None = None,
        min_rows: int = 1,
    ) -> None:
        require(len(lengths) >= min_rows, "lengths", len(lengths), f"at least {min_rows} rows")
        require(max_rows is None or max_rows > 0, "max_rows", max_rows, "> 0 or None")
        longest = max(range(len(lengths)), key=lambda row: lengths[row])
        if lengths[longest] > max_tokens:
            raise ValueError(f"max_tokens={max_tokens}: row {longest} alone has {lengths[longest]} tokens")
        self._lengths = torch.tensor(lengths)
        self.min_rows = min_rows
        self.max_tokens = max_tokens
        self.max_rows = max_rows or len(lengths)
        self._seed, self._epoch, self._batch = seed, 0, 0
        self._batches = self._cut()

    def next(self) -> list[int]:
        """The row numbers of the next batch; after an epoch the next one begins."""
        if self._batch == len(self._batches):
            self._epoch, self._batch = self._epoch + 1, 0
            self._batches = self._cut()
        self._batch += 1
        return self._batches[self._batch - 1]

    @property
    def batches_per_epoch(self) -> int:
        """How many batches the current epoch has."""
        return len(self._batches)

    def state_dict(self) -> dict[str, Any]:
        """Seed, epoch and the number of batches drawn in it."""
        return {"seed": self._seed, "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, given the same lengths and budget."""
        self._seed, self._epoch = state_dict["seed"], state_dict["epoch"]
        self._batches = self._cut()
        self._batch = state_dict["batch"]

    def cut(self, order: Sequence[int]) -> list[list[int]]:
        """Rows in an order of rising lengths as batches."""
        batches: list[list[int]] = [[]]
        for row, length in zip(order, self._lengths[list(order)].tolist(), strict=True):
            # lengths rise, so this row's is the padded width of the batch
            full = (len(batches[-1]) + 1) * length > self.max_tokens or len(batches[-1]) >= self.max_rows
            if len(batches[-1]) >= self.min_rows and full:
                batches.append([])
            batches[-1].append(row)
        if len(batches[-1]) < self.min_rows:
            rest = batches.pop()
            batches[-1] += rest
        return batches

    def _cut(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self._seed + 1_000_003 * self._epoch)
        shuffled = torch.randperm(len(self._lengths), generator=generator)
        order = shuffled[self._lengths[shuffled].argsort(stable=True)]
        batches = self.cut(order.tolist())
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
