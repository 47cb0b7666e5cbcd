"""What an offline algorithm is given: a sampler of batches and a function that evaluates the agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from embodied_rl.data.types import Batch, Spec


class Data(Protocol):
    """A dataset on a device; observations come out normalised, n-step rewards summed, discounts applied."""

    @property
    def spec(self) -> Spec:
        """Layout of observations and actions."""
        ...

    def sample(self, generator: torch.Generator, batch_size: int) -> Batch:
        """Draw transitions uniformly with replacement."""
        ...


# Called with the agent (its `actor` acts); the result is logged as `eval/<name>`.
Evaluate = Callable[[Any], dict[str, Tensor | float]]
