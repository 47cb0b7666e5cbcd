import gymnasium as gym
import minari
import numpy as np
import pytest

from embodied_rl.data import collect
from embodied_rl.data.minari_io import episode_metadata, load
from embodied_rl.data.recorder import Recorder
from envs.suites import make, make_vec


class Wave:
    """A deterministic gait, row by row."""

    def __init__(self, size):
        self.size = size

    def reset(self, batch):
        pass

    def act(self, obs, deterministic=True):
        phase = np.sin(10 * obs["observation"][:, :1])
        return np.repeat(0.4 * phase, self.size, axis=1).astype(np.float32)


def recorded(env_id, size, root, *, num_envs, episodes=5, noise=0.0, **kwargs):
    env = make_vec(env_id, num_envs, **kwargs)
    with Recorder(
        "test/set-v0", collect.info_of(env, algorithm_name="wave"), root, overwrite=True
    ) as recorder:
        summary = collect.record(Wave(size), env, recorder, episodes=episodes, seed=30, noise=noise)
    return summary, load("test/set-v0", root), env


def test_dataset_replays_in_the_environment(tmp_path):
    summary, data, _ = recorded("Hopper-v5", 3, tmp_path, num_envs=2)
    assert summary.episodes == data.num_episodes == 5
    assert summary.steps == data.num_steps
    assert summary.mean_return == pytest.approx(data.returns.mean(), rel=1e-5)
    assert summary.success_rate is None, "Hopper knows no success"
    assert "success" not in episode_metadata("test/set-v0", tmp_path)[0]
    assert len(set(data.lengths)) > 1, "episodes of different length within a wave are what is tested"
    env = make("Hopper-v5")
    for index in range(5):
        episode = data.episode(index)
        obs, _ = env.reset(seed=30 + index)
        for step, action in enumerate(episode["actions"]):
            np.testing.assert_allclose(
                episode["observations"]["observation"][step], obs, rtol=1e-5, atol=1e-6
            )
            obs, reward, terminated, truncated, _ = env.step(action)
            assert episode["rewards"][step] == pytest.approx(reward, rel=1e-5)
            assert episode["terminations"][step] == terminated
            assert episode["truncations"][step] == truncated
        assert terminated or truncated
        np.testing.assert_allclose(episode["observations"]["observation"][-1], obs, rtol=1e-5, atol=1e-6)


def test_dataset_does_not_depend_on_how_many_run_at_once(tmp_path):
    one, four = (recorded("Hopper-v5", 3, tmp_path / str(n), num_envs=n)[1] for n in (1, 4))
    np.testing.assert_array_equal(one.lengths, four.lengths)
    np.testing.assert_array_equal(one.observations["observation"], four.observations["observation"])
    np.testing.assert_array_equal(one.actions, four.actions)


def test_what_the_dataset_says_of_itself(tmp_path):
    summary, data, env = recorded(
        "AdroitHandDoor-v1", 28, tmp_path, num_envs=2, episodes=3, max_episode_steps=6
    )
    assert data.env_id == "AdroitHandDoor-v1"
    assert data.metadata["algorithm_name"] == "wave"
    assert data.metadata["suite"]["reward"] == "fixed"
    assert "reward: sign of the palm-to-object distance" in data.metadata["suite"]["repairs"]
    assert [row["seed"] for row in episode_metadata("test/set-v0", tmp_path)] == [30, 31, 32]
    assert summary.success_rate == 0.0
    assert not any(row["success"] for row in episode_metadata("test/set-v0", tmp_path))
    assert np.flatnonzero(data.truncations).tolist() == [5, 11, 17]
    spec = gym.envs.registration.EnvSpec.from_json(data.metadata["env_spec"])
    assert spec.max_episode_steps == 6
    assert gym.make(spec).observation_space == env.single_observation_space


@pytest.mark.parametrize(
    ("env_id", "size", "fields"),
    [
        ("FetchReach-v4", 4, {"observation", "achieved_goal", "desired_goal"}),
        ("embodied/Desk-v0", 7, {"observation", "desired_goal"}),
    ],
)
def test_goal_conditioned_observations(tmp_path, env_id, size, fields):
    _, data, _ = recorded(env_id, size, tmp_path, num_envs=2, episodes=2, max_episode_steps=5)
    assert set(data.observations) == fields
    assert data.lengths.tolist() == [5, 5]
    assert data.env_id == env_id
    if env_id.startswith("embodied"):
        assert all("block" in row["instruction"] for row in episode_metadata("test/set-v0", tmp_path))


def test_nested_goals_of_the_kitchen(tmp_path):
    tasks = ["microwave", "kettle"]
    _, data, _ = recorded(
        "FrankaKitchen-v1", 9, tmp_path, num_envs=1, episodes=1, max_episode_steps=3, tasks_to_complete=tasks
    )
    assert {"observation", "desired_goal/kettle", "achieved_goal/microwave"} <= set(data.observations)


def test_noise_is_recorded_bounded_and_repeatable(tmp_path):
    plain = recorded("Hopper-v5", 3, tmp_path, num_envs=2)[1]
    plain_actions = np.array(plain.actions)
    noisy, again = (
        np.array(recorded("Hopper-v5", 3, tmp_path, num_envs=2, noise=0.5)[1].actions) for _ in "ab"
    )
    np.testing.assert_array_equal(noisy, again)
    assert noisy.std() > plain_actions.std() + 0.1
    assert np.abs(noisy).max() <= 1.0


def test_several_policies_in_one_dataset(tmp_path):
    env = make_vec("Hopper-v5", 2)
    with Recorder("test/mixed-v0", collect.info_of(env), tmp_path) as recorder:
        for share, noise in enumerate((0.0, 0.4)):
            collect.record(Wave(3), env, recorder, episodes=2, seed=100 * share, noise=noise)
    assert [row["seed"] for row in episode_metadata("test/mixed-v0", tmp_path)] == [0, 1, 100, 101]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"episodes": 0}, "episodes=0: must be"), ({"episodes": 1, "noise": -1}, "noise=-1")],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        next(collect.episodes_of(Wave(3), make_vec("Hopper-v5", 1), seed=0, **kwargs))


def test_images_of_the_desk_are_read_back_identically(tmp_path):
    kwargs = {"obs": "state+rgb", "image_size": 16, "textures": True, "max_episode_steps": 3}
    env = make_vec("embodied/Desk-v0", 2, **kwargs)
    with Recorder("desk/seen-v0", collect.info_of(env, jpeg_encoding=False), tmp_path) as recorder:
        collect.record(Wave(7), env, recorder, episodes=2, seed=30)
    data = load("desk/seen-v0", tmp_path)
    stored = minari.MinariDataset(tmp_path / "desk/seen-v0/data")
    desk = make("embodied/Desk-v0", **kwargs)
    for index, minaris in enumerate(stored.iterate_episodes()):
        episode = data.episode(index)
        obs, _ = desk.reset(seed=30 + index)
        for step in range(4):
            for key, value in obs.items():
                np.testing.assert_array_equal(episode["observations"][key][step], value)
                np.testing.assert_array_equal(minaris.observations[key][step], value)
            if step < 3:
                obs, *_ = desk.step(episode["actions"][step])
        assert episode["observations"]["rgb_wrist"].dtype == np.uint8
