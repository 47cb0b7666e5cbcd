import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs.desk  # noqa: F401 - registers the environment
from envs.desk.env import DeskEnv
from envs.desk.vector import DeskVectorEnv


@pytest.mark.parametrize("task", ["lift_block", ["lift_block", "place_block"]])
@pytest.mark.filterwarnings("ignore:.*Box observation space (minimum|maximum) value is.*infinity")
def test_gymnasium_checker_is_content(task):
    check_env(gym.make("embodied/Desk-v0", task=task, render_mode="rgb_array").unwrapped)


def test_single_environment_is_the_vector_environment_with_one():
    single, vector = DeskEnv("place_block"), DeskVectorEnv(1, "place_block")
    (a, info), (b, infos) = single.reset(seed=4), vector.reset(seed=4)
    rng = np.random.default_rng(0)
    for _ in range(10):
        np.testing.assert_array_equal(a["observation"], b["observation"][0])
        assert info["instruction"] == infos["instruction"][0]
        action = rng.uniform(-1, 1, 7).astype(np.float32)
        a, r, _, _, info = single.step(action)
        b, rs, _, _, infos = vector.step(action[None])
        assert r == rs[0]
        assert info["reward_terms"] == {name: value[0] for name, value in infos["reward_terms"].items()}


def test_episode_does_not_reset_by_itself():
    env = DeskEnv(max_episode_steps=2)
    env.reset(seed=0)
    env.step(np.zeros(7))
    *_, truncated, info = env.step(np.zeros(7))
    assert truncated
    assert info["is_success"] is False


def test_faults_are_reported():
    env = DeskEnv()
    env.reset(seed=0)
    *_, truncated, info = env.step(np.full(7, np.nan))
    assert truncated
    assert "not finite" in info["error"]
    with pytest.raises(ValueError, match="expected"):
        env.step(np.zeros(3))


def test_render_shows_the_desk():
    env = DeskEnv(render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (304, 400, 3)
    assert frame.dtype == np.uint8
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 500
    assert DeskEnv().render() is None


def test_a_fresh_process_makes_it_without_importing_anything_first():
    code = (
        "import gymnasium; name = 'envs.desk:embodied/Desk-v0';"
        "print(gymnasium.make(name, task='open_drawer').reset(seed=0)[1]['task'],"
        "gymnasium.make_vec(name, num_envs=2, task='open_drawer').num_envs)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["open_drawer", "2"]


def test_gymnasium_makes_it_by_the_name_of_its_module():
    # Gymnasium 1.4 reads no entry points, so one of an import and the module's name is needed.
    env = gym.make("envs.desk:embodied/Desk-v0", task="open_drawer")
    assert isinstance(env.unwrapped, DeskEnv)
    vector = gym.make_vec("envs.desk:embodied/Desk-v0", num_envs=2, task="open_drawer")
    assert isinstance(vector.unwrapped, DeskVectorEnv)
    obs, _ = env.reset(seed=5)
    others, _ = vector.reset(seed=5)
    np.testing.assert_array_equal(obs["observation"], others["observation"][0])
