"""Checkpoints without pickle: all moving parts in one safetensors and one JSON file, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from rl_core import distributed

_TENSORS, _TREE = "tensors.safetensors", "state.json"


@runtime_checkable
class Stateful(Protocol):
    """Anything whose state moves during training: modules, optimizers, schedulers, normalisers, samplers."""

    def state_dict(self) -> dict[str, Any]:
        """Return nested dicts, lists and tuples of tensors and JSON scalars."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take back what `state_dict` returned."""
        ...


def parts(name: str, owner: object) -> dict[str, Stateful]:
    """Name every moving part of `owner`.

    The owner itself if it is stateful (a module brings its submodules and buffers along), and whatever is
    stateful but not a module among the attributes of the owner and its submodules, also in lists, tuples and
    dicts: optimizers, schedulers, controllers.
    """
    found: dict[str, Stateful] = {name: owner} if isinstance(owner, Stateful) else {}
    modules = owner.named_modules(prefix=name) if isinstance(owner, nn.Module) else [(name, owner)]
    for path, module in modules:
        for key, value in vars(module).items():
            if not key.startswith("_"):
                found.update(_stateful(f"{path}.{key}", value))
    return found


def _stateful(path: str, value: object) -> Iterator[tuple[str, Stateful]]:
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _stateful(f"{path}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _stateful(f"{path}.{key}", item)
    elif isinstance(value, Stateful) and not isinstance(value, nn.Module):
        yield path, value


def save(directory: Path, step: int, objects: Mapping[str, Stateful], keep: int = 2) -> Path:
    """Write `directory/step_<step>` holding the state of `objects`; older checkpoints beyond `keep` go.

    The files are written under a temporary name, flushed to the disk and renamed, so a checkpoint is there
    whole or not at all. Of several processes all take part, and the first one writes. Raises OSError (disk
    full, no permission) with the earlier checkpoints untouched.
    """
    tensors: dict[str, Tensor] = {}
    tree = {name: _pack(obj.state_dict(), name, tensors) for name, obj in objects.items()}
    target = directory / f"step_{step:09d}"
    if distributed.rank() == 0:
        _write(target, step, tree, tensors)
        others = [path for path in _complete(directory) if path != target]
        for old in others[: len(others) - keep + 1]:
            shutil.rmtree(old)
    distributed.barrier()
    return target


def _write(target: Path, step: int, tree: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    directory = target.parent
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".writing_{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        save_file(tensors, temporary / _TENSORS)
        head = {"step": step, "digest": _digest(temporary / _TENSORS, tree), "state": tree}
        (temporary / _TREE).write_text(json.dumps(head))
        for file in (temporary / _TENSORS, temporary / _TREE, temporary):
            _flush(file)
        shutil.rmtree(target, ignore_errors=True)  # a step saved again after a resume
        temporary.rename(target)
        _flush(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load_latest(
    directory: Path, objects: Mapping[str, Stateful], map_location: torch.device | str = "cpu"
) -> int | None:
    """Restore `objects` from the newest intact checkpoint and return its step, or None if there is none.

    A damaged checkpoint is reported with a warning, removed once the one before it is restored. Raises
    ValueError if all are damaged, or if the checkpoint holds other parts than `objects`.
    """
    damaged: list[Path] = []
    for checkpoint in reversed(_complete(directory)):
        try:
            step, state = _read(checkpoint, map_location)
        except ValueError as error:
            warnings.warn(f"{error}; trying the checkpoint before it", RuntimeWarning, stacklevel=2)
            damaged.append(checkpoint)
            continue
        if state.keys() != objects.keys():
            raise ValueError(
                f"checkpoint {checkpoint} holds {sorted(state)}, this run trains {sorted(objects)}: "
                "it belongs to another configuration"
            )
        for name, obj in objects.items():
            obj.load_state_dict(_sharded(obj, state[name]))
        distributed.barrier()
        for path in damaged if distributed.rank() == 0 else ():
            shutil.rmtree(path)
        return step
    if damaged:
        raise ValueError(f"{directory}: every checkpoint is damaged, nothing can be resumed from it")
    return None


def read_latest(directory: Path, map_location: torch.device | str = "cpu") -> dict[str, dict[str, Any]]:
    """State of every part in the newest checkpoint, for another run to begin with.

    Raises ValueError if there is none, or if it is damaged.
    """
    complete = _complete(directory)
    if not complete:
        raise ValueError(f"{directory}: holds no checkpoint")
    return _read(complete[-1], map_location)[1]


def _sharded(obj: Stateful, state: dict[str, Any]) -> dict[str, Any]:
    """`state` with its tensors cut into shards where those of `obj` are."""
    if isinstance(obj, nn.Module):
        present = obj.state_dict()
        return {name: distributed.cut_like(value, present.get(name)) for name, value in state.items()}
    if isinstance(obj, Optimizer):
        params = [p for group in obj.param_groups for p in group["params"]]
        moments = {
            number: {name: distributed.cut_like(value, params[number]) for name, value in own.items()}
            for number, own in state["state"].items()
        }
        return {**state, "state": moments}
    return state


def _complete(directory: Path) -> list[Path]:
    return sorted(directory.glob("step_*"))


def _read(checkpoint: Path, map_location: torch.device | str) -> tuple[int, dict[str, Any]]:
    try:
        head = json.loads((checkpoint / _TREE).read_text())
        if _digest(checkpoint / _TENSORS, head["state"]) != head["digest"]:
            raise ValueError("its contents do not match their checksum")
        tensors = load_file(checkpoint / _TENSORS, device=str(map_location))
        return head["step"], {name: _unpack(tree, tensors) for name, tree in head["state"].items()}
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ValueError(f"checkpoint {checkpoint} is damaged ({error})") from error


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by references into `tensors`; mark tuples and pairs, which JSON does not have."""
    if isinstance(value, Tensor):
        # a copy, because safetensors refuses tensors that share memory (tied weights)
        tensors[path] = distributed.full(value.detach()).to("cpu", copy=True).contiguous()
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {"items": [[key, _pack(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_pack(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"checkpoint: {path} is a {type(value).__name__}; state must be tensors and JSON scalars")


def _unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "items":
        return {key: _unpack(item, tensors) for key, item in value}
    items = [_unpack(item, tensors) for item in value]
    return tuple(items) if kind == "tuple" else items


def _digest(file: Path, tree: Any) -> str:
    """Checksum of the tensors and of the tree that refers to them."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "blake2b")
    digest.update(json.dumps(tree).encode())
    return digest.hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
