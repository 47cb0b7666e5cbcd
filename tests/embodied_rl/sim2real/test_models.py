"""Any MuJoCo task drawn anew for every episode."""

import mujoco
import numpy as np
import pytest

from embodied_rl.sim2real.models import (
    ModelParameters,
    RandomizedEnv,
    fixed,
    make_randomized,
    parameters_of,
)
from embodied_rl.sim2real.randomization import Config, Randomization
from envs.suites import make

FETCH = "FetchReach-v4"
HOPPER = "Hopper-v5"
XML = """<mujoco><worldbody>
<body name="rod" pos="0 0 1"><joint name="pivot" damping="0.5" axis="0 1 0"/>
  <geom name="rod" type="capsule" size="0.05 0.3" mass="2" friction="0.7 0.01 0.001"/>
  <body name="bob" pos="0 0 -0.6"><geom name="bob" size="0.1" mass="1"/></body></body>
</worldbody><actuator><motor name="motor" joint="pivot"/></actuator></mujoco>"""


def test_fields_by_name_factor_and_component():
    model = mujoco.MjModel.from_xml_string(XML)
    before = mujoco.MjModel.from_xml_string(XML)
    parameters = ModelParameters(model)
    parameters.set({"body_mass[bob]": 3.0, "geom_friction[rod,0]": 0.2, "dof_damping[pivot]": 2.0})
    bob = model.body("bob").id
    assert model.body_mass[bob] == pytest.approx(3.0)
    assert model.body_inertia[bob] == pytest.approx(3 * before.body_inertia[bob])
    assert model.body_subtreemass[model.body("rod").id] == pytest.approx(5.0)  # derived by mj_setConst
    assert model.dof_invweight0[0] < 0.9 * before.dof_invweight0[0]
    assert model.geom_friction[model.geom("rod").id] == pytest.approx([0.2, 0.01, 0.001])
    assert model.dof_damping[0] == pytest.approx(1.0)
    parameters.set({"body_mass[bob]": 2.0, "opt.gravity[2]": -3.0})  # from the first numbers, not the last
    assert model.body_mass[bob] == pytest.approx(2.0)
    assert model.opt.gravity[2] == -3.0


def test_a_component_of_a_field_of_single_numbers():
    model = mujoco.MjModel.from_xml_string(XML)
    ModelParameters(model).set({"body_mass[bob,0]": 4.0})
    assert model.body_mass[model.body("bob").id] == 4.0


def test_unknown_names_bring_the_nearest():
    with pytest.raises(ValueError, match=r"'body_mass\[torsoo\]'; did you mean 'body_mass\[torso"):
        fixed(HOPPER, Config(parameters={"body_mass[torsoo]": {"choice": [1.0]}}))
    with pytest.raises(ValueError, match="physically possible"):
        fixed(HOPPER, Config(parameters={"body_mass[torso]": {"uniform": [-1.0, 1.0]}}))


def test_patterns_match_inside_brackets():
    names = {
        rule.name for rule in fixed(HOPPER, Config(parameters={"body_mass[*o*]": {"choice": [1.0]}})).rules
    }
    assert "body_mass[torso]" in names
    assert all(name.startswith("body_mass[") for name in names)


def test_a_pattern_of_rows_is_of_factors():
    env = make_randomized(
        HOPPER, 1, fixed(HOPPER, Config(parameters={"body_mass[*]": {"uniform": [0.8, 1.2]}}))
    )
    env.reset(seed=0)
    drawn, nominal = env.envs[0].unwrapped.model.body_mass, make(HOPPER).unwrapped.model.body_mass
    assert drawn[0] == nominal[0] == 0.0  # the world weighs nothing
    assert ((drawn[1:] / nominal[1:] >= 0.8) & (drawn[1:] / nominal[1:] <= 1.2)).all()
    assert len(set((drawn[1:] / nominal[1:]).tolist())) == len(nominal) - 1
    components = fixed(HOPPER, Config(parameters={"body_mass[*,0]": {"choice": [1.0]}})).rules
    assert all(rule.name.endswith(",0]") for rule in components)


@pytest.mark.parametrize("env_id", ["PointMaze_UMaze-v3", "FrankaKitchen-v1"])
def test_what_drifts_from_step_to_step_in_every_suite(env_id: str):
    ranges = Config(parameters={"opt.gravity[2]": {"normal": [-9.8, 0.1], "correlation": 0.5}})
    env = make_randomized(env_id, 1, fixed(env_id, ranges))
    env.reset(seed=0)
    seen = [env.step(env.action_space.sample())[4]["parameters"]["opt.gravity[2]"][0] for _ in range(3)]
    assert len(set(seen)) > 1


def test_draws_reach_infos_and_repeat_with_the_seed():
    sampler = fixed(FETCH, Config(parameters={"dof_damping[*]": {"uniform": [0.5, 1.5]}}))
    env = make_randomized(FETCH, 2, sampler, max_episode_steps=2)
    draws = []
    for _ in range(2):
        _, info = env.reset(seed=4)
        draws.append({name: value.tolist() for name, value in info["parameters"].items()})
    assert draws[0] == draws[1]
    name = next(name for name in draws[0] if name.startswith("dof_damping"))
    assert draws[0][name][0] != draws[0][name][1]
    for _ in range(2):
        _, _, _, _, after = env.step(env.action_space.sample())
    assert after["final_info"]["parameters"][name].tolist() == draws[0][name]
    assert after["parameters"][name].tolist() != draws[0][name]


def test_unstable_draws_are_drawn_again_and_counted():
    env = make(HOPPER)
    table = parameters_of(HOPPER)
    stiffness = "jnt_stiffness[foot_joint,0]"
    wild = {
        "body_mass[foot]": {"choice": [1e-3]},
        "dof_armature[*]": {"choice": [1e-3]},
        stiffness: {"choice": [0.0, 1e9]},
    }
    randomized = RandomizedEnv(env, Randomization.of(Config(parameters=wild), table))
    stiff = [randomized.reset(seed=seed)[1]["parameters"][stiffness] for seed in range(12)]
    assert randomized.num_unstable > 0
    assert set(stiff) == {0.0}
    hopeless = {**wild, stiffness: {"choice": [1e9]}}
    with pytest.raises(ValueError, match=r"3 draws in a row .* jnt_stiffness\[foot_joint,0\]=1e\+09"):
        RandomizedEnv(env, Randomization.of(Config(parameters=hopeless), table), redraws=3).reset(seed=0)


def test_divergence_within_an_episode_ends_it():
    randomized = RandomizedEnv(make(HOPPER), fixed(HOPPER, Config()))
    obs, _ = randomized.reset(seed=0)
    randomized.unwrapped.data.qvel[:] = 1e12
    last, reward, terminated, truncated, info = randomized.step(np.zeros(3, np.float32))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert "diverged" in info["error"]
    assert np.array_equal(last, obs)


def test_only_mujoco_tasks():
    import gymnasium as gym

    with pytest.raises(ValueError, match="no MuJoCo model"):
        RandomizedEnv(gym.make("CartPole-v1"), fixed(HOPPER, Config()))
