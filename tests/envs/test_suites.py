import subprocess
import sys

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs import suites
from envs.frames import render_frame


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("AdroitHandDor-v1", "AdroitHandDoor-v1"),
        ("hopper-v5", "Hopper-v5"),
        ("embodied/desk-v0", "embodied/Desk-v0"),
    ],
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
        ({"num_envs": 1, "legs": 3}, "Hopper-v5: does not take {'legs': 3}"),
        ({"num_envs": 1, "reward": "original"}, "reward='original': must be one of"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        suites.make_vec("Hopper-v5", **kwargs)


def d4rl_distance_term(env):
    """The first reward term of D4RL's door, hammer and relocate, -0.1 * ||palm - object||."""
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
    kitchen = env.unwrapped
    still = np.zeros(env.action_space.shape)
    kitchen.episode_task_completions[:] = ["kettle"]
    assert env.step(still)[4]["is_success"] is False
    kitchen.episode_task_completions[:] = ["kettle", "microwave"]
    _, _, terminated, _, info = env.step(still)
    assert terminated
    assert info["is_success"] is True


def test_desk_comes_from_the_same_factory():
    single, vec = suites.make(suites.DESK, task="lift_block"), suites.make_vec(suites.DESK, 2, threads=1)
    assert vec.single_observation_space == single.observation_space
    obs, infos = vec.reset(seed=[3, 4])
    one, info = single.reset(seed=4)
    np.testing.assert_array_equal(obs["observation"][1], one["observation"])
    assert infos["is_success"].dtype == bool
    assert info["is_success"] is False
    assert vec.spec.id == single.spec.id == suites.DESK
    rebuilt = gym.make(gym.envs.registration.EnvSpec.from_json(single.spec.to_json()))
    assert rebuilt.observation_space == single.observation_space
    with pytest.raises(ValueError, match="vectorised by itself"):
        suites.make_vec(suites.DESK, 2, parallel=True)


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
        render_frame(envs[1])
    envs[1].close()


def test_joint_type_repair_touches_one_module_only():
    from gymnasium_robotics.utils import mujoco_utils

    suites.make("FetchReach-v4")
    assert mujoco_utils.mujoco.MjModel is mujoco.MjModel
    assert int(mujoco.mjtJoint.mjJNT_HINGE) == mujoco_utils.mujoco.mjtJoint.mjJNT_HINGE
    assert not isinstance(mujoco.mjtJoint.mjJNT_HINGE, int), "the real package is unchanged"


def test_neither_torch_nor_jax_is_imported():
    code = "import sys, envs.suites as s; s.make('Hopper-v5'); print({'torch', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
