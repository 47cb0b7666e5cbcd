"""The optimizer every off-policy algorithm uses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter


def adam(*groups: tuple[Iterable[Parameter], float]) -> torch.optim.Adam:
    """Adam over `(parameters, learning rate)` groups, one fused kernel each.

    On a GPU learning rates are tensors and step counts stay there, so that a CUDA graph can hold the step.
    """
    param_groups: list[dict[str, Any]] = [{"params": list(params), "lr": lr} for params, lr in groups]
    device = param_groups[0]["params"][0].device
    on_gpu = device.type == "cuda"
    if on_gpu:
        for group in param_groups:
            group["lr"] = torch.tensor(group["lr"], device=device)
    return torch.optim.Adam(param_groups, fused=True, capturable=on_gpu)
