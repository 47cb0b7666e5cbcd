"""A person's part in a training, as docs/online_rl.md tells it: train, answer, go on."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rl_core.comparisons import ComparisonStore
from tests.command_line import call

TRAIN = [
    "+experiment=half_cheetah_ppo",
    "algo=preference_ppo",
    "algo.feedback.teacher.kind=person",
    "algo.feedback.ask_every=1",
]
SMALL = [
    "algo.feedback.segment=2",
    "algo.feedback.num_comparisons=6",
    "algo.feedback.first_share=0.5",
    "rollout.num_envs=1",
    "rollout.horizon=12",
    "run.steps=3",
    "run.threads=1",
    "run.tensorboard=false",
    "eval.episodes=1",
    "eval.curve_episodes=1",
    "eval.videos=0",
    "env.kwargs={max_episode_steps: 10}",
]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Path, str], str]:
    """What the prompt says to these lines on its input, which then ends: `judge(run, lines)`."""

    def type_in(run: Path, lines: str) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        capsys.readouterr()
        call("judge_clips", f"run={run}", "judge=anna")
        return "".join(capsys.readouterr())

    return type_in


def test_a_person_teaches_from_the_command_line(tmp_path: Path, judge: Callable[[Path, str], str]):
    run = tmp_path / "run"
    train = [*TRAIN, *SMALL, f"run.dir={run}"]
    with pytest.raises(SystemExit) as paused:
        call("train_online", *train)
    assert paused.value.code == 3
    assert "2 questions are left" in judge(run, "what?\n1\n")
    with pytest.raises(SystemExit):  # not all are answered
        call("train_online", *train, "run.resume=true")
    assert "all judged" in judge(run, "2\n=\n")
    with pytest.raises(SystemExit) as paused:
        call("train_online", *train, "run.resume=true")
    assert paused.value.code == 3
    assert "all judged" in judge(run, 3 * "1\n")
    call("train_online", *train, "run.resume=true")
    found = list(ComparisonStore(run / "feedback" / "comparisons.jsonl"))
    assert [c.rank for c in found] == [(0, 1), (1, 0), (0, 0), (0, 1), (0, 1), (0, 1)]
    assert {c.judge for c in found} == {"anna"}
    assert len({frozenset(c.items) for c in found}) == 6
    assert (run / "policy" / "model.safetensors").exists()
    assert "Reward model" in (run / "report.html").read_text()
    assert json.loads((run / "eval.json").read_text())["overall"]["n_episodes"] == 1
