"""Schedules as pure functions of the step, so that a resumed run needs no scheduler state.

For instance `set_lr(optimizer, warmup(step, 100) * cosine(step, 1.0, 0.1, 10_000))` before each update.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim import Optimizer


def constant(step: int, value: float) -> float:
    """The same `value` at every step."""
    del step
    return value


def linear(step: int, start: float, end: float, duration: int) -> float:
    """Straight line from `start` at step 0 to `end` at step `duration`, and `end` ever after."""
    return start + (end - start) * _progress(step, duration)


def cosine(step: int, start: float, end: float, duration: int) -> float:
    """Half a cosine from `start` at step 0 to `end` at step `duration`, and `end` ever after."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * _progress(step, duration)))


def warmup(step: int, duration: int) -> float:
    """Factor that grows linearly from 0 at step 0 to 1 at step `duration`; always 1 for `duration=0`."""
    return 1.0 if duration == 0 else _progress(step, duration)


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set every learning rate to `factor` times its initial value, which the optimizer's state keeps."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # captured CUDA graphs read the learning rate from a tensor
            group.setdefault("initial_lr", group["lr"].item())
            group["lr"].fill_(group["initial_lr"] * factor)
        else:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor


def _progress(step: int, duration: int) -> float:
    if duration <= 0:
        raise ValueError(f"duration={duration}: must be > 0")
    return min(max(step / duration, 0.0), 1.0)
