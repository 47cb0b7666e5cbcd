"""Online alignment and generation from the command line, on a model of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llm_align.data.tokenizer import byte_tokenizer
from llm_align.models.causal_lm import Small, small_causal_lm
from rl_core import config
from tests import command_line

PRESETS = {
    "grpo": [
        *("grpo", "dr_grpo", "dapo", "gspo", "gmpo", "gfpo", "lite_ppo", "rloo", "reinforce_pp"),
        *("cispo", "sapo", "vespo", "luspo", "gdpo"),
    ],
    "ppo": ["ppo_penalty", "instruct_gpt"],
    "reinforce": ["reinforce", "scst", "rloo_plain", "a2c", "minimum_risk"],
}


def align(*arguments: str) -> None:
    command_line.call("align_online", *arguments)


def generate(*arguments: str) -> None:
    command_line.call("generate", *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte model, prompts with answers, a reward function, demonstrations."""
    root = tmp_path_factory.mktemp("online")
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "max_length": 256}
    model = small_causal_lm(Small(vocab_size=len(tokenizer), eos_token_id=0, pad_token_id=1, **sizes))
    model.save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    rows = [{"prompt": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(6)]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = [{"prompt": row["prompt"], "completion": row["answer"]} for row in rows]
    (root / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))
    (root / "mine.py").write_text(
        "def vowels(completions):\n    return [sum(c in 'aeiou' for c in t) / 8 for t in completions]\n"
        "def short(completions):\n    return [-float(len(t)) for t in completions]\n"
        "def broken(completions):\n    return [1.0]\n"
        "def again(completions, **columns):\n    return ['Again: '] * len(completions)\n"
    )
    return root


def quick(folder: Path, out: Path) -> list[str]:
    return [
        f"model.name={folder / 'model'}",
        f"data.source={folder / 'prompts.jsonl'}",
        "data.held_out=0.3",
        "data.max_length=64",
        f"rewards.functions=['{folder / 'mine.py'}:vowels',gsm8k]",
        "rollout.prompts=2",
        "rollout.group_size=2",
        "rollout.max_new_tokens=8",
        "run.steps=2",
        "run.eval_every=2",
        f"run.dir={out}",
        "run.tensorboard=false",
        "run.device=cpu",
    ]


@pytest.mark.parametrize("algo", ["grpo", "ppo", "reinforce", "trpo", "best_of_n"])
def test_every_algorithm_runs_and_its_model_generates(algo: str, folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    align(f"algo={algo}", *quick(folder, out))
    overall = json.loads((out / "eval.json").read_text())["overall"]
    assert {"reward", "length", "truncated", "best_of_group"} <= overall.keys()
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"train/reward_vowels", "train/reward_gsm8k", "train/distinct_2", "eval/reward"} <= row.keys()
    file = tmp_path / "new" / "folder" / "texts.jsonl"
    generate(f"model.name={out / 'model'}", f"data.source={folder / 'prompts.jsonl'}", "data.max_length=64",
             "max_new_tokens=4", "num_samples=2", f"out={file}", "device=cpu")  # fmt: skip
    texts = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(texts) == 12
    assert texts[0].keys() == {"prompt", "completion", "log_prob", "ended"}


def test_prompts_of_pairs_and_a_held_out_scorer(folder: Path, tmp_path: Path):
    pairs = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."} for i in range(6)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    arguments = [
        f"data.source={tmp_path / 'pairs.jsonl'}",
        f"rewards.functions=['{folder / 'mine.py'}:vowels']",
    ]
    align(
        "algo=ppo", *quick(folder, tmp_path / "run"), *arguments, f"monitor.gold='{folder / 'mine.py'}:short'"
    )
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["train/gold"] == row["train/reward_short"]
    assert row["train/reward"] == pytest.approx(row["train/reward_vowels"])
    assert {"train/proxy_gold_gap", "eval/reward_short"} <= row.keys()


def test_adapters_and_demonstrations(folder: Path, tmp_path: Path):
    arguments = ["model.lora_rank=2", f"data.demonstrations={folder / 'shown.jsonl'}", "algo.ptx_coef=1"]
    align("algo=ppo", *quick(folder, tmp_path / "run"), *arguments)
    assert (tmp_path / "run" / "model" / "adapter" / "adapter_config.json").exists()


def test_an_environment_answers_from_a_file(folder: Path, tmp_path: Path):
    world = f"environment='{folder / 'mine.py'}:again'"
    align("algo=grpo", *quick(folder, tmp_path / "run"), world, "rollout.max_turns=2")
    assert (tmp_path / "run" / "eval.json").exists()


def test_a_prompt_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]):
    generate(f"model.name={folder / 'model'}", "prompt=hello", "data.max_length=64", "max_new_tokens=4",
             "temperature=0", "device=cpu")  # fmt: skip
    assert json.loads(capsys.readouterr().out)["prompt"] == "hello"


def test_a_pause_leaves_its_reason_and_resumes(folder: Path, tmp_path: Path):
    arguments = ["algo=reinforce", *quick(folder, tmp_path / "run"), "monitor.window=1"]
    with pytest.raises(SystemExit) as exit_info:
        align(*arguments, "monitor.max_length=0.5")
    assert exit_info.value.code == 3
    assert "length" in json.loads((tmp_path / "run" / "pauses.jsonl").read_text())["reason"]
    align(*arguments, "run.resume=true")
    assert (tmp_path / "run" / "eval.json").exists()


@pytest.mark.parametrize(("algo", "preset"), [(a, p) for a, names in PRESETS.items() for p in names])
def test_every_preset_composes(algo: str, preset: str):
    module = command_line.load("align_online")
    cfg = config.parse("align_online", module.Config, command_line.groups(module), [f"+experiment={preset}"])
    assert isinstance(cfg.algo, module.ALGORITHMS[algo].Config)
    assert cfg.algo != module.ALGORITHMS[algo].Config() or preset == "reinforce"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.name="], "model.name=''"),
        (["data.column=question"], "question"),
        (["data.held_out=6"], "in [0, 1)"),
        (["rewards.functions=[gsm9k]"], "did you mean 'gsm8k'"),
        (["rewards.functions=[BROKEN]"], "'broken' returned 1 rewards for 4 completions"),
        (["data.max_length=255"], "at most the model's context"),
        (["algo.clip_hihg=1"], "did you mean 'algo.clip_high'"),
        (["data.demonstrations=x.jsonl"], "only PPO"),
        (["environment=nowhere.py:f", "rollout.max_turns=2"], "environment='nowhere.py:f': must be file.py:"),
        (["rewards.calibrate=99"], "rewards.calibrate=99: must be at most the "),
        (["rollout.max_turns=2"], "above 1 with an environment"),
        (["algo=grop"], "did you mean 'grpo'"),
    ],
)
def test_a_mistake_gets_a_sentence(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [text.replace("BROKEN", f"'{folder / 'mine.py'}:broken'") for text in arguments]
    with pytest.raises(SystemExit) as exit_info:
        align(*quick(folder, tmp_path / "run"), *arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
