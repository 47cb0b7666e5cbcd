"""Models in several processes: wrapped once by `distribute`, computed by rows, read whole.

FSDP2 gathers weights in hooks on the entry of a module. Ours enter through `log_probs` and the methods of
value models and scorers, not through a language model's `forward`; losses are sums over counts of the whole
batch; several backward passes belong to a step. Hence `torch.distributed` directly, and neither
`DistributedDataParallel` nor accelerate's `prepare`, which wrap `forward` and average gradients per pass.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from llm_align.data.batches import Responses
from llm_align.models.adapters import unwrap
from llm_align.models.log_probs import ENTRY, compute
from rl_core import distributed
from rl_core.config import require


def distribute(model: Any, how: str) -> Any:
    """`model`, of all processes from now on: "ddp" or "fsdp2" (`distributed.spread`).

    `model` is a causal LM, with or without adapters, or a module with one as its `trunk`, whose other public
    methods are entries too. Copies and optimizers: copies before, optimizers afterwards.
    """
    if distributed.size() == 1:
        return model
    trunk = getattr(model, "trunk", None)
    if how == "fsdp2":
        adapted = isinstance(model if trunk is None else trunk, PeftModel)
        require(not adapted, "run.distributed", how, "ddp with adapters (model.lora_rank > 0)")
    if trunk is None:
        setattr(model, ENTRY, MethodType(compute, model))
        methods = [ENTRY]
    else:
        methods = [name for name in vars(type(model)) if not name.startswith("_") and name != "forward"]
    layers = unwrap(model if trunk is None else trunk)._no_split_modules
    distributed.spread(model, how, *methods, layers=tuple(layers or ()))
    return model


def by_rows(part: Callable[[Responses], Tensor], responses: Responses) -> Tensor:
    """`part` of all responses, `[B, L]`, each process computing its rows `[b, L']` of it; no gradient."""
    if distributed.size() == 1:
        return part(responses)
    mask = responses.loss_mask
    rows, weight = distributed.share(torch.arange(len(mask), device=mask.device))
    own = part(responses.select(rows))
    result = torch.zeros(mask.shape, device=mask.device)
    result[rows, : own.shape[1]] = weight * own
    return distributed.total(result)
