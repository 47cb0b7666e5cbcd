"""Where the rows of a dataset lie while training: all on the device, or streamed from the memory map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from embodied_rl.data.episodes import chunks
from rl_core.progress import counting

Transform = Callable[[Tensor], object]  # changes rows [n, D] in place

_CHUNK_ROWS = 2**18


class Rows(Protocol):
    """Rows of `D` features that can be gathered by index."""

    def take(self, index: Tensor) -> Tensor:
        """Return `[*index.shape, D]` float32 on the device; `index` is an integer tensor there."""
        ...


class Resident:
    """All rows in one tensor `[R, D]` on the device; the fields `[R, ...]` are concatenated once, here.

    While it fills, memory holds the tensor and one piece of the data besides.
    """

    def __init__(self, fields: list[np.ndarray], transform: Transform, device: torch.device) -> None:
        dims = [int(np.prod(field.shape[1:])) for field in fields]
        self._rows = torch.empty(len(fields[0]), sum(dims), dtype=torch.float32, device=device)
        columns = np.cumsum([0, *dims])
        with counting("filling the device", len(fields) * len(self._rows)) as progress:
            for number, field in enumerate(fields):
                target = self._rows[:, columns[number] : columns[number + 1]]
                for rows, part in chunks(field):
                    flat = np.array(part, np.float32).reshape(len(part), dims[number])
                    target[rows] = torch.from_numpy(flat).to(device)
                    progress(number * len(target) + rows.stop)
        for start in range(0, len(self._rows), _CHUNK_ROWS):
            transform(self._rows[start : start + _CHUNK_ROWS])

    def take(self, index: Tensor) -> Tensor:
        """Gather on the device."""
        return self._rows.index_select(0, index.reshape(-1)).view(*index.shape, -1)


class Streamed:
    """Rows stay in their memory maps; what is asked for is gathered there, moved and transformed."""

    def __init__(self, fields: list[np.ndarray], transform: Transform, device: torch.device) -> None:
        self._fields = fields
        self._transform = transform
        self._device = device

    def take(self, index: Tensor) -> Tensor:
        """Gather from disk."""
        rows = index.reshape(-1).cpu().numpy()
        parts = [field[rows].reshape(len(rows), -1) for field in self._fields]
        flat = torch.from_numpy(np.concatenate(parts, axis=1, dtype=np.float32)).to(self._device)
        self._transform(flat)
        return flat.view(*index.shape, -1)


RESIDENCY: dict[str, type[Resident] | type[Streamed]] = {"device": Resident, "memmap": Streamed}
