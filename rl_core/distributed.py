"""Several processes of one run (`torchrun`): who computes which rows, and sums over all of them.

Every process holds the same state, generators and positions in the data included, and computes its share of
each batch. Losses are divided by the counts of the whole batch, so that the sum of all gradients is that of
one process: the number of processes changes the speed of a run and, up to rounding, nothing that is learned.
Alone, a process has the share of everything, and every sum here is the identity.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

Rows = TypeVar("Rows", Tensor, Sequence[Any], list[Any])
T = TypeVar("T")


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def start(device: torch.device) -> None:
    """Meet the other processes: gloo for tensors of the CPU, NCCL for a GPU's."""
    if size() > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=2))  # a rollout may take its time
        atexit.register(dist.destroy_process_group)


def share(rows: Rows) -> tuple[Rows, float]:
    """This process's part of `rows` and its weight, 1.

    Where there are fewer rows than processes, an idle one repeats the first row at weight 0: the forward of
    a sharded module needs every process.
    """
    first, last = (len(rows) * number // size() for number in (rank(), rank() + 1))
    return (rows[first:last], 1.0) if last > first else (rows[:1], 0.0)


def total(x: Tensor) -> Tensor:
    """Sum of `x`, of any shape, over all processes, without gradient."""
    if size() == 1:
        return x
    summed = x.detach().clone()
    dist.all_reduce(summed)
    return summed


def combine(stats: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scalars of all processes as one set: the largest where the name ends in `_max`, else the sum."""
    if size() == 1 or not stats:
        return dict(stats)
    stacked = torch.stack([value.detach().float() for value in stats.values()])
    largest = stacked.clone()
    dist.all_reduce(stacked)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return {name: (largest if name.endswith("_max") else stacked)[place] for place, name in enumerate(stats)}


def gather(part: T) -> list[T]:
    """`part` of every process, in their order; tensors in it must be on the CPU."""
    if size() == 1:
        return [part]
    parts: list[Any] = [None] * size()
    dist.all_gather_object(parts, part)
    return parts


def cat(x: Tensor) -> Tensor:
    """`x [n]` of every process, one after the other, without gradient."""
    return x.detach() if size() == 1 else torch.cat(gather(x.detach().cpu())).to(x.device)


def fork(generator: torch.Generator) -> torch.Generator:
    """A generator for draws that differ between processes; moves `generator` alike in all. Alone: itself."""
    if size() == 1:
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    return torch.Generator(generator.device).manual_seed(seed + rank())


def barrier() -> None:
    """Wait for all processes."""
    gather(None)


def same_weights(module: nn.Module) -> None:
    """Give every process the first one's weights."""
    for value in (*module.parameters(), *module.buffers()) if size() > 1 else ():
        dist.broadcast(value.detach(), 0)


def spread(module: nn.Module, how: str, *methods: str, layers: Sequence[str] = ()) -> None:
    """Make the trained `module` that of all processes, in place.

    "ddp": every process keeps the weights of the first. "fsdp2": weights, gradients and optimizer states are
    sharded, a group for every layer (a module of a class in `layers`) and one for the rest; `methods` are
    the module's entries besides `forward`. Make its optimizer afterwards.
    """
    same_weights(module)
    if size() == 1 or how == "ddp":
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(next(module.parameters()).device.type, (size(),))
    for part in [*(m for m in module.modules() if type(m).__name__ in layers), module]:
        sharded = fully_shard(part, mesh=mesh, reshard_after_forward=True)
        sharded.set_gradient_divide_factor(1.0)  # gradients are summed
        sharded.set_force_sum_reduction_for_comms(True)
    for name in methods:
        register_fsdp_forward_method(module, name)


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Hold a sharded module's weights whole on every process, to read them; nothing else needs it."""
    sharded: list[Any] = [part for part in module.modules() if hasattr(part, "unshard")]
    for part in sharded:
        part.unshard()
    try:
        yield
    finally:
        for part in sharded:
            part.reshard()


def clip_and_step(optimizer: Optimizer, max_norm: float) -> Tensor:
    """Sum gradients over all processes, clip, step; returns the gradient's norm before the clip, a scalar.

    Gradients of sharded weights have been summed in the backward pass.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if size() > 1:
        _sum_gradients([p for p in params if not _sharded(p)])
    norm = nn.utils.clip_grad_norm_(params, max_norm)
    optimizer.step()
    return full(norm)


def _sum_gradients(params: Sequence[Tensor]) -> None:
    """One collective for each dtype; a parameter that had no part in the loss has a gradient of 0."""
    for dtype in dict.fromkeys(p.dtype for p in params):
        own = [p for p in params if p.dtype == dtype]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in own])
        dist.all_reduce(flat)
        for p, grad in zip(own, torch.split(flat, [p.numel() for p in own]), strict=True):
            p.grad = grad.view_as(p)


def full(x: Tensor) -> Tensor:
    """A sharded tensor in one piece (every process must ask); any other as it is."""
    return x.full_tensor() if _sharded(x) else x  # type: ignore[attr-defined]


def cut_like(x: Any, like: Any) -> Any:
    """The whole tensor `x` sharded as `like` is; as it is where `like` is not, or is of another shape."""
    if not _sharded(like) or not isinstance(x, Tensor) or x.shape != like.shape:
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x, like.device_mesh, like.placements)


def _sharded(x: Tensor) -> bool:
    """Whether `x` is a DTensor; to import that class costs every script a second."""
    return hasattr(x, "full_tensor")
