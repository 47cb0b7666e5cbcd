"""Alignment as a user runs it: from a JSONL of preferences to models on the disk, and users' mistakes."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from llm_align.feedback.trained import RewardModel
from llm_align.models.causal_lm import load_causal_lm
from tests import command_line

SMALL = "{hidden_size:32,num_layers:1,num_heads:2,num_kv_heads:1,vocab_size:300,max_length:128}"
QUICK = ["run.steps=2", "run.threads=1", "run.device=cpu", "run.tensorboard=false", "data.max_length=128"]


def call(name: str, *arguments: str) -> None:
    command_line.call(name, *QUICK, *arguments)


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


@pytest.fixture(scope="module")
def judges(pairs: Path, tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two, the second of which was added by resuming."""
    folder = tmp_path_factory.mktemp("ensemble") / "judges"
    arguments = [f"data.source={pairs}", f"model.name={tuned / 'model'}", f"run.dir={folder}", "ensemble=2"]
    call("train_reward_model", *arguments)
    shutil.rmtree(folder / "member1")  # as if it had been interrupted before
    call("train_reward_model", *arguments, "run.resume=true")
    return folder


def test_an_ensemble_is_reported(judges: Path):
    overall = json.loads((judges / "eval.json").read_text())["overall"]
    assert overall["spread"] > 0
    members = [json.loads((judges / f"member{n}" / "eval.json").read_text())["overall"] for n in range(2)]
    assert overall["members"] == [member["accuracy"] for member in members]
    assert members[0]["loss"] != members[1]["loss"]
    assert overall["num_pairs"] == members[0]["num_pairs"]


def test_an_ensemble_with_a_calibrated_scale_is_learnt_from(
    judges: Path, pairs: Path, tuned: Path, tmp_path: Path
):
    (tmp_path / "mine.py").write_text("def none(completions):\n    return [0.0] * len(completions)\n")
    arguments = [
        "algo=grpo",
        f"data.source={pairs}",
        "data.max_length=64",
        f"model.name={tuned / 'model'}",
        f"rewards.functions=['{judges / 'model'}','{tmp_path / 'mine.py'}:none']",
        "rewards.caution=0.5",
        "rewards.calibrate=4",
        *("rollout.prompts=2", "rollout.group_size=4", "rollout.max_new_tokens=8", "run.log_every=1"),
    ]
    call("align_online", *arguments, f"run.dir={tmp_path / 'whole'}", "run.steps=3")
    call("align_online", *arguments, f"run.dir={tmp_path / 'parts'}")
    call("align_online", *arguments, f"run.dir={tmp_path / 'parts'}", "run.steps=3", "run.resume=true")
    whole, parts = (tmp_path / name for name in ("whole", "parts"))
    for file in ("calibration.json", "completions.jsonl", "model/model.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes()
    assert json.loads((whole / "calibration.json").read_text()).keys() == {"judges"}
    row = json.loads((whole / "metrics.jsonl").read_text().splitlines()[0])
    assert row["train/rewards/judges_spread"] > 0
    assert abs(row["train/reward"]) < 3  # in deviations of the first answers
    assert "judges_spread" in json.loads((whole / "completions.jsonl").read_text().splitlines()[0])


def test_an_outcome_reward_model_chooses_among_answers(tuned: Path, tmp_path: Path):
    rows = [
        {"prompt": f"{n} + 1?", "completion": f" A: {n + k}", "label": k == 1}
        for n in range(20)
        for k in range(3)
    ]
    (tmp_path / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = [f"data.source={tmp_path / 'rated.jsonl'}", "data.held_out=0.5", f"run.dir={tmp_path / 'run'}"]
    call("train_reward_model", *source, f"model.name={tuned / 'model'}", "algo.objective=outcome")
    overall = json.loads((tmp_path / "run" / "eval.json").read_text())["overall"]
    assert overall["best_of_n"]["random"][0] == pytest.approx(1 / 3)
    assert overall["best_of_n"]["oracle"][0] == 1.0
    assert 0 <= overall["best_of_n"]["best_score"][0] <= 1


def evaluate(*arguments: str) -> None:
    command_line.call("evaluate_language", *arguments)


def test_one_model_is_compared_with_another(pairs: Path, tuned: Path, tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "def short(completions):\n    return [-float(len(text)) for text in completions]\n"
        "def first_wins(prompts, first, second):\n    return [1.0] * len(prompts)\n"
    )
    shared = [
        f"model.name={tuned / 'model'}",
        f"data.source={pairs}",
        "data.held_out=0.5",
        "data.max_length=64",
        f"rewards.functions=['{tmp_path / 'mine.py'}:short']",
        "rollout.max_new_tokens=4",
        "rollout.group_size=2",
        "device=cpu",
    ]
    evaluate(*shared, f"against={tuned / 'model'}", f"out={tmp_path / 'same'}")
    found = json.loads((tmp_path / "same" / "eval.json").read_text())["overall"]
    rows = [json.loads(line) for line in (tmp_path / "same" / "answers.jsonl").read_text().splitlines()]
    assert found["win_pairs"] == len(rows) < 40  # the held-out half
    assert found["win_rate"] == 0.5  # the same seed draws the same answers
    assert found["kl"] == pytest.approx(0.0, abs=1e-5)
    assert found["reward"] == found["other_reward"]
    judge = f"judge='{tmp_path / 'mine.py'}:first_wins'"
    evaluate(*shared, f"against={tuned / 'model'}", judge, f"out={tmp_path / 'judged'}")
    judged = json.loads((tmp_path / "judged" / "eval.json").read_text())["overall"]
    assert (judged["win_rate"], judged["win_first"], judged["win_inconsistent"]) == (0.5, 1.0, 1.0)


def test_a_comparison_has_one_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        evaluate("model.name=any", "data.source=any.jsonl", "rewards.calibrate=4", f"out={tmp_path}")
    assert "rewards.calibrate=4: must be 0: what is compared" in capsys.readouterr().err


def test_the_frontier_of_finished_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").mkdir()
    rows = [
        {"step": s, "train/kl": kl, "train/gold": r}
        for s, kl, r in [(1, 0.1, 0.5), (2, 0.2, 0.4), (3, 1, 0.9)]
    ]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(f"frontier=['{tmp_path / 'run'}']", "frontier_reward=train/gold", f"out={tmp_path / 'out'}")
    assert [json.loads(text)["step"] for text in capsys.readouterr().out.strip().split("\n") if text] == [
        1,
        3,
    ]


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
        (
            "align_offline",
            ["algo=sft", "reference=x", "data.source={pairs}"],
            "must be empty: sft reads none",
        ),
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


STOPPED = {
    "align_offline": (signal.SIGTERM, ["algo=dpo", "algo.cache="]),
    "align_online": (
        signal.SIGINT,
        ["algo=ppo", "rollout.prompts=2", "rollout.max_new_tokens=8", "data.max_length=64"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("script", STOPPED)
def test_an_interrupted_alignment_resumes_to_the_same_weights(
    script: str, pairs: Path, tuned: Path, tmp_path: Path
):
    number, given = STOPPED[script]
    reward = tmp_path / "mine.py"
    reward.write_text(
        "def vowels(completions):\n    return [sum(c in 'aeiou' for c in t) for t in completions]\n"
    )
    if script == "align_online":
        given = [*given, f"rewards.functions=['{reward}:vowels']"]

    def arguments(folder: Path) -> list[str]:
        often = ["run.steps=60", "run.log_every=1", "run.eval_every=60"]
        data = [f"data.source={pairs}", f"model.name={tuned / 'model'}", f"run.dir={folder}"]
        return [*QUICK, *given, *data, *often]

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command_line.call(script, *arguments(whole))
    command_line.interrupt(script, parts, number, *arguments(parts))
    command_line.call(script, *arguments(parts), "run.resume=true")
    first, second = ((folder / "model" / "model.safetensors").read_bytes() for folder in (whole, parts))
    assert first == second
