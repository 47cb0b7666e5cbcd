import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

import envs.desk  # noqa: F401 - registers the environment
from envs.desk.env import DeskEnv
from envs.desk.sensing import MAX_DEPTH
from envs.desk.vector import DeskVectorEnv

SMALL = {"obs": "rgbd", "image_size": (24, 32), "num_threads": 1}


def actions(env: DeskVectorEnv, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, env.action_space.shape).astype(np.float32)


@pytest.mark.parametrize("task", ["open_drawer", ["lift_block", "open_drawer"]])
def test_images_and_what_is_asked_but_no_hidden_state(task):
    env = DeskVectorEnv(2, task, **SMALL | {"obs": "rgb+segmentation"})
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    names = {f"{kind}_{camera}" for kind in ("rgb", "segmentation") for camera in ("static", "wrist")}
    asked = {"desired_goal"} if isinstance(task, list) else set()
    assert set(obs) == names | asked | {"proprioception"}
    assert obs["rgb_wrist"].shape == (2, 24, 32, 3)
    assert obs["rgb_wrist"].dtype == np.uint8
    assert obs["segmentation_static"].dtype == np.int32
    full, _ = DeskVectorEnv(2, task).reset(seed=0)
    np.testing.assert_array_equal(obs["proprioception"], full["observation"][:, :22])
    if asked:  # which block and which task, not where the block lies
        assert obs["desired_goal"].shape[1] == full["desired_goal"].shape[1] - 6


def test_state_goes_beside_images():
    env = DeskVectorEnv(2, **SMALL | {"obs": "state+rgbd", "cameras": ["wrist"]})
    obs, _ = env.reset(seed=0)
    full, _ = DeskVectorEnv(2).reset(seed=0)
    assert set(obs) == {"observation", "desired_goal", "rgb_wrist", "depth_wrist"}
    np.testing.assert_array_equal(obs["observation"], full["observation"])
    assert obs["depth_wrist"].dtype == np.float32
    assert 0 < obs["depth_wrist"].min() < 0.3 < obs["depth_wrist"].max() <= MAX_DEPTH


def play(env: DeskVectorEnv, seeds: list[int]) -> dict[int, list[dict]]:
    """Observations of each simulation, by seed, over two automatic resets."""
    obs, _ = env.reset(seed=seeds)
    steps = [obs]
    for t in range(7):
        action = np.stack([np.random.default_rng([seed, t]).uniform(-1, 1, 7) for seed in seeds])
        steps.append(env.step(action.astype(np.float32))[0])
    return {seed: [{k: v[i] for k, v in step.items()} for step in steps] for i, seed in enumerate(seeds)}


def test_images_do_not_depend_on_thread_count_batch_size_and_position():
    kwargs = SMALL | {"task": ["lift_block", "turn_on_led"], "max_episode_steps": 3}
    reference = play(DeskVectorEnv(1, **kwargs), [5])[5]
    for num_threads, seeds in ((1, [3, 5, 9]), (2, list(range(12, 0, -1)))):
        other = play(DeskVectorEnv(len(seeds), **kwargs | {"num_threads": num_threads}), seeds)[5]
        for ours, theirs in zip(reference, other, strict=True):
            for key in ours:
                np.testing.assert_array_equal(ours[key], theirs[key])


def test_single_environment_sees_the_same():
    single = DeskEnv("lift_block", obs="rgbd", image_size=24)
    vector = DeskVectorEnv(1, "lift_block", obs="rgbd", image_size=24)
    (a, _), (b, _) = single.reset(seed=4), vector.reset(seed=4)
    for _ in range(2):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key][0])
        action = actions(vector)
        a, b = single.step(action[0])[0], vector.step(action)[0]


def test_final_images_are_those_before_the_reset():
    env = DeskVectorEnv(2, **SMALL | {"max_episode_steps": 2})
    longer = DeskVectorEnv(2, **SMALL)
    env.reset(seed=0), longer.reset(seed=0)
    for _ in range(2):
        obs, *_, infos = env.step(actions(env))
        true, *_ = longer.step(actions(env))
    for i in range(2):
        for key in true:
            np.testing.assert_array_equal(infos["final_obs"][i][key], true[key][i])
        assert (infos["final_obs"][i]["rgb_static"] != obs["rgb_static"][i]).any()


def test_a_partial_reset_changes_only_its_images():
    env = DeskVectorEnv(3, **SMALL)
    before, _ = env.reset(seed=0)
    mask = np.array([False, True, False])
    after, _ = env.reset(options={"reset_mask": mask})
    assert (before["rgb_static"] != after["rgb_static"]).any(axis=(1, 2, 3)).tolist() == mask.tolist()


def test_a_failed_simulation_keeps_its_last_image():
    env = DeskVectorEnv(2, **SMALL)
    before, _ = env.reset(seed=0)
    action = actions(env)
    action[1] = np.nan
    *_, infos = env.step(action)
    np.testing.assert_array_equal(infos["final_obs"][1]["rgb_static"], before["rgb_static"][1])


def test_lights_are_seen_in_the_step_that_switches_them():
    env = DeskVectorEnv(1, "turn_on_led", obs="segmentation", cameras=["static"], terminate_on_success=False)
    obs, _ = env.reset(seed=0)
    sim = env.episodes.sim
    assert not (obs["segmentation_static"] == sim.model.geom("led_lit").id).any()
    button = int(sim.model.joint("button").qposadr[0])
    # The spring is strong, so the button is held down by an applied force.
    sim.batch.bind("qfrc_applied")[0, int(sim.model.joint("button").dofadr[0])] = -20.0
    obs, *_ = env.step(np.zeros((1, 7), np.float32))
    assert sim.batch.bind("qpos")[0, button] < -0.006
    assert (obs["segmentation_static"] == sim.model.geom("led_lit").id).any()


def test_parameters_change_the_next_image():
    env = DeskVectorEnv(2, **SMALL)
    env.reset(seed=0)
    env.set_parameters({"color_desk_r": 0.1}, np.array([True, False]))
    after, *_ = env.step(np.zeros((2, 7)))
    same = DeskVectorEnv(2, **SMALL)
    same.reset(seed=0)
    unchanged, *_ = same.step(np.zeros((2, 7)))
    np.testing.assert_array_equal(after["rgb_static"][1], unchanged["rgb_static"][1])
    assert (after["rgb_static"][0] != unchanged["rgb_static"][0]).mean() > 0.03


@pytest.mark.filterwarnings("ignore:.*Box observation space (minimum|maximum) value is.*infinity")
def test_gymnasium_checks_and_makes_image_environments():
    check_env(gym.make("embodied/Desk-v0", obs="rgbd+segmentation+state", image_size=24).unwrapped)
    vector = gym.make_vec("envs.desk:embodied/Desk-v0", num_envs=2, obs="rgb", image_size=24)
    obs, _ = vector.reset(seed=0)
    assert obs["rgb_static"].shape == (2, 24, 24, 3)


def test_stable_baselines_learns_from_images():
    env = make_vec_env(DeskEnv, n_envs=2, env_kwargs={"obs": "rgb", "image_size": 36, "max_episode_steps": 4})
    model = PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, n_epochs=1, seed=0)
    before = model.policy.action_net.weight.detach().clone()
    model.learn(8)
    assert model.num_timesteps == 8
    assert not (model.policy.action_net.weight == before).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"obs": "rgbb"}, "obs='rgbb'.*did you mean 'rgb'"),
        ({"obs": "rgb+rgbd"}, "obs=.*each once"),
        ({"obs": ""}, "obs=''"),
        ({"obs": "rgb", "cameras": ["statik"]}, "camera='statik'.*did you mean 'static'"),
        ({"obs": "rgb", "cameras": "statik"}, "camera='statik'.*did you mean 'static'"),
        ({"obs": "rgb", "cameras": []}, "cameras=.*at least one"),
        ({"obs": "rgb", "image_size": 0}, "width=0"),
        ({"obs": "rgb", "image_size": (8, 8, 3)}, "image_size="),
        ({"obs": "rgb", "image_size": 64.0}, "image_size=64.0"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DeskVectorEnv(1, **kwargs)
