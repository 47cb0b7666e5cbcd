"""Every script as a user runs it: two steps on data made here, and the mistakes that users make."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from rl_core import config

ROOT = Path(__file__).resolve().parents[2]
DATASET = "desk/lift_block/tiny-v0"
QUICK = ["run.steps=2", "run.threads=1", "eval.episodes=2", "eval.curve_episodes=1", "eval.videos=0"]


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def groups(module: ModuleType) -> dict[str, dict[str, type]]:
    if hasattr(module, "ALGORITHMS"):
        return {"algo": {name: algorithm.Config for name, algorithm in module.ALGORITHMS.items()}}
    return {}


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=240)


def call_script(name: str, *arguments: str) -> None:
    """Run a script in this process, which spares its imports."""
    module = load_script(name)
    config.main(name, module.Config, groups(module), module.main, arguments)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    call_script("collect_demos", f"data.id={DATASET}", f"data.root={root}", "episodes=4", "noise=[0,0.3]")
    return root


def test_collect_demos_records_what_minari_reads(datasets: Path, monkeypatch: pytest.MonkeyPatch):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    dataset = minari.load_dataset(DATASET)
    assert dataset.total_episodes == 4
    assert dataset.recover_environment().spec.id == "embodied/Desk-v0"


@pytest.mark.parametrize("algo", ["bc", "td3_bc", "iql", "cql"])
def test_train_offline_runs_every_algorithm(datasets: Path, tmp_path: Path, algo: str):
    arguments = [f"algo={algo}", f"data.id={DATASET}", f"data.root={datasets}", f"run.dir={tmp_path / 'run'}"]
    call_script("train_offline", *arguments, *QUICK)
    run = tmp_path / "run"
    assert (run / "policy" / "model.safetensors").exists()
    assert json.loads((run / "eval.json").read_text())["overall"]["n_episodes"] == 2
    assert "data:" in (run / "config.yaml").read_text()
    assert (run / "report.html").stat().st_size > 1000
    call_script("evaluate", f"policy={run}", f"out={tmp_path / 'again'}", *QUICK[2:])
    assert (tmp_path / "again" / "eval.json").exists()


def test_evaluate_runs_the_expert(tmp_path: Path):
    result = run_script(
        "evaluate",
        "policy=expert",
        "env.task=place_block",
        f"out={tmp_path}",
        "eval.episodes=2",
        "eval.videos=1",
    )
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 1
    assert json.loads((tmp_path / "eval.json").read_text())["overall"]["pc_success"] == 100.0


def test_import_dataset_reads_the_door_demonstrations(tmp_path: Path):
    demos = ROOT.parent / "shared" / "data" / "adroit-door-human" / "demos.npz"
    if not demos.exists():
        pytest.skip(f"the door demonstrations are not at {demos}")
    call_script(
        "import_dataset", "format=door", f"path={demos}", "data.id=door/human-v0", f"data.root={tmp_path}"
    )
    arguments = ["algo=bc", "data.id=door/human-v0", f"data.root={tmp_path}", f"run.dir={tmp_path / 'run'}"]
    call_script("train_offline", *arguments, *QUICK)
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["overall"]["normalized_score"] is not None


def test_bench_names_what_there_is():
    result = run_script("bench", "gea")
    assert result.returncode == 2
    assert "gae" in result.stderr


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def literal(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(literal(item) for item in value) + "]"
    if isinstance(value, str):
        return f"'{value}'"
    return "null" if value is None else str(value)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [(s, [f"algo={a}", "data.id=x/y-v0"]) for s in ["train_offline"] for a in ["bc", "td3_bc", "iql", "cql"]]
    + [
        ("collect_demos", ["data.id=x/y-v0"]),
        ("evaluate", ["policy=expert"]),
        ("import_dataset", ["format=d4rl", "path=x", "data.id=x/y-v0"]),
    ],
)
def test_every_key_round_trips(script: str, arguments: list[str]):
    """What `config.yaml` says, given back on the command line, is the same configuration."""
    module = load_script(script)
    first = config.parse(script, module.Config, groups(module), arguments)
    tree = OmegaConf.to_container(OmegaConf.create(config.to_yaml(first)))
    again = [f"{key}={literal(value)}" for key, value in leaves(tree)]
    assert config.parse(script, module.Config, groups(module), [*arguments[:1], *again]) == first


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "experiment").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_recipe_composes(path: Path):
    module = load_script("train_offline")
    arguments = [f"+experiment={path.stem}", "data.id=x/y-v0"]
    config.parse("train_offline", module.Config, groups(module), arguments)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_offline", ["data.id=desk/lift_block/tny-v0"], "did you mean 'desk/lift_block/tiny-v0'"),
        ("train_offline", [f"data.id={DATASET}", "algo.expectle=0.9"], "did you mean 'algo.expectile'"),
        (
            "train_offline",
            [f"data.id={DATASET}", "algo.expectile=1.5"],
            "algo.expectile=1.5: must be in (0, 1)",
        ),
        ("train_offline", ["algo=iql"], "data.id"),
        ("collect_demos", ["data.id=nonsense"], "expected namespace/name-v0"),
        ("collect_demos", ["data.id=x/yy-v0", "policy=nowhere"], "policy='nowhere'"),
        ("collect_demos", ["data.id=x/yy-v0", "env.id=Hoper-v5", "policy=m.zip"], "m.zip"),
        ("evaluate", ["policy=expert", "env.task=lift_blok"], "lift_block"),
        ("import_dataset", ["format=dorr", "path=x", "data.id=x/yy-v0"], "did you mean 'door'"),
        (
            "import_dataset",
            ["format=door", "path=nowhere.npz", "data.id=x/yy-v0"],
            "must be an existing file",
        ),
    ],
)
def test_a_mistake_gets_a_sentence(
    datasets: Path, capsys: pytest.CaptureFixture[str], script: str, arguments: list[str], message: str
):
    if script == "train_offline":
        arguments = [*arguments, f"data.root={datasets}"]
    with pytest.raises(SystemExit) as exit_info:
        call_script(script, *arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_an_interrupted_training_resumes_to_the_same_policy(datasets: Path, tmp_path: Path):
    def command(directory: Path) -> list[str]:
        quick = [option for option in QUICK if not option.startswith("run.steps")]
        settings = ["run.steps=400", "run.log_every=1", "run.eval_every=400", f"run.dir={directory}", *quick]
        return [f"data.id={DATASET}", f"data.root={datasets}", "algo.hidden=[16]", *settings]

    call_script("train_offline", *command(tmp_path / "whole"))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train_offline.py"), *command(tmp_path / "parts")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = tmp_path / "parts" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, error
    assert "run.resume=true" in error
    call_script("train_offline", *command(tmp_path / "parts"), "run.resume=true")
    whole, parts = (
        (tmp_path / name / "policy" / "model.safetensors").read_bytes() for name in ("whole", "parts")
    )
    assert whole == parts
