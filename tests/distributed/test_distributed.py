"""Two gloo processes give the numbers of one: every loop, DDP and FSDP2, metrics, resume, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm_align.models.adapters import Lora, add_lora
from llm_align.models.parallel import distribute
from llm_align.offline import dpo
from rl_core import distributed, run
from tests.distributed import cases

ROOT = Path(__file__).resolve().parents[2]
# a minute on two idle cores, most of it the start of three pairs of processes
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def torchrun(*command: str, count: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, two of them cut after two steps, and what two processes made of the same."""
    root = tmp_path_factory.mktemp("distributed")
    for mode in cases.MODES:
        for name in ("dpo", "grpo"):
            cases.CASES[name](cases.settings(root / "begun" / f"{mode}-{name}", steps=2))
    done = torchrun(str(ROOT / "tests/distributed/cases.py"), str(root))
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, torch.Tensor], Path]]:
    root = tmp_path_factory.mktemp("alone")
    return {
        name: (cases.weights(train(cases.settings(root / name))), root / name)
        for name, train in cases.CASES.items()
    }


def rows(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: x for name, x in json.loads(line).items() if name != "time"} for line in lines]


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("mode", "name"), cases.RUNS)
def test_two_processes_learn_what_one_does(folder: Path, alone, mode: str, name: str):
    weights, single = alone[name]
    assert_same(load_file(folder / f"{mode}-{name}.safetensors"), weights)
    found, expected = rows(folder / mode / name), rows(single)
    assert len(found) == len(expected) == 3  # the first process alone has written them
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("mode", cases.MODES)
@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_a_run_goes_on_in_another_number_of_processes(
    folder: Path, alone, mode: str, name: str, tmp_path: Path
):
    """One process began it and two went on; two began it and one goes on."""
    assert_same(load_file(folder / f"{mode}-{name}-resumed.safetensors"), alone[name][0])
    train = cases.CASES[name]
    on = cases.weights(train(cases.settings(folder / mode / name, steps=4, resume=True)))
    assert_same(on, cases.weights(train(cases.settings(tmp_path, steps=4))))


def test_a_script_under_torchrun(tmp_path: Path):
    """The command line, a directory that is taken (said by all processes), and a script that cannot share."""
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"What is {n}?", "chosen": f" It is {n}.", "rejected": " No."} for n in range(20)]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    small = "{hidden_size:16,num_layers:1,num_heads:2,num_kv_heads:1,vocab_size:300,max_length:64}"
    arguments = [
        "scripts/align_offline.py", "algo=dpo", "algo.cache=", f"data.source={pairs}", "data.max_length=64",
        f"model.scratch={small}", "run.steps=2", "run.device=cpu", "run.tensorboard=false",
        "run.distributed=fsdp2", f"run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    done = torchrun(*arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 0 <= json.loads((tmp_path / "run" / "eval.json").read_text())["overall"]["accuracy"] <= 1
    assert done.stderr.count("model: ") == 1
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    again = torchrun(*arguments)
    assert again.returncode != 0
    assert again.stderr.count("holds this run already") == 2


def test_an_online_script_under_torchrun(tmp_path: Path):
    """Each process draws its share, the first writes; the loss is one number."""
    prompts, reward = tmp_path / "prompts.jsonl", tmp_path / "mine.py"
    prompts.write_text("\n".join(json.dumps({"prompt": f"What is {n}?"}) for n in range(6)))
    reward.write_text(
        "def vowels(completions):\n    return [sum(c in 'aeiou' for c in t) for t in completions]\n"
    )
    policy, tokenizer = cases.policy(), cases.byte_tokenizer()
    for part in (policy, tokenizer):
        part.save_pretrained(tmp_path / "model")
    done = torchrun(
        "scripts/align_online.py", "algo=grpo", f"model.name={tmp_path / 'model'}", f"data.source={prompts}",
        "data.held_out=0.3", "data.max_length=32", f"rewards.functions=['{reward}:vowels']",
        "rollout.prompts=2", "rollout.group_size=2", "rollout.max_new_tokens=8", "run.steps=2",
        "run.log_every=1", "run.device=cpu", "run.tensorboard=false", f"run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2]
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")


def test_the_share_of_an_idle_process_weighs_nothing(second_of_two: None):
    assert distributed.share([1, 2, 3]) == ([2, 3], 1.0)
    assert distributed.share([1, 2]) == ([2], 1.0)
    assert distributed.share([1]) == ([1], 1.0)
    rows, weight = distributed.share(torch.arange(4))
    assert rows.tolist() == [2, 3]
    assert weight == 1.0


def test_an_idle_first_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert distributed.share([7]) == ([7], 0.0)


def test_what_cannot_be_shared_is_refused(second_of_two: None, tmp_path: Path):
    with pytest.raises(ValueError, match="WORLD_SIZE=2: must be 1"):
        run.Run(cases.settings(tmp_path), config=None)
    with pytest.raises(ValueError, match="data.batch_size=1: must be at least the 2 processes"):
        cases.Batches(cases.pairs(), cases.Data(source="x", batch_size=1), seed=0)
    with pytest.raises(ValueError, match="2 or more examples"):
        cases.Batches(cases.pairs(1), cases.Data(source="x"), seed=0)
    with pytest.raises(ValueError, match="run.compile"):
        run.Config(compile=True)


def test_algorithms_that_cannot_be_shared_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings, policy = cases.settings(tmp_path), cases.policy()
    with run.Run(settings, config=cases.Root(run=settings)) as own, monkeypatch.context() as two:
        two.setenv("WORLD_SIZE", "2")
        own.cfg.distributed = "fsdp2"
        with pytest.raises(ValueError, match=r"run\.distributed='fsdp2': must be ddp with algo\.sync"):
            dpo.train(dpo.MEMBERS["tr_dpo"], policy, None, None, own)
        with pytest.raises(ValueError, match="ddp with adapters"):
            distribute(add_lora(policy, Lora(rank=2)), "fsdp2")


def test_one_process_has_nothing_to_shard():
    with pytest.raises(ValueError, match="run.distributed='fsdp2': must be ddp where torchrun"):
        run.Config(distributed="fsdp2")
    with pytest.raises(ValueError, match="did you mean 'fsdp2'"):
        run.Config(distributed="fsdp")
