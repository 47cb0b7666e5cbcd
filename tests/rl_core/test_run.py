import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from rl_core import checkpoint
from rl_core import run as run_module
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Root:
    lr: float = 0.1
    run: run_module.Config = field(default_factory=run_module.Config)


class Agent(nn.Module):
    """Random walks its weights: the state depends on every generator the run owns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.optimizer = torch.optim.Adam([self.weight], lr=0.1)

    def train_step(self, run: Run) -> Tensor:
        noise = torch.randn(4, generator=run.rng) + run.numpy_rng.normal() + torch.rand(4)
        loss = (self.weight - noise).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


def config(directory: Path, **changes: object) -> Root:
    settings = {"dir": str(directory), "steps": 4, "log_every": 1, "checkpoint_every": 2, "eval_every": 2}
    return Root(run=run_module.Config(**(settings | {"tensorboard": False} | changes)))


def train(root: Root, stop_after: int | None = None, number: signal.Signals = signal.SIGTERM) -> Agent:
    with Run(root.run, config=root) as run:
        agent = Agent()
        for step in run.steps(agent):
            run.log(step, {"loss": agent.train_step(run)})
            if step == stop_after:
                os.kill(os.getpid(), number)
    return agent


def rows(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_same_seed_same_numbers_and_another_seed_others(tmp_path: Path):
    first, second = (train(config(tmp_path / name)) for name in "ab")
    other = train(config(tmp_path / "c", seed=1))
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_stopped_and_resumed_is_bit_for_bit_the_uninterrupted_run(
    tmp_path: Path, stop: int, number: signal.Signals
):
    whole = train(config(tmp_path / "whole"))
    with pytest.raises(SystemExit) as exit_info:
        train(config(tmp_path / "parts"), stop, number)
    assert exit_info.value.code == 128 + number
    resumed = train(config(tmp_path / "parts", resume=True))
    assert torch.equal(whole.weight, resumed.weight)
    whole_rows, part_rows = (
        [{k: v for k, v in row.items() if k != "time"} for row in rows(tmp_path / name)]
        for name in ("whole", "parts")
    )
    assert whole_rows == part_rows


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C raises, also where the shell started the tests in the background and had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_outside_the_steps_signals_act_as_usual(tmp_path: Path):
    root = config(tmp_path)
    with pytest.raises(KeyboardInterrupt), Run(root.run, config=root):
        signal.raise_signal(signal.SIGINT)


def test_a_row_cut_short_by_a_kill_does_not_stop_the_resume(tmp_path: Path):
    train(config(tmp_path))
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "ti')
    train(config(tmp_path, resume=True, steps=6))
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_resuming_what_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no run to resume"):
        train(config(tmp_path / "mistyped", resume=True))


def test_a_resumed_run_keeps_its_first_command(tmp_path: Path):
    train(config(tmp_path))
    first = OmegaConf.load(tmp_path / "config.yaml").provenance
    train(config(tmp_path, resume=True, steps=5))
    now = OmegaConf.load(tmp_path / "config.yaml").provenance
    assert now.command == first.command
    assert len(now.resumed) == 1


def test_a_disk_that_fills_up_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    train(config(tmp_path))
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"step 6: .*the one before it is intact: .*run\.resume=true"):
        train(config(tmp_path, resume=True, steps=6))
    monkeypatch.undo()
    assert torch.equal(
        train(config(tmp_path, resume=True, steps=6)).weight,
        train(config(tmp_path / "whole", steps=6)).weight,
    )


def test_rows_after_the_checkpoint_are_written_once(tmp_path: Path):
    train(config(tmp_path))
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "time": 1.0}\n')  # a crash between a log row and the next checkpoint
    train(config(tmp_path, resume=True, steps=6))
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("resume", [False, True])
def test_cut_before_the_first_checkpoint_all_rows_are_written_once(tmp_path: Path, resume: bool):
    """Also those of an evaluation before the first step, which stand at step 0."""

    def loop(run: Run, fail_at: int) -> None:
        for step in run.steps(Agent()):
            if step == 1:
                run.log(0, {"success": 0.5}, group="eval")
                run.metrics.flush()
            if step == fail_at:
                raise RuntimeError("power cut")
            run.log(step, {"loss": 1.0})

    root = config(tmp_path)
    with Run(root.run, config=root) as run, pytest.raises(RuntimeError, match="power cut"):
        loop(run, 2)
    root = config(tmp_path, resume=resume)
    with Run(root.run, config=root) as run:
        loop(run, 0)
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2, 3, 4]


def test_metrics_are_means_over_the_steps_between_two_rows(tmp_path: Path):
    root = config(tmp_path, log_every=2)
    with Run(root.run, config=root) as run:
        for step in run.steps(Agent()):
            run.log(step, {"loss": torch.tensor(float(step)), "lr": 0.5})
    assert [row["train/loss"] for row in rows(tmp_path)] == [1.5, 3.5]
    assert rows(tmp_path)[0]["train/lr"] == 0.5


def test_a_nan_loss_stops_the_run_before_its_checkpoint(tmp_path: Path):
    root = config(tmp_path)

    def loop(run: Run) -> None:
        for step in run.steps(Agent()):
            run.log(step, {"loss": torch.tensor(float("nan") if step == 4 else 0.0)})

    with Run(root.run, config=root) as run, pytest.raises(FloatingPointError, match=r"step 4: train/loss"):
        loop(run)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000000002"]


def test_nan_parameters_never_reach_a_checkpoint(tmp_path: Path):
    root = config(tmp_path)

    def loop(run: Run, agent: Agent) -> None:
        for _ in run.steps(agent):
            agent.weight.data.fill_(float("inf"))

    with Run(root.run, config=root) as run, pytest.raises(FloatingPointError, match="parameter weight"):
        loop(run, Agent())
    assert not any((tmp_path / "checkpoints").glob("step_*"))


def test_a_directory_with_another_configuration_is_refused(tmp_path: Path):
    train(config(tmp_path))
    changed = config(tmp_path, resume=True)
    changed.lr = 0.2
    with pytest.raises(ValueError, match=r"another configuration \(lr differ\)"):
        train(changed)


def test_what_decides_what_is_learnt_may_not_change_on_resume(tmp_path: Path):
    def go(**changes: object) -> None:
        root = config(tmp_path, **changes)
        with Run(root.run, config=root, fixed=("run.checkpoint_every",)) as run:
            for _ in run.steps(Agent()):
                pass

    go()
    with pytest.raises(ValueError, match=r"another configuration \(run.checkpoint_every differ\)"):
        go(resume=True, steps=6, checkpoint_every=3)
    go(resume=True, steps=6)  # what is not named may still change
    train(config(tmp_path, resume=True, steps=8, checkpoint_every=3))  # and so may it in another run


def test_a_start_that_failed_leaves_the_directory_free(tmp_path: Path):
    root = config(tmp_path)
    with pytest.raises(OSError, match="no such model"), Run(root.run, config=root):
        raise OSError("no such model")
    root.lr = 0.2
    train(root)
    assert "lr: 0.2" in (tmp_path / "config.yaml").read_text()


def test_a_finished_directory_is_not_overwritten(tmp_path: Path):
    train(config(tmp_path))
    with pytest.raises(ValueError, match=r"run\.resume=true"):
        train(config(tmp_path))


def test_a_foreign_directory_is_refused(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty and not a run"):
        train(config(tmp_path))


def test_config_yaml_names_command_and_versions(tmp_path: Path):
    train(config(tmp_path))
    text = (tmp_path / "config.yaml").read_text()
    assert "command:" in text
    assert "torch:" in text
    assert "lr: 0.1" in text


@pytest.mark.parametrize(
    ("field_name", "value", "accepted"),
    [
        ("steps", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("precision", "bf16", "one of float32, bfloat16"),
    ],
)
def test_out_of_range_settings_are_named(field_name: str, value: object, accepted: str):
    with pytest.raises(ValueError, match=rf"run\.{field_name}={value!r}: must be {accepted}"):
        run_module.Config(**{field_name: value})


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str):
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ValueError, match=r"run\.device="):
        run_module.pick_device(device)


def test_bfloat16_is_autocast_around_the_update(tmp_path: Path):
    root = config(tmp_path, precision="bfloat16")
    with Run(root.run, config=root) as run:
        product = run.accelerate(lambda a: {"product": a @ a})(torch.ones(2, 2))["product"]
    assert product.dtype == torch.bfloat16


def test_a_killed_process_resumes_from_its_last_checkpoint(tmp_path: Path):
    """SIGKILL cannot be caught: what is left on the disk must be enough."""
    program = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_run import Agent, Run, config
        from pathlib import Path
        root = config(Path({str(tmp_path / "killed")!r}))
        with Run(root.run, config=root) as run:
            agent = Agent()
            for step in run.steps(agent):
                run.log(step, {{"loss": agent.train_step(run)}})
                if step == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    resumed = train(config(tmp_path / "killed", resume=True))
    assert torch.equal(resumed.weight, train(config(tmp_path / "whole")).weight)
