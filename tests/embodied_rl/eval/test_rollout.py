import av
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from embodied_rl.eval.rollout import evaluate
from embodied_rl.eval.video import VideoConfig
from envs.suites import make_vec


class Walk(gym.Env):
    """A random walk; success is between 1 and 2, termination behind 2."""

    metadata = {"render_fps": 20}
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = self.np_random.integers(2)
        self.x = self.np_random.uniform(-0.5, 0.5)
        return self._obs(), self._info()

    def step(self, action):
        self.x += 0.3 * float(action[0]) + self.np_random.normal(0, 0.3)
        return self._obs(), self.x, self.x > 2, False, self._info()

    def _obs(self):
        return np.array([self.x, 1.0], np.float32)

    def _info(self):
        return {"is_success": bool(1 < self.x < 2), "task": ["left", "right"][self.goal]}


def walks(num):
    def factory():
        return gym.wrappers.TimeLimit(Walk(), 30)

    env = SyncVectorEnv([factory] * num, autoreset_mode=AutoresetMode.SAME_STEP)
    env.spec = gym.envs.registration.EnvSpec("Walk-v0", entry_point="none:none")
    return env


class Push:
    """Elementwise, so that its rows do not depend on the batch."""

    def __init__(self):
        self.resets = []

    def reset(self, batch):
        self.resets.append(batch)

    def act(self, obs, deterministic=True):
        return np.tanh(0.5 - 0.1 * obs["observation"][:, :1])


def test_episodes_do_not_depend_on_how_many_run_at_once():
    one, four, seven = (evaluate(Push(), walks(n), episodes=10, seed=50) for n in (1, 4, 7))
    assert one.episodes == four.episodes == seven.episodes
    assert [episode.seed for episode in one.episodes] == list(range(50, 60))
    assert len({episode.length for episode in one.episodes}) > 1, (
        "waves of unequal episodes are what is tested"
    )
    assert {episode.terminated for episode in one.episodes} == {True, False}


def test_numbers_equal_a_plain_loop():
    evaluation = evaluate(Push(), walks(3), episodes=4, seed=7)
    for episode in evaluation.episodes:
        env = gym.wrappers.TimeLimit(Walk(), 30)
        obs, info = env.reset(seed=episode.seed)
        assert episode.task == info["task"]
        rewards, successes, ended = [], [], False
        while not ended:
            action = Push().act({"observation": obs[None]})[0]
            obs, reward, terminated, truncated, info = env.step(action)
            rewards.append(reward)
            successes.append(info["is_success"])
            ended = terminated or truncated
        assert episode.sum_reward == pytest.approx(sum(rewards))
        assert episode.max_reward == pytest.approx(max(rewards))
        assert episode.length == len(rewards)
        assert episode.success == any(successes)
        assert episode.success_at_end == successes[-1], "of the final state, not of the one after the reset"


def test_latency_settings_and_policy_resets():
    policy = Push()
    evaluation = evaluate(policy, walks(4), episodes=6, seed=0, deterministic=False)
    assert policy.resets == [4, 4]
    assert (evaluation.latency_ms > 0).all()
    assert len(evaluation.latency_ms) >= 30
    assert evaluation.settings["deterministic"] is False
    assert evaluation.settings["num_envs"] == 4
    assert set(evaluation.metrics()) == {"return", "length", "success"}
    assert evaluation.wall_s > 0


def test_without_a_notion_of_success_none_is_claimed():
    evaluation = evaluate(Idle(3), make_vec("Hopper-v5", 2), episodes=2, seed=0)
    assert not evaluation.has_success
    assert "success" not in evaluation.metrics()


class Idle:
    def __init__(self, size):
        self.size = size

    def reset(self, batch):
        pass

    def act(self, obs, deterministic=True):
        return np.zeros((len(obs["observation"]), self.size), np.float32)


@pytest.mark.parametrize(
    ("env_id", "size"), [("AdroitHandDoor-v1", 28), ("FetchReach-v4", 4), ("PointMaze_UMaze-v3", 2)]
)
def test_real_environments(env_id, size):
    four, one = (
        evaluate(Idle(size), make_vec(env_id, n, max_episode_steps=10), episodes=3, seed=1) for n in (4, 1)
    )
    assert four.episodes == one.episodes
    assert four.has_success
    assert four.env_id == env_id
    assert four.settings["max_episode_steps"] == 10


def test_video_of_the_first_episodes(tmp_path):
    config = VideoConfig(directory=tmp_path / "videos", episodes=2, width=64, height=48)
    env = make_vec("Hopper-v5", 2)
    evaluation = evaluate(Idle(3), env, episodes=3, seed=4, video=config)
    videos = [episode.video for episode in evaluation.episodes]
    assert videos[2] is None
    assert sorted((tmp_path / "videos").iterdir()) == sorted(videos[:2])
    assert all(video.stat().st_size > 500 for video in videos[:2])


def test_a_video_ends_in_the_last_state(tmp_path):
    config = VideoConfig(directory=tmp_path, width=64, height=48, max_fps=1000)
    env = make_vec("Hopper-v5", 1, max_episode_steps=4)
    (first, _) = evaluate(Idle(3), env, episodes=2, seed=4, video=config).episodes
    with av.open(str(first.video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == first.length + 1 == 5


def test_bad_arguments():
    with pytest.raises(ValueError, match="eval.episodes=0"):
        evaluate(Push(), walks(1), episodes=0, seed=0)
    env = SyncVectorEnv([Walk])
    env.spec = gym.spec("Hopper-v5")
    with pytest.raises(ValueError, match="SAME_STEP"):
        evaluate(Push(), env, episodes=1, seed=0)
