import subprocess
import sys

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs import suites


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [("AdroitHandDor-v1", "AdroitHandDoor-v1"), ("hopper-v5", "Hopper-v5"), ("embodied/desk-v0", "embodied/Desk-v0")],
)
def test_unknown_id_names_the_nearest(env_id, expected):
    with pytest.raises(ValueError, match=f"did you mean .*{expected}"):
        suites.make(env_id)


def test_id_like_nothing_else_gets_no_hint():
    with pytest.raises(ValueError, match="no such environment$"):
        suites.make_vec("@@@@@@", 1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "num_envs=0: must be at least 1"),
        ({"num_envs": 1, "threads": 4}, "only embodied/Desk-v0 steps on threads"),
        ({"num_envs": 1, "reward": "original"}, "reward='original': must be one of"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        suites.make_vec("Hopper-v5", **kwargs)


def d4rl_distance_term(env):
    """The first reward term of D4RL's door, hammer and relocate: -0.1 * ||palm - object||, from the simulation."""
    raw = env.unwrapped
    palm = raw.data.site("S_grasp").xpos
    name = {"Door": "S_handle", "Hammer": None, "Relocate": None}[env.spec.id[10:-3]]
    there = raw.data.site(name).xpos if name else raw.data.body("Object").xpos
    return -0.1 * np.linalg.norm(palm - there)


@pytest.mark.parametrize("task", ["Door", "Hammer", "Relocate"])
def test_reward_sign_is_that_of_d4rl(task):
    env_id = f"AdroitHand{task}-v1"
    fixed, upstream = suites.make(env_id), suites.make(env_id, reward="upstream")
    rng = np.random.default_rng(0)
    for env in (fixed, upstream):
        env.reset(seed=1)
    for _ in range(5):
        action = rng.uniform(-1, 1, fixed.action_space.shape)
        ours, theirs = fixed.step(action)[1], upstream.step(action)[1]
        assert ours - theirs == pytest.approx(2 * d4rl_distance_term(fixed), abs=1e-9)
    assert fixed.metadata["suite"]["repairs"] != upstream.metadata["suite"]["repairs"]


def test_sparse_reward_is_left_alone():
    env = suites.make("AdroitHandDoorSparse-v1")
    env.reset(seed=0)
    assert env.step(np.zeros(env.action_space.shape))[1] == pytest.approx(-0.1)


def test_door_success_is_reported():
    env = suites.make("AdroitHandDoor-v1", max_episode_steps=300)
    env.reset(seed=0)
    state = env.unwrapped.get_env_state()
    state["qpos"][28] = 1.5  # hinge
    env.reset(options={"initial_state_dict": state})
    assert env.step(np.zeros(env.action_space.shape))[4]["is_success"]
    assert env.spec.max_episode_steps == 300


def test_kitchen_succeeds_when_every_task_was_completed():
    env = suites.make("FrankaKitchen-v1", tasks_to_complete=["microwave", "kettle"])
    env.reset(seed=0)
    wrapper = env
    assert not wrapper._is_success({"episode_task_completions": ["kettle"]})
    assert wrapper._is_success({"episode_task_completions": ["kettle", "microwave"]})


def test_spec_rebuilds_the_environment():
    env = suites.make_vec("AdroitHandDoor-v1", 1, max_episode_steps=300)
    rebuilt = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert rebuilt.observation_space == env.single_observation_space
    assert rebuilt.spec.max_episode_steps == 300


def test_parallel_environments_agree_with_serial_ones():
    envs = [suites.make_vec("Hopper-v5", 2, parallel=parallel) for parallel in (False, True)]
    assert envs[1].metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    for env in envs:
        env.reset(seed=[7, 8])
    action = np.full(envs[0].action_space.shape, 0.3, np.float32)
    serial, parallel = (env.step(action) for env in envs)
    np.testing.assert_array_equal(serial[0], parallel[0])
    np.testing.assert_array_equal(serial[4]["is_success"], parallel[4]["is_success"])
    assert envs[1].spec.id == "Hopper-v5"
    with pytest.raises(ValueError, match="other processes"):
        suites.render_frame(envs[1])
    envs[1].close()


def test_joint_type_repair_touches_one_module_only():
    from gymnasium_robotics.utils import mujoco_utils

    suites.make("FetchReach-v4")
    assert mujoco_utils.mujoco.MjModel is mujoco.MjModel
    assert int(mujoco.mjtJoint.mjJNT_HINGE) == mujoco_utils.mujoco.mjtJoint.mjJNT_HINGE
    assert not isinstance(mujoco.mjtJoint.mjJNT_HINGE, int), "the real package is unchanged"


def test_neither_torch_nor_jax_is_imported():
    code = "import sys, envs.suites; envs.suites.make('Hopper-v5'); assert not {'torch', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "AdroitHandDoor-v1", "FetchReach-v4"])
def test_frames_without_opengl(env_id):
    env = suites.make_vec(env_id, 1)
    env.reset(seed=0)
    frame = suites.render_frame(env, width=64, height=48)
    assert frame.shape == (48, 64, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 5, "the picture shows something"
    with pytest.raises(ValueError, match="camera='nowhere'"):
        suites.render_frame(env, camera="nowhere")
