"""Speed bolted on outside an update: bf16 autocast, torch.compile, CUDA graphs.

The eager path computes the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Update = Callable[..., dict[str, Tensor]]


def autocast(update: Update, device: torch.device, dtype: torch.dtype) -> Update:
    """Run `update` with matrix products in `dtype`; parameters, optimizers and reductions stay in float32."""

    def wrapped(*args: Any) -> dict[str, Tensor]:
        with torch.autocast(device.type, dtype):
            return update(*args)

    return wrapped


class CudaGraph:
    """Replay `update` as one CUDA graph, captured at the fourth call, with static tensor arguments.

    The update must have static shapes, no host reads, and optimizers built with `capturable=True`. Modules
    and configurations are taken as they were at the capture; tensors, also inside dataclasses and dicts,
    are copied in.
    """

    def __init__(self, update: Update, warmup: int = 3) -> None:
        self._update = update
        self._warmup = warmup
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._output: dict[str, Tensor] = {}

    def __call__(self, *args: Any) -> dict[str, Tensor]:
        """Run or replay the update; the returned tensors are copies, valid after the next call."""
        if self._warmup > 0:
            self._warmup -= 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                output = self._update(*args)
            torch.cuda.current_stream().wait_stream(self._stream)
            return output
        if self._graph is None:
            self._inputs = [tensor.clone() for tensor in _tensors(args)]
            static = _replace(args, iter(self._inputs))
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._output = self._update(*static)
        for static_input, tensor in zip(self._inputs, _tensors(args), strict=True):
            static_input.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return {name: value.clone() for name, value in self._output.items()}


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, dicts and dataclasses, in a fixed order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))


def _replace(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same structure with its tensors taken from `tensors`, in the order of `_tensors`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple | list):
        return type(value)([_replace(item, tensors) for item in value])
    if isinstance(value, Mapping):
        return {key: _replace(item, tensors) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: _replace(getattr(value, f.name), tensors) for f in dataclasses.fields(value) if f.init
        }
        return dataclasses.replace(value, **fields)
    return value
