"""One training run: directory, seeds, device, metrics, progress, checkpoints, resume, stop signals."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from rl_core import accelerate, checkpoint, config, distributed, provenance
from rl_core.config import choice, require
from rl_core.metrics import MetricLog
from rl_core.progress import bar, console

PAUSED = 3  # exit status of a run that paused itself

# Settings that may differ between the two halves of a resumed run: where, how long and how often, never what.
# A schedule over the run follows the new `run.steps`.
_MAY_CHANGE = {
    f"run.{name}"
    for name in ("dir", "resume", "steps", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints")
} | {"run.tensorboard", "run.wandb", "run.distributed"}


@dataclass(kw_only=True, slots=True)
class Config:
    """How a run is carried out; what is trained stands in the other groups."""

    dir: str = ""  # empty: the script names it after what is trained
    name: str = ""  # added to that name; a multirun puts here what it varies
    seed: int = 0
    steps: int = 100_000
    device: str = "auto"  # auto | cpu | cuda | cuda:1 ...
    threads: int = 0  # CPU threads of torch; 0 leaves torch's default
    log_every: int = 500
    eval_every: int = 10_000
    checkpoint_every: int = 10_000
    keep_checkpoints: int = 2
    resume: bool = False
    precision: str = "float32"  # float32 | bfloat16: matrix products under autocast
    compile: bool = False
    cuda_graphs: bool = False
    distributed: str = "ddp"  # ddp | fsdp2 (weights sharded): what several processes, under torchrun, do
    tensorboard: bool = True
    wandb: bool = False

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.steps >= 1, "run.steps", self.steps, "at least 1")
        require(self.seed >= 0, "run.seed", self.seed, "at least 0")
        require(self.threads >= 0, "run.threads", self.threads, "at least 0")
        for name in ("log_every", "eval_every", "checkpoint_every", "keep_checkpoints"):
            require(getattr(self, name) >= 1, f"run.{name}", getattr(self, name), "at least 1")
        choice("run.precision", self.precision, ["float32", "bfloat16"])
        choice("run.distributed", self.distributed, ["ddp", "fsdp2"])
        several = self.distributed == "ddp" or distributed.size() > 1
        require(several, "run.distributed", self.distributed, "ddp where torchrun has started one process")
        plain = distributed.size() == 1 or not (self.compile or self.cuda_graphs)
        require(plain, "run.compile, run.cuda_graphs", True, "false with several processes")


class Run:
    """Owns everything about a training run but the algorithm; use it as a context manager.

    `rng` (torch, on `device`) and `numpy_rng` are the run's only sources of randomness; both are in every
    checkpoint.
    """

    def __init__(
        self,
        cfg: Config,
        *,
        config: Any,
        default_dir: str = "runs/run",
        may_change: Sequence[str] = (),
        fixed: Sequence[str] = (),
        shared: bool = False,
    ) -> None:
        """Claim the directory; raises ValueError if it holds another run than this one.

        `config` is the whole configuration; `may_change` names keys, or groups of keys, that a resumed run
        may change because they decide nothing that is learned, `fixed` keys that it may not, though other
        runs may; `shared` says that what is trained shares its work between the processes of torchrun.
        """
        count = distributed.size()
        require(shared or count == 1, "WORLD_SIZE", count, "1: this trains in one process, without torchrun")
        self.cfg = cfg
        self.dir = directory(cfg, default_dir)
        self.device = pick_device(cfg.device)
        if cfg.cuda_graphs and self.device.type != "cuda":
            raise ValueError(f"run.cuda_graphs=True: needs a CUDA device, this run is on {self.device}")
        distributed.start(self.device)
        if cfg.threads:
            torch.set_num_threads(cfg.threads)
        # for what users' own networks, and dropout, draw from the global generator
        torch.manual_seed(cfg.seed + distributed.rank())
        self.rng = torch.Generator(self.device).manual_seed(cfg.seed)
        self.numpy_rng = np.random.default_rng(cfg.seed)
        self._claim(config, _MAY_CHANGE.union(may_change).difference(fixed))
        self.metrics = MetricLog(self.dir, config=config, tensorboard=cfg.tensorboard, wandb=cfg.wandb)
        self._stop: signal.Signals | None = None
        self._paused = ""

    def __enter__(self) -> Self:
        """Nothing to open: the constructor has done it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the metric files."""
        self.metrics.close()

    def steps(self, agent: nn.Module, **stateful: checkpoint.Stateful) -> Iterator[int]:
        """Yield the steps that are left, 1 to `cfg.steps`; the loop body is one update.

        Restores the newest intact checkpoint when resuming, and saves `agent` (with its optimizers and
        schedules, see `checkpoint.parts`), `stateful` and the generators every `checkpoint_every` steps, at
        the end and when told to stop.
        """
        objects = self._objects(agent, stateful)
        done = self._restore(objects)
        with self._stoppable(), bar() as progress:
            task = progress.add_task("training", total=self.cfg.steps, completed=done, note="")
            for step in range(done + 1, self.cfg.steps + 1):
                yield step
                self._agree_to_stop()
                last = step == self.cfg.steps or self._stop is not None or bool(self._paused)
                if last or step % self.cfg.log_every == 0 or self.should_eval(step):
                    progress.update(task, completed=step, note=self.metrics.flush())
                if last or step % self.cfg.checkpoint_every == 0:
                    self._save(step, agent, objects)
                if self._paused:
                    self._record_pause(step)
                    if step < self.cfg.steps:
                        raise SystemExit(PAUSED)
                if self._stop is not None:
                    self._exit(step)

    def log(self, step: int, values: Mapping[str, Tensor | float], group: str = "train") -> None:
        """Record `values` as `group/name`; tensors stay on the device until a row is written."""
        self.metrics.add(step, values, group)

    def write(self, name: str, tree: Mapping[str, Any]) -> None:
        """Write `tree` as JSON into the run's directory; of several processes the first one does."""
        if distributed.rank() == 0:
            (self.dir / name).write_text(json.dumps(tree, indent=1) + "\n")

    def pause(self, reason: str) -> None:
        """End after this step, with a checkpoint and `reason` in `pauses.jsonl`; the run can be resumed."""
        self._paused = reason

    def should_eval(self, step: int) -> bool:
        """Whether to evaluate after `step`: every `eval_every` steps and at the end."""
        return step % self.cfg.eval_every == 0 or step == self.cfg.steps

    def accelerate(self, update: accelerate.Update) -> accelerate.Update:
        """Wrap an update in bf16 autocast, torch.compile and a CUDA graph, as the configuration asks."""
        if self.cfg.precision == "bfloat16":
            update = accelerate.autocast(update, self.device, torch.bfloat16)
        if self.cfg.compile:
            update = torch.compile(update)
        if self.cfg.cuda_graphs:
            update = accelerate.CudaGraph(update)
        return update

    def _objects(
        self, agent: nn.Module, stateful: dict[str, checkpoint.Stateful]
    ) -> dict[str, checkpoint.Stateful]:
        generators: dict[str, checkpoint.Stateful] = {
            "rng": _TorchRng(self.rng),
            "numpy_rng": _NumpyRng(self.numpy_rng),
            "global_rng": _GlobalRng(),
        }
        return {**checkpoint.parts("agent", agent), **stateful, **generators}

    def _restore(self, objects: dict[str, checkpoint.Stateful]) -> int:
        if not self.cfg.resume:
            self.metrics.rewind(-1)
            return 0
        step = checkpoint.load_latest(self.dir / "checkpoints", objects, self.device) or 0
        self.metrics.rewind(step or -1)  # from the start: what is evaluated before step 1 comes again too
        console.print(
            f"resumed {self.dir} after step {step}" if step else f"{self.dir}: no checkpoint yet, from step 1"
        )
        return step

    def _save(self, step: int, agent: nn.Module, objects: dict[str, checkpoint.Stateful]) -> None:
        self.metrics.flush()
        for name, value in agent.named_parameters():
            if not torch.isfinite(distributed.full(value)).all():
                raise FloatingPointError(
                    f"step {step}: parameter {name} is not finite; checkpoints before it are kept"
                )
        try:
            checkpoint.save(self.dir / "checkpoints", step, objects, self.cfg.keep_checkpoints)
        except OSError as error:
            raise OSError(
                error.errno,
                f"step {step}: the checkpoint could not be written to {self.dir} ({error.strerror}); "
                "the one before it is intact: make room and continue with run.resume=true",
            ) from error

    def _agree_to_stop(self) -> None:
        """A signal reaches the processes at different steps: whoever has one, all stop."""
        if distributed.size() > 1:
            signals = [number for number in distributed.gather(self._stop) if number is not None]
            self._stop = signals[0] if signals else None

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM while training: the step in progress ends and a checkpoint is written."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop = signal.Signals(number)
            signal.signal(number, before[self._stop])  # a second signal acts at once

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _record_pause(self, step: int) -> None:
        if distributed.rank() == 0:
            with (self.dir / "pauses.jsonl").open("a") as stream:
                stream.write(json.dumps({"step": step, "reason": self._paused}) + "\n")
        console.print(f"paused after step {step}: {self._paused}; run.resume=true continues from it")

    def _exit(self, step: int) -> None:
        assert self._stop is not None
        console.print(
            f"{self._stop.name}: stopped after step {step}, checkpoint written; "
            "run.resume=true continues from it"
        )
        raise SystemExit(128 + self._stop.value)

    def _claim(self, config_: Any, may_change: set[str]) -> None:
        """Let the first process claim the directory, and all hear what it found."""
        mistake: ValueError | None = None
        if distributed.rank() == 0:
            try:
                self._claim_directory(config_, may_change)
            except ValueError as error:
                mistake = error
        mistake = distributed.gather(mistake)[0]
        if mistake is not None:
            raise mistake

    def _claim_directory(self, config_: Any, may_change: set[str]) -> None:
        """Create the directory, or check that it holds the run that is to be resumed."""
        file = self.dir / "config.yaml"
        ours = OmegaConf.create(config.to_yaml(config_))
        origin = provenance.collect(sys.argv)
        if file.exists() and (self.cfg.resume or self._has_begun()):
            saved = OmegaConf.load(file)
            differing = sorted(key for key in _differences(ours, saved) if not _covers(may_change, key))
            if differing:
                raise ValueError(
                    f"run.dir={self.dir}: holds a run with another configuration "
                    f"({', '.join(differing)} differ); choose another run.dir"
                )
            if not self.cfg.resume and any((self.dir / "checkpoints").glob("step_*")):
                raise ValueError(
                    f"run.dir={self.dir}: holds this run already; continue it with run.resume=true, "
                    "or choose another run.dir"
                )
            if self.cfg.resume:
                tree: Any = OmegaConf.to_container(saved)
                first = tree["provenance"]
                origin = {**first, "resumed": [*first.get("resumed", []), origin]}
        elif self.cfg.resume:
            raise ValueError(f"run.dir={self.dir}: holds no run to resume")
        elif not file.exists() and self.dir.exists() and any(self.dir.iterdir()):
            raise ValueError(f"run.dir={self.dir}: is not empty and not a run; choose another run.dir")
        self.dir.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".writing")
        temporary.write_text(OmegaConf.to_yaml({"provenance": origin}) + OmegaConf.to_yaml(ours))
        temporary.replace(file)

    def _has_begun(self) -> bool:
        """Whether more than a start that failed (a path or a size that was wrong) is in the directory."""
        empty = {"config.yaml", "tensorboard", "checkpoints"}
        found = {path.name for path in self.dir.iterdir()}
        return not found <= empty or any((self.dir / "checkpoints").glob("step_*"))


def directory(cfg: Config, default: str) -> Path:
    """Where a run's files stand: `dir` as it is, or the default with the run's name."""
    return Path(cfg.dir or "-".join(filter(None, [default, cfg.name])))


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is CUDA where there is one."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"run.device={name!r}: must be auto, cpu or cuda[:index]") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"run.device={name!r}: no CUDA device is available; use run.device=cpu")
    return device


def _differences(ours: Any, saved: Any) -> set[str]:
    """Dotted keys at which two configurations differ, where the saved one came from apart."""
    a, b = (dict(_leaves(OmegaConf.to_container(tree), "")) for tree in (ours, saved))
    return {
        key for key in a.keys() | b.keys() if a.get(key) != b.get(key) and not key.startswith("provenance.")
    }


def _covers(names: set[str], key: str) -> bool:
    """Whether `key` or a group it belongs to is among `names`."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


class _TorchRng:
    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def state_dict(self) -> dict[str, Any]:
        return {"state": self._generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._generator.set_state(state_dict["state"].cpu())


class _NumpyRng:
    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def state_dict(self) -> dict[str, Any]:
        return dict(self._generator.bit_generator.state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._generator.bit_generator.state = state_dict


class _GlobalRng:
    """The global torch generators, which dropout cannot help drawing from; each process has its own."""

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"processes": distributed.gather({"cpu": torch.get_rng_state(), "cuda": cuda})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        states = state_dict["processes"]
        state_dict = states[distributed.rank() % len(states)]
        torch.set_rng_state(state_dict["cpu"].cpu())
        if state_dict["cuda"]:
            torch.cuda.set_rng_state_all([state.cpu() for state in state_dict["cuda"]])
