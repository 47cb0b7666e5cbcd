"""What a person is asked about: enough clips of few simulations, and no pair twice."""

import json

import numpy as np
import pytest

from embodied_rl.feedback import asking, clips, preference_ppo, reward_model, teachers
from embodied_rl.online import rollout
from envs.config import Config as EnvConfig
from rl_core.comparisons import ComparisonStore


def config(**options) -> preference_ppo.Config:
    feedback = asking.Config(
        teacher=teachers.Config(kind="person"), reward=reward_model.Config(hidden=(8,), updates=2),
        **{"ask_every": 1, **options},
    )  # fmt: skip
    return preference_ppo.Config(hidden=(8,), feedback=feedback)


@pytest.fixture
def go(train, monkeypatch):
    """Train on one cheetah, whose episodes do not end early: `go(cfg, horizon, steps=..., <run options>)`."""
    monkeypatch.setattr(clips, "render_frame", lambda env, index: np.zeros((16, 16, 3), np.uint8))

    def start(cfg, horizon, **options):
        settings = rollout.Config(num_envs=1, horizon=horizon)
        with rollout.open_world(EnvConfig(id="HalfCheetah-v5"), settings) as here:
            return train(preference_ppo, cfg, here, **options)

    return start


@pytest.mark.parametrize("selection", asking.SELECTIONS)
def test_one_simulation_gives_a_person_every_pair_of_its_clips_once(go, tmp_path, selection):
    """Three clips a rollout make three pairs, and with three more from the next fifteen."""
    cfg = config(segment=2, num_comparisons=15, first_share=0.2, selection=selection)
    folder, asked = tmp_path / "run" / "feedback", []
    for resume in (False, True):
        with pytest.raises(SystemExit):
            go(cfg, 6, steps=3, resume=resume)
        rows = [json.loads(line) for line in (folder / clips.QUESTIONS).read_text().splitlines()]
        asked += [frozenset(row["items"]) for row in rows]
        assert clips.answer(folder, "anna", lambda prompt: "1") == 0
    go(cfg, 6, steps=3, resume=True)
    assert len(asked) == len(set(asked)) == 15
    assert {f"{item}.mp4" for pair in asked for item in pair} == {
        file.name for file in (folder / "clips").iterdir()
    }
    assert len(list(ComparisonStore(folder / "comparisons.jsonl"))) == 15


def test_comparisons_of_an_earlier_run_do_not_count_as_asked(go, tmp_path):
    """Segments of both runs have the same names, and are others."""
    cfg = {"segment": 2, "num_comparisons": 3, "first_share": 1.0}
    with pytest.raises(SystemExit):
        go(config(**cfg), 6, steps=2, name="first")
    earlier = tmp_path / "first" / "feedback"
    clips.answer(earlier, "anna", lambda prompt: "1")
    with pytest.raises(SystemExit):
        go(config(**cfg, comparisons=str(earlier)), 6, steps=2, name="second")
    second = tmp_path / "second" / "feedback"
    assert clips.answer(second, "anna", lambda prompt: "2") == 0
    assert {c.items for c in ComparisonStore(second / "comparisons.jsonl")} == {
        c.items for c in ComparisonStore(earlier / "comparisons.jsonl")
    }


def test_too_few_clips_are_named_with_what_helps(go):
    ask = {"num_comparisons": 4, "first_share": 1.0}
    helps = r"shorten it, or lower .*num_comparisons, or raise rollout.num_envs or rollout.horizon"
    with pytest.raises(ValueError, match=f"2 whole segments make too few pairs for 4 questions .*{helps}"):
        go(config(segment=3, **ask), 6, steps=2, name="few")
    for name, change, horizon in (
        ("shorter", {"segment": 1}, 6),
        ("fewer", {"num_comparisons": 1}, 6),
        ("longer", {}, 12),
    ):
        with pytest.raises(SystemExit):
            go(config(**{"segment": 3, **ask, **change}), horizon, steps=2, name=name)
