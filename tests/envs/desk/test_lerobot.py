import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from embodied_rl.data.lerobot_format import observation_features
from envs.desk.lerobot import LeRobotDesk, make_env
from envs.desk.vector import DeskVectorEnv


@pytest.mark.filterwarnings("ignore:.*Box observation space (minimum|maximum) value is.*infinity")
def test_gymnasium_checker_is_content():
    check_env(LeRobotDesk("lift_block", image_size=16))


def test_it_is_the_desk_under_other_names():
    env, desk = LeRobotDesk(image_size=16), DeskVectorEnv(1, "calvin", obs="rgb", image_size=16)
    (obs, info), (expected, infos) = env.reset(seed=3), desk.reset(seed=3)
    for _ in range(2):
        np.testing.assert_array_equal(obs["pixels"]["wrist"], expected["rgb_wrist"][0])
        np.testing.assert_array_equal(obs["agent_pos"], expected["proprioception"][0])
        obs, *_, info = env.step(np.full(7, 0.5))
        expected, *_ = desk.step(np.full((1, 7), 0.5))
    assert (env.task, env.task_description) == (infos["task"][0], infos["instruction"][0])
    assert info["is_success"] is False
    assert env._max_episode_steps == 60
    assert (env.render().shape, env.metadata["render_fps"]) == ((304, 400, 3), 10)


def test_what_lerobots_evaluation_asks_of_environments():
    envs = make_env(2, task=["open_drawer", "close_drawer"], image_size=16, max_episode_steps=2)["desk"][0]
    obs, _ = envs.reset(seed=[0, 1])
    for pixels in obs["pixels"].values():
        assert (pixels.shape, pixels.dtype) == ((2, 16, 16, 3), np.uint8)  # channels last
    assert obs["agent_pos"].dtype == np.float32
    assert set(envs.call("task")) <= {"open_drawer", "close_drawer"}
    assert all("drawer" in text for text in envs.call("task_description"))
    envs.step(np.zeros((2, 7)))
    *_, infos = envs.step(np.zeros((2, 7)))
    assert infos["final_info"]["is_success"].tolist() == [False, False]


def test_recordings_and_environment_agree_on_lerobots_names():
    keys = {key for key, _ in observation_features(LeRobotDesk(image_size=16).observation_space).values()}
    assert keys == {"observation.images.static", "observation.images.wrist", "observation.state"}
    recorded = DeskVectorEnv(1, "calvin", obs="rgb+language", image_size=16).single_observation_space
    assert keys <= {key for key, _ in observation_features(recorded).values()}
