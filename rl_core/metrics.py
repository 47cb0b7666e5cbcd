"""Metrics of a run: averaged on the device, guarded against NaN, written to JSONL and viewers."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl_core import distributed


class MetricLog:
    """Collects values between two flushes and writes their means as one row of `metrics.jsonl`.

    Of several processes, which all have the same values, the first one writes.
    """

    def __init__(
        self, directory: Path, *, config: Any, tensorboard: bool = False, wandb: bool = False
    ) -> None:
        self._file = directory / "metrics.jsonl"
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._step = 0
        self._start = time.monotonic()
        self._writes = distributed.rank() == 0
        self._writer = _tensorboard(directory) if tensorboard and self._writes else None
        self._wandb = _wandb(directory, config) if wandb and self._writes else None

    def add(self, step: int, values: Mapping[str, Tensor | float], group: str) -> None:
        """Add one observation of each value; tensors stay where they are, nothing waits for the device."""
        self._step = step
        for name, value in values.items():
            key = f"{group}/{name}"
            scalar = value.detach().float() if isinstance(value, Tensor) else torch.tensor(float(value))
            total = self._sums.get(key)
            self._sums[key] = scalar.clone() if total is None else total + scalar
            self._counts[key] = self._counts.get(key, 0) + 1

    def flush(self) -> str:
        """Write the means since the last flush under the latest step; return the first two as a short text.

        Raises FloatingPointError naming the metric when a training metric is not finite: as means over steps
        are taken, one bad step in between is seen too. Evaluation may be undefined (no reference score).
        """
        step = self._step
        if not self._sums:
            return ""
        keys = list(self._sums)
        row = dict(zip(keys, torch.stack([self._sums[key].cpu() for key in keys]).tolist(), strict=True))
        row = {key: total / self._counts[key] for key, total in row.items()}
        self._sums, self._counts = {}, {}
        bad = [key for key, value in row.items() if key.startswith("train/") and not math.isfinite(value)]
        if bad:
            raise FloatingPointError(
                f"step {step}: {', '.join(bad)} not finite since the last log; earlier checkpoints are kept. "
                "A lower learning rate, gradient clipping or run.precision=float32 may help"
            )
        record = {"step": step, "time": round(time.monotonic() - self._start, 3), **row}
        if self._writes:
            with self._file.open("a") as stream:
                stream.write(json.dumps(record) + "\n")
        if self._writer is not None:
            for key, value in row.items():
                self._writer.add_scalar(key, value, step)
        if self._wandb is not None:
            self._wandb.log(row, step=step)
        return "  ".join(f"{key.removeprefix('train/')} {value:.3g}" for key, value in list(row.items())[:2])

    def rewind(self, step: int) -> None:
        """Forget rows after `step`, and one cut short by a kill: the resumed run writes them again."""
        rows = rewind(self._file, step) if self._writes else []
        if rows:
            self._start = time.monotonic() - rows[-1]["time"]

    def close(self) -> None:
        """Flush and close the writers."""
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()


def rewind(file: Path, step: int) -> list[dict[str, Any]]:
    """Drop the rows after `step` from a JSONL whose rows have one; returns those that stay."""
    if not file.exists():
        return []
    rows = [row for line in file.read_text().splitlines() if (row := _parse(line))["step"] <= step]
    temporary = file.with_suffix(".writing")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    temporary.replace(file)
    return rows


def _parse(line: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return {"step": math.inf}  # the last line of a killed process
    return row


def _tensorboard(directory: Path) -> Any:
    from torch.utils.tensorboard import (
        SummaryWriter,
    )  # a second of import that scripts without a run do not pay

    return SummaryWriter(str(directory / "tensorboard"))


def _wandb(directory: Path, config: Any) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ValueError("run.wandb=True: needs the extra, `pip install 'embodied-align[wandb]'`") from error
    return wandb.init(project="embodied-align", dir=str(directory), config=dataclasses.asdict(config))
