"""Alignment as a user runs it: from a JSONL of preferences to models on the disk, and users' mistakes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from llm_align.feedback.trained import RewardModel
from llm_align.models.causal_lm import load_causal_lm
from rl_core import config

ROOT = Path(__file__).resolve().parents[2]
SMALL = "{hidden_size:32,num_layers:1,num_heads:2,num_kv_heads:1,vocab_size:300,max_length:128}"
QUICK = ["run.steps=2", "run.threads=1", "run.device=cpu", "run.tensorboard=false", "data.max_length=128"]


def call(name: str, *arguments: str) -> None:
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    config.main(name, module.Config, groups(module), module.main, [*QUICK, *arguments])


def groups(module: ModuleType) -> dict:
    return {"algo": module.ALGORITHMS} if hasattr(module, "ALGORITHMS") else {}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"prompt": f"What is {n}?", "chosen": f" It is {n}.", "rejected": " No."} for n in range(40)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture(scope="module")
def tuned(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of supervised tuning, from scratch."""
    folder = tmp_path_factory.mktemp("runs") / "sft"
    call("align_offline", "algo=sft", f"data.source={pairs}", f"model.scratch={SMALL}", f"run.dir={folder}")
    return folder


def test_sft_writes_a_model_and_what_it_scores(tuned: Path):
    assert json.loads((tuned / "eval.json").read_text())["overall"]["loss"] > 0
    assert load_causal_lm(tuned / "model").config.hidden_size == 32


@pytest.mark.parametrize("algo", ["dpo", "simpo", "kto"])
def test_the_family_goes_on_from_there(pairs: Path, tuned: Path, tmp_path: Path, algo: str):
    call(
        "align_offline",
        f"algo={algo}",
        "algo.cache=" + str(tmp_path / "cache"),
        f"data.source={pairs}",
        f"model.name={tuned / 'model'}",
        "model.lora_rank=2",
        f"run.dir={tmp_path / 'run'}",
    )
    assert 0 <= json.loads((tmp_path / "run" / "eval.json").read_text())["overall"]["accuracy"] <= 1
    assert (tmp_path / "run" / "model" / "adapter" / "adapter_model.safetensors").exists()
    assert load_causal_lm(tmp_path / "run" / "model").config.hidden_size == 32


def test_a_reward_model_is_trained_reported_and_loaded(pairs: Path, tuned: Path, tmp_path: Path):
    arguments = [f"data.source={pairs}", f"model.name={tuned / 'model'}", f"run.dir={tmp_path / 'run'}"]
    call("train_reward_model", *arguments)
    overall = json.loads((tmp_path / "run" / "eval.json").read_text())["overall"]
    assert overall["num_pairs"] > 0
    assert {"accuracy", "error", "longer_wins", "by_length"} <= overall.keys()
    assert len(RewardModel.load(tmp_path / "run" / "model")(["What is 3?"], [" It is 3."])) == 1


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("align_offline", ["algo=dop"], "did you mean 'dpo'"),
        (
            "align_offline",
            ["algo=dpo", "algo.betta=1"],
            "unknown configuration key 'algo.betta'; did you mean",
        ),
        ("align_offline", ["algo=dpo"], "data.source=''"),
        ("align_offline", ["algo=dpo", "data.source=nowhere.jsonl"], "there is no such file"),
        (
            "align_offline",
            ["algo=kto", "data.source={texts}"],
            "found text; expected prompt+completion+label",
        ),
        ("align_offline", ["algo=dpo", "data.source={pairs}", "model.name={empty}"], "has no config.json"),
        ("align_offline", ["algo=sft", "data.source={texts}", "data.max_length=4096"], "the model's context"),
        ("train_reward_model", ["data.source={pairs}", "model.backbone=encoder"], "model.name=''"),
        ("train_reward_model", ["data.source={broken}"], "line 2"),
    ],
)
def test_mistakes_are_one_sentence(
    script: str, arguments: list[str], message: str, pairs: Path, tmp_path: Path, capsys
):
    texts, broken, empty = tmp_path / "texts.jsonl", tmp_path / "broken.jsonl", tmp_path / "empty"
    texts.write_text('{"text": "a b c"}\n' * 9)
    broken.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": \n')
    empty.mkdir()
    places = {"pairs": pairs, "texts": texts, "broken": broken, "empty": empty}
    filled = [argument.format(**places) for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        call(script, *filled, f"model.scratch={SMALL}", f"run.dir={tmp_path / 'run'}")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_reference_with_another_tokenizer_is_refused(pairs: Path, tuned: Path, tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        call(
            "align_offline",
            "algo=dpo",
            f"data.source={pairs}",
            f"reference={tuned / 'model'}",
            f"model.scratch={SMALL.replace('300', '290')}",
            f"run.dir={tmp_path / 'run'}",
        )
    assert "both models need one tokenizer" in capsys.readouterr().err
