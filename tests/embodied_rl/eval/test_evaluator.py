import json

import gymnasium as gym
import numpy as np
import pytest

from embodied_rl.data.types import Spec
from embodied_rl.eval.evaluator import Config, Evaluator, open_evaluator
from embodied_rl.eval.results import headline
from envs.suites import make

QUICK = Config(episodes=2, curve_episodes=1, videos=1)


class Idle:
    def __init__(self, spec):
        self.size = spec.action_dim

    def reset(self, batch):
        pass

    def act(self, obs, deterministic=True):
        return np.zeros((len(obs["observation"]), self.size), np.float32)


def spec_of(env_id, **kwargs):
    env = make(env_id, **kwargs)
    return Spec.from_spaces(env.observation_space, env.action_space, env_id, kwargs)


@pytest.mark.parametrize(("env_id", "videos"), [("InvertedPendulum-v5", 1), ("Pendulum-v1", 0)])
def test_every_environment_gets_its_evaluation(env_id, videos, tmp_path, capsys):
    spec = spec_of(env_id, max_episode_steps=3)
    with Evaluator(QUICK, spec) as evaluation:
        content = evaluation.final(Idle(spec), tmp_path)
    assert json.loads((tmp_path / "eval.json").read_text())["overall"]["n_episodes"] == 2
    assert len(content["overall"]["video_paths"]) == len(list(tmp_path.glob("videos/*"))) == videos
    assert ("no videos: Pendulum-v1: is no MuJoCo" in capsys.readouterr().err) == (videos == 0)


def test_mazes_end_with_success_as_their_scores_assume(tmp_path):
    """The dataset's environment may have run on."""
    spec = spec_of("AntMaze_UMaze-v5", continuing_task=True, max_episode_steps=2)
    with Evaluator(Config(episodes=1, num_envs=1, videos=0), spec) as evaluation:
        content = evaluation.final(Idle(spec), tmp_path)
    assert content["settings"]["env_kwargs"]["continuing_task"] is False


def test_the_environment_is_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(gym.vector.SyncVectorEnv, "close", lambda self: closed.append(self))
    with Evaluator(QUICK, spec_of("Pendulum-v1")):
        assert not closed
    assert len(closed) == 1


def test_without_an_environment_nothing_is_evaluated_and_that_is_said(tmp_path, capsys):
    spec = Spec(env_id="", obs_keys=("x",), obs_dims=(2,), action_low=-np.ones(1), action_high=np.ones(1))
    (tmp_path / "config.yaml").write_text("run: {seed: 1}")
    with open_evaluator(QUICK, spec) as evaluation:
        assert evaluation.curve(Idle(spec)) == {}
        assert headline(evaluation.final(Idle(spec), tmp_path)) == "not evaluated"
    assert "env.id=" in capsys.readouterr().err
    assert "the evaluation" in (tmp_path / "report.html").read_text()


def test_a_negative_seed_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="eval.seed=-1: must be at least 0"):
        Config(seed=-1)
