from contextlib import nullcontext

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from embodied_rl.data.minari_io import load
from embodied_rl.data.recorder import Info, Recorder
from embodied_rl.eval.rollout import evaluate
from embodied_rl.models import sb3
from embodied_rl.models.sb3 import SB3Policy, load_replay_buffer, replay_episodes, replay_to_minari
from envs.suites import make_vec


class Line(gym.Env):
    """A point moves by its action; terminates beyond 3. The observation tells episode, step and place."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gym.spaces.Box(-2.0, 4.0, (1,))  # not symmetric, so that a wrong scaling shows
    episode = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.t, self.x = 0, 0.0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        self.x += float(action[0])
        return self._obs(), self.x, abs(self.x) > 3, False, {}

    def _obs(self):
        return np.array([self.episode, self.t, self.x], np.float32)


LIMIT = 7


def line():
    return gym.wrappers.TimeLimit(Line(), LIMIT)


@pytest.fixture(scope="module")
def sac(tmp_path_factory):
    """A SAC model after 300 steps on Pendulum, with its files."""
    folder = tmp_path_factory.mktemp("sac")
    model = SAC(
        "MlpPolicy", "Pendulum-v1", seed=0, learning_starts=50, policy_kwargs={"net_arch": [16]}, device="cpu"
    )
    model.learn(300)
    model.save(folder / "model.zip")
    model.save_replay_buffer(folder / "buffer.pkl")
    return model, folder


def test_loading_needs_trust_and_says_why(sac):
    _, folder = sac
    with pytest.raises(ValueError, match=r"contain Python pickles.*run any code.*trust=true"):
        SB3Policy.load(folder / "model.zip")
    with pytest.raises(ValueError, match="pickles"):
        load_replay_buffer(folder / "buffer.pkl")


def test_loaded_policy_acts_as_the_model(sac):
    model, folder = sac
    policy = SB3Policy.load(folder / "model", trust=True)
    assert type(policy.model) is SAC
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    policy.reset(5)
    action = policy.act({"observation": obs})
    assert action.shape == (5, 1)
    assert np.abs(action).max() <= 2.0, "environment units: Pendulum's torque"
    np.testing.assert_array_equal(action, model.predict(obs, deterministic=True)[0])
    assert not np.array_equal(policy.act({"observation": obs}, deterministic=False), action)


def test_evaluation_of_a_model(sac):
    _, folder = sac
    policy = SB3Policy.load(folder / "model.zip", trust=True)
    env = make_vec("Pendulum-v1", 2)
    policy.check(env.single_observation_space, env.single_action_space)
    found = evaluate(policy, env, episodes=2, seed=0)
    assert [episode.length for episode in found.episodes] == [200, 200]
    other = make_vec("Hopper-v5", 1)
    with pytest.raises(ValueError, match=r"observation: the SB3 model has \(3,\), the environment \(11,\)"):
        policy.check(other.single_observation_space, other.single_action_space)


def test_goal_conditioned_model(tmp_path):
    env = make_vec("FetchReach-v4", 2)
    model = SAC(
        "MultiInputPolicy", "FetchReach-v4", policy_kwargs={"net_arch": [8]}, buffer_size=10, device="cpu"
    )
    model.save(tmp_path / "m.zip")
    policy = SB3Policy.load(tmp_path / "m.zip", trust=True)
    policy.check(env.single_observation_space, env.single_action_space)
    assert evaluate(policy, env, episodes=2, seed=0).episodes[1].length == 50


@pytest.mark.parametrize(("algorithm", "loaded"), [(PPO, PPO), (A2C, A2C), (TD3, TD3), (DDPG, TD3)])
def test_algorithms_are_recognised(tmp_path, algorithm, loaded):
    model = algorithm("MlpPolicy", DummyVecEnv([line]), device="cpu")
    model.save(tmp_path / "m.zip")
    policy = SB3Policy.load(tmp_path / "m.zip", trust=True)
    assert type(policy.model) is loaded
    obs = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(policy.act({"observation": obs}), model.predict(obs, deterministic=True)[0])
    with pytest.raises(ValueError, match="algorithm='sax': must be one of"):
        SB3Policy.load(tmp_path / "m.zip", trust=True, algorithm="sax")


def test_statistics_of_vec_normalize(tmp_path):
    venv = VecNormalize(DummyVecEnv([line]))
    model = PPO("MlpPolicy", venv, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(64)
    model.save(tmp_path / "m.zip")
    venv.save(str(tmp_path / "stats.pkl"))
    policy = SB3Policy.load(tmp_path / "m.zip", trust=True, vec_normalize=tmp_path / "stats.pkl")
    obs = np.array([[5.0, 2.0, -1.0]], np.float32)
    expected = model.predict(venv.normalize_obs(obs), deterministic=True)[0]
    np.testing.assert_array_equal(policy.act({"observation": obs}), expected)
    (tmp_path / "list.pkl").write_bytes(b"\x80\x04]\x94.")
    with pytest.raises(ValueError, match="holds a list, expected an SB3 VecNormalize"):
        SB3Policy.load(tmp_path / "m.zip", trust=True, vec_normalize=tmp_path / "list.pkl")


def test_files_that_are_no_models(tmp_path, sac):
    with pytest.raises(ValueError, match="no such file"):
        SB3Policy.load(tmp_path / "nothing.zip", trust=True)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(ValueError, match="not a Stable-Baselines3 model"):
        SB3Policy.load(tmp_path / "text.zip", trust=True)
    (tmp_path / "list.pkl").write_bytes(b"\x80\x04]\x94.")
    with pytest.raises(ValueError, match="holds a list, expected an SB3 ReplayBuffer"):
        load_replay_buffer(tmp_path / "list.pkl", trust=True)
    (tmp_path / "short.pkl").write_bytes((sac[1] / "buffer.pkl").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"short.pkl: is cut off"):
        load_replay_buffer(tmp_path / "short.pkl", trust=True)


def fill(size, steps, num_envs=1, **kwargs):
    """Act at random in `Line` as SB3 does; return the buffer and the true episodes of each environment."""
    envs = DummyVecEnv([line] * num_envs)
    space = envs.action_space
    buffer = ReplayBuffer(size, envs.observation_space, space, n_envs=num_envs, device="cpu", **kwargs)
    rng = np.random.default_rng(1)
    obs = envs.reset()
    truth = [[] for _ in range(num_envs)]
    running = [{"observations": [obs[i]], "actions": [], "rewards": []} for i in range(num_envs)]
    for _ in range(steps):
        scaled = rng.uniform(-1, 1, (num_envs, 1)).astype(np.float32)
        action = space.low + 0.5 * (scaled + 1) * (space.high - space.low)
        new_obs, reward, done, infos = envs.step(action)
        next_obs = new_obs.copy()
        for i in np.flatnonzero(done):
            next_obs[i] = infos[i]["terminal_observation"]
        buffer.add(obs, next_obs, scaled, reward, done, infos)
        for i in range(num_envs):
            running[i]["observations"].append(next_obs[i])
            running[i]["actions"].append(action[i])
            running[i]["rewards"].append(reward[i])
            if done[i]:
                truth[i].append({**running[i], "terminated": not infos[i]["TimeLimit.truncated"]})
                running[i] = {"observations": [new_obs[i]], "actions": [], "rewards": []}
        obs = new_obs
    for i in range(num_envs):
        if running[i]["rewards"]:
            truth[i].append({**running[i], "terminated": False})
    return buffer, truth


def assert_same(found, true):
    np.testing.assert_allclose(found["observations"], true["observations"], rtol=1e-6)
    np.testing.assert_allclose(found["actions"], true["actions"], atol=1e-6)
    np.testing.assert_allclose(found["rewards"], true["rewards"], rtol=1e-6)
    assert len(found["observations"]) == len(found["rewards"]) + 1
    assert not found["terminations"][:-1].any()
    assert not found["truncations"][:-1].any()
    assert found["terminations"][-1] == true["terminated"]
    assert found["truncations"][-1] == (not true["terminated"])


@pytest.mark.parametrize("num_envs", [1, 3])
def test_replay_buffer_gives_the_episodes_back(num_envs):
    buffer, truth = fill(200 * num_envs, 100, num_envs)
    found = list(replay_episodes(buffer))
    flat = [episode for per_env in truth for episode in per_env]
    assert {episode["terminated"] for episode in flat} == {True, False}
    for ours, true in zip(found, flat, strict=True):
        assert_same(ours, true)


def test_full_buffer_loses_its_oldest_fragment():
    buffer, truth = fill(50, 130)
    found = list(replay_episodes(buffer))
    assert 0 < len(found) < len(truth[0])
    for ours, true in zip(found, truth[0][-len(found) :], strict=True):
        assert_same(ours, true)
    kept = sum(len(episode["rewards"]) for episode in found)
    assert 50 - LIMIT <= kept <= 50


@pytest.mark.parametrize(("size", "steps"), [(200, 100), (50, 130)])
def test_memory_optimised_buffer(size, steps):
    """Last observations are overwritten: truncated episodes lose a step, terminated ones repeat one."""
    buffer, truth = fill(size, steps, optimize_memory_usage=True, handle_timeout_termination=False)
    with pytest.raises(ValueError, match="time_limit=None"):
        list(replay_episodes(buffer))
    found = list(replay_episodes(buffer, time_limit=LIMIT))
    expected = truth[0][-len(found) :]
    for position, (ours, true) in enumerate(zip(found, expected, strict=True)):
        unfinished = position == len(expected) - 1 and len(true["rewards"]) < LIMIT and not true["terminated"]
        if true["terminated"]:
            assert_same(
                ours, {**true, "observations": [*true["observations"][:-1], true["observations"][-2]]}
            )
        elif unfinished:
            assert_same(ours, true)
        else:
            short = {key: value[:-1] for key, value in true.items() if key != "terminated"}
            assert_same(ours, {**short, "terminated": False})


def test_replay_buffer_becomes_a_dataset(sac, tmp_path, monkeypatch):
    progress = []
    monkeypatch.setattr(sb3, "counting", lambda name, total: nullcontext(progress.append))
    _, folder = sac
    buffer = load_replay_buffer(folder / "buffer.pkl", trust=True)
    info = Info(
        observation_space=buffer.observation_space,
        action_space=buffer.action_space,
        env_spec=gym.spec("Pendulum-v1"),
    )
    with Recorder("pendulum/replay-v0", info, tmp_path) as recorder:
        replay_to_minari(buffer, recorder)
    assert progress == [200, 300]
    episodes = load("pendulum/replay-v0", tmp_path)
    assert episodes.lengths.tolist() == [200, 100]
    assert np.flatnonzero(episodes.truncations).tolist() == [199, 299]
    assert not episodes.terminations.any()
    assert np.abs(episodes.actions).max() > 1.0, "unscaled to torque"
    np.testing.assert_allclose(episodes.rewards, buffer.rewards[:300, 0], rtol=1e-6)
    np.testing.assert_allclose(
        episodes.observations["observation"][201], buffer.observations[200, 0], rtol=1e-6
    )
