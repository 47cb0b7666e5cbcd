"""PPO from comparisons on points that go to a goal, by a script and by a person, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from embodied_rl.feedback import asking, clips, preference_ppo, reward_model, teachers
from embodied_rl.feedback.judgements import Folder
from embodied_rl.online import ppo, rollout
from envs.config import Config as EnvConfig
from rl_core import ppo as core
from rl_core.comparisons import ComparisonStore

REWARD = reward_model.Config(hidden=(32, 32), lr=3e-3, updates=60)
ASKING = {"segment": 3, "ask_every": 1, "num_comparisons": 40, "reward": REWARD}


def config(**options) -> preference_ppo.Config:
    feedback = asking.Config(**{**ASKING, **options})
    update = core.Config(epochs=5, minibatch_size=64)
    return preference_ppo.Config(
        hidden=(32, 32), lr=3e-3, log_std_init=-0.5, lr_schedule="adaptive", ppo=update, feedback=feedback
    )


def metrics(tmp_path, name: str, group: str) -> list[float]:
    rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    return [row[group] for row in rows if group in row]


@pytest.mark.parametrize("selection", ["disagreement", "uniform"])
def test_learns_from_comparisons_alone(world, points, train, tmp_path, selection):
    cfg = config(num_comparisons=150, ask_every=2, selection=selection)
    train(preference_ppo, cfg, world(points(16), horizon=18), steps=25)
    success = metrics(tmp_path, "run", "rollout/success")
    assert success[0] < 0.8
    assert np.mean(success[-3:]) > 0.9
    assert metrics(tmp_path, "run", "feedback/accuracy")[-1] > 0.75
    assert metrics(tmp_path, "run", "feedback/comparisons")[-1] == 150
    assert len(list(ComparisonStore(tmp_path / "run" / "feedback" / "comparisons.jsonl"))) == 150
    titles = (tmp_path / "run" / "figures_feedback.json").read_text()
    for title in ("Reward model", "Comparisons", "Learnt against true return"):
        assert title in titles


def test_the_policy_does_not_see_the_true_reward(world, points, train):
    """Twice the reward is the same order of segments: the same answers, the same networks."""

    class Doubled(points):
        def step(self, actions):
            obs, reward, *rest = super().step(actions)
            return obs, 2.0 * reward, *rest

    agents = [train(preference_ppo, config(), world(env()), steps=2, name=env.__name__)
              for env in (points, Doubled)]  # fmt: skip
    for one, other in zip(agents[0].parameters(), agents[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_two_and_two_steps_equal_four(world, points, train, tmp_path):
    cfg, often = config(teacher=teachers.Config(mistakes=0.2)), {"checkpoint_every": 2}
    whole = train(preference_ppo, cfg, world(points()), steps=4, name="whole", **often)
    with pytest.raises(RuntimeError, match="power cut"):
        train(preference_ppo, cfg, world(points(fail_at=3 * 12 + 5)), steps=4, name="cut", **often)
    resumed = train(preference_ppo, cfg, world(points()), steps=4, name="cut", resume=True, **often)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for file in ("metrics.jsonl", "feedback/comparisons.jsonl", "figures_feedback.json"):
        texts = [(tmp_path / name / file).read_text() for name in ("whole", "cut")]
        if file == "metrics.jsonl":  # the clock differs
            texts = [[{**json.loads(row), "time": 0} for row in text.splitlines()] for text in texts]
        assert texts[0] == texts[1], file


def test_begins_with_the_policy_of_another_run(world, points, train, tmp_path):
    there = train(ppo, ppo.Config(hidden=(32, 32)), world(points()), steps=1, name="first")
    cfg = dataclasses.replace(config(), start_from=str(tmp_path / "first"), lr=1e-12, lr_schedule="constant")
    here = train(preference_ppo, cfg, world(points(4)), steps=1, name="second")
    for ours, theirs in zip(here.policy.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="algo.start_from=.*algo.hidden is"):
        train(preference_ppo, dataclasses.replace(cfg, hidden=(8,)), world(points()), steps=1, name="third")


def test_comparisons_of_an_earlier_run_come_first(world, points, train, tmp_path):
    train(preference_ppo, config(), world(points()), steps=2, name="first")
    cfg = config(comparisons=str(tmp_path / "first" / "feedback"), num_comparisons=10)
    train(preference_ppo, cfg, world(points()), steps=1, name="second")
    assert metrics(tmp_path, "second", "feedback/comparisons") == [40 + 10]


def test_comparisons_that_do_not_fit_are_refused(world, points, train, tmp_path):
    train(preference_ppo, config(), world(points()), steps=1, name="first")
    here, spec = tmp_path / "first" / "feedback", world(points()).critic_spec
    pairs, preference = Folder(here, spec).load(3)
    assert pairs.obs.shape == (40, 2, 3, 3)
    assert set(preference.tolist()) <= {0.0, 0.5, 1.0}
    with pytest.raises(ValueError, match="has segments of 3 steps, algo.feedback.segment=4"):
        Folder(here, spec).load(4)
    with pytest.raises(ValueError, match="is of env_id 'Points-v0', this run of 'Lines-v0'"):
        Folder(here, dataclasses.replace(spec, env_id="Lines-v0")).load(3)
    with pytest.raises(ValueError, match="obs_keys 'goal,observation'"):
        Folder(here, dataclasses.replace(spec, obs_keys=("goal",), obs_dims=(1,))).load(3)
    with pytest.raises(ValueError, match="holds no comparisons"):
        Folder(tmp_path / "nowhere", spec).load(3)
    lines = (here / "comparisons.jsonl").read_text().splitlines()
    name = json.loads(lines[1])["items"][0]
    (here / "comparisons.jsonl").write_text("\n".join([lines[0], lines[1].replace(name, "x"), ""]))
    with pytest.raises(ValueError, match=r"comparisons.jsonl, line 2: segment 'x' is not in segments/"):
        Folder(here, spec).load(3)


def test_too_few_segments_are_named(world, points, train):
    with pytest.raises(ValueError, match="algo.feedback.segment=13: must be at most rollout.horizon=12"):
        train(preference_ppo, config(segment=13), world(points()), steps=1, name="a")
    with pytest.raises(ValueError, match="0 whole segments make too few pairs for 40 questions"):
        train(preference_ppo, config(segment=7), world(points(limit=6)), steps=2, name="b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": "disagrement"}, "did you mean 'disagreement'"),
        ({"num_comparisons": 0}, "algo.feedback.num_comparisons=0"),
        ({"first_share": 0.0}, "algo.feedback.first_share=0.0"),
        ({"pool": 1}, "algo.feedback.pool=1"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        asking.Config(**options)


def test_questions_are_spread_over_the_run():
    cfg = asking.Config(num_comparisons=200, ask_every=5)
    due = [cfg.due(step, 100) for step in range(1, 101)]
    assert due[0] == due[4] == 50
    assert due == sorted(due)
    assert due[80] == due[-1] == 200  # nothing after 80 % of the run
    assert due[75] > 180
    assert [cfg.due(step, 3) for step in (1, 2, 3)] == [200, 200, 200]  # too short to ask twice


def test_a_person_looks_answers_and_the_run_goes_on(train, tmp_path):
    cfg = config(teacher=teachers.Config(kind="person"), num_comparisons=4, first_share=0.5, ask_until=1.0)
    env = EnvConfig(id="InvertedPendulum-v5")
    options = {"steps": 2, "name": "run"}

    def go(**more):
        with rollout.open_world(env, rollout.Config(num_envs=4, horizon=4)) as here:
            return train(preference_ppo, cfg, here, **options, **more)

    with pytest.raises(SystemExit) as paused:
        go()
    assert paused.value.code == 3
    folder = tmp_path / "run" / "feedback"
    questions = [json.loads(line) for line in (folder / clips.QUESTIONS).read_text().splitlines()]
    assert len(questions) == 2
    for item in questions[0]["items"]:
        assert (folder / "clips" / f"{item}.mp4").stat().st_size > 500
        assert item in (folder / clips.PAGE).read_text()
    with pytest.raises(ValueError, match="2 of 2 comparisons are not judged yet"):
        go(resume=True)
    said = iter(["what?", "1", "q"])
    assert clips.answer(folder, "anna", lambda prompt: next(said)) == 1
    said = iter(["="])
    assert clips.answer(folder, "anna", lambda prompt: next(said)) == 0
    assert [(c.judge, c.rank) for c in ComparisonStore(folder / "comparisons.jsonl")] == [
        ("anna", (0, 1)), ("anna", (0, 0)),
    ]  # fmt: skip
    go(resume=True)  # asks again in the last step; there is nothing to go on with
    assert metrics(tmp_path, "run", "feedback/comparisons") == [2]
    with pytest.raises(ValueError, match=r"questions.jsonl: no questions"):
        clips.answer(tmp_path, "anna")
