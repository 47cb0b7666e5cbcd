import mujoco
import numpy as np
import pytest

from envs.desk.cameras import render
from envs.desk.env import DeskEnv
from envs.desk.parameters import MAX_LATENCY, Parameters, table
from envs.desk.scene import LATENCY_SAMPLES, PHYSICS_STEP, shared_model
from envs.desk.vector import DeskVectorEnv

TABLE = table(shared_model())


def play(env: DeskVectorEnv, steps: int, action: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Positions `[steps, N, nq]` under the same actions in every simulation, all from one start."""
    env.reset(seed=[seed] * env.num_envs)
    rng = np.random.default_rng(0)
    states = []
    for _ in range(steps):
        row = rng.uniform(-1, 1, 7) if action is None else action
        env.step(np.tile(row, (env.num_envs, 1)))
        states.append(env.episodes.sim.batch.bind("qpos").copy())
    return np.array(states)


def test_the_table_covers_what_can_vary():
    expected = {
        "mass_red", "friction_red", "link_mass", "arm_damping", "arm_frictionloss", "arm_gain",
        "gripper_gain", "offset_joint1", "gravity_z", "latency", "action_noise", "joint_noise",
        "object_noise", "object_offset", "push_force", "push_rate", "color_red_r", "color_desk_g",
        "light_key_brightness", "light_fill_x", "camera_static_x", "camera_wrist_roll",
        "camera_static_fovy", "friction_fingers",
    }  # fmt: skip
    assert expected <= set(TABLE)
    for name, parameter in TABLE.items():
        assert parameter.name == name
        assert parameter.low <= parameter.nominal <= parameter.high, name
        assert parameter.unit, name
        assert parameter.doc, name


@pytest.mark.parametrize("name", [name for name, p in TABLE.items() if p.setter])
def test_a_value_reaches_the_fields_of_its_simulations_only_and_goes_back(name):
    env = DeskVectorEnv(3, num_threads=1)
    batch, parameter = env.episodes.sim.batch, TABLE[name]
    value = parameter.nominal + 0.5 * (
        parameter.high - parameter.nominal or parameter.low - parameter.nominal
    )
    env.set_parameters({name: value}, mask=np.array([False, True, False]))

    def read(sim: int, field: str) -> np.ndarray:
        model = batch.get_model(sim)
        owner = model.opt if field.startswith("opt.") else model
        return np.array(getattr(owner, field.removeprefix("opt.")))

    for field in parameter.fields:
        np.testing.assert_array_equal(read(0, field), read(2, field))
        assert (read(1, field) != read(0, field)).any(), field
    assert env.episodes.parameters.values[name].tolist() == [parameter.nominal, value, parameter.nominal]
    env.set_parameters({name: parameter.nominal})
    for field in parameter.fields:
        np.testing.assert_allclose(read(1, field), read(0, field), atol=1e-12)


def test_values_as_they_stand_in_the_model():
    env = DeskVectorEnv(2, num_threads=1)
    values = {
        "mass_red": [0.1, 0.2],
        "arm_gain": [1.0, 1.5],
        "gravity_z": [-9.81, -8.0],
        "link_mass": [1.0, 1.2],
        "camera_static_fovy": 40.0,
        "camera_static_roll": [0.0, 0.1],
        "latency": [0.0, 0.1],
    }
    env.set_parameters(values)
    nominal, a, b = shared_model(), *(env.episodes.sim.batch.get_model(i) for i in range(2))
    assert (a.body("red").mass[0], b.body("red").mass[0]) == (0.1, 0.2)
    np.testing.assert_allclose(b.body("red").inertia, 2 * a.body("red").inertia)
    np.testing.assert_allclose(b.actuator("joint1").gainprm[0], 1.5 * nominal.actuator("joint1").gainprm[0])
    np.testing.assert_allclose(b.actuator("joint1").biasprm[1], 1.5 * nominal.actuator("joint1").biasprm[1])
    assert b.opt.gravity[2] == -8.0
    np.testing.assert_allclose(b.body("link3").mass, 1.2 * nominal.body("link3").mass)
    assert a.cam_fovy[nominal.camera("static").id] == 40.0
    turn = np.empty(4)
    mujoco.mju_mulQuat(turn, a.camera("static").quat * [1, -1, -1, -1], b.camera("static").quat)
    np.testing.assert_allclose(turn, [np.cos(0.05), 0, 0, np.sin(0.05)], atol=1e-9)
    assert (b.actuator_delay == 0.1).all()
    # Constants that the engine derives follow: a heavier block yields less to a constraint.
    body = nominal.body("red").id
    assert b.body_invweight0[body, 0] == pytest.approx(a.body_invweight0[body, 0] / 2)


def test_gravity_and_mass_act_on_what_falls_and_what_is_pushed():
    env = DeskVectorEnv(2, num_threads=1)
    env.set_parameters({"gravity_z": [-9.81, -8.0], "mass_red": [0.08, 0.4]})
    env.reset(seed=[0, 0])
    batch = env.episodes.sim.batch
    red = batch.joint("red")
    red.qpos[:, 2] = 0.5
    batch.step(nstep=20)
    time = 20 * PHYSICS_STEP
    fallen = 0.5 - red.qpos[:, 2]
    np.testing.assert_allclose(fallen, np.array([9.81, 8.0]) * time**2 / 2, rtol=0.06)
    env.reset(seed=[0, 0])
    before = red.qpos[:, 0].copy()
    batch.bind("xfrc_applied")[:, batch.model.body("red").id, 0] = 1.5  # N; above 0.08 kg's friction only
    batch.step(nstep=40)
    moved = red.qpos[:, 0] - before
    assert moved[0] > 0.05
    assert abs(moved[1]) < 0.005


def test_friction_of_a_block_decides_how_far_it_slides():
    env = DeskVectorEnv(2, num_threads=1)
    env.set_parameters({"friction_red": [0.3, 0.9]})
    env.reset(seed=[0, 0])
    batch = env.episodes.sim.batch
    red = batch.joint("red")
    start = red.qpos[:, :2].copy()
    red.qvel[:, 0] = 0.5
    batch.step(nstep=100)
    slid = np.linalg.norm(red.qpos[:, :2] - start, axis=1)
    # v^2 / (2 mu g)
    np.testing.assert_allclose(slid, 0.25 / (2 * 9.81 * np.array([0.3, 0.9])), rtol=0.15)


def test_weak_servos_track_worse_and_latency_comes_late():
    env = DeskVectorEnv(3, num_threads=1)
    up = np.array([0, 0, 1.0, 0, 0, 0, 1])
    env.set_parameters({"arm_gain": [1.0, 0.5, 1.0], "latency": [0.0, 0.0, MAX_LATENCY]})
    env.reset(seed=[0, 0, 0])
    start = env.episodes.sim.hand().pos[:, 2]
    height = []
    for _ in range(6):
        env.step(np.tile(up, (3, 1)))
        height.append(env.episodes.sim.hand().pos[:, 2] - start)
    nominal, weak, late = np.array(height).T
    assert weak[0] < 0.9 * nominal[0]
    assert abs(late[1]) < 1e-3  # for 0.2 s the servos still hold the first pose
    assert late[2] > 0.01


def test_latency_is_what_it_says():
    assert pytest.approx((LATENCY_SAMPLES - 1) * PHYSICS_STEP) == MAX_LATENCY
    env = DeskVectorEnv(2, num_threads=1)
    env.set_parameters({"latency": [0.0, 0.1]})  # one action late
    env.reset(seed=[3, 3])
    servo, track = env.episodes.sim.batch.bind("act"), []
    targets = env.episodes.sim.batch.bind("ctrl")
    for _ in range(4):
        env.step(np.tile([0.0, 0, 0.5, 0, 0, 0, 1], (2, 1)))
        track.append((targets[:, 3].copy(), servo[:, 3].copy()))
    commanded, followed = np.array(track).transpose(1, 0, 2)  # [4, 2] each
    np.testing.assert_allclose(followed[:, 0], commanded[:, 0], atol=1e-3)
    np.testing.assert_allclose(followed[1:, 1], commanded[:-1, 1], atol=1e-3)


def test_joint_offset_moves_the_hand_at_the_same_reading():
    env = DeskVectorEnv(2, num_threads=1)
    env.reset(seed=[0, 0])
    env.set_parameters({"offset_joint1": [0.0, 0.05]})
    hand = env.episodes.sim.hand()
    np.testing.assert_array_equal(hand.joints[0], hand.joints[1])
    radius = np.hypot(*hand.pos[0, :2])
    assert np.linalg.norm(hand.pos[1] - hand.pos[0]) == pytest.approx(0.05 * radius, rel=0.02)


def test_noise_is_on_the_observation_not_on_the_state():
    env = DeskVectorEnv(3, num_threads=1)
    env.set_parameters(
        {"object_noise": [0.0, 0.01, 0.0], "object_offset": [0.0, 0.0, 0.01], "joint_noise": 0.0}
    )
    env.set_parameters({"joint_noise": [0.0, 0.02, 0.0]})
    states = play(env, 3)
    np.testing.assert_array_equal(states[:, 0], states[:, 1])
    layout = env.episodes.layout
    seen = []
    env.reset(seed=[0, 0, 0])
    for _ in range(40):
        obs, *_ = env.step(np.zeros((3, 7)))
        seen.append(obs["observation"].copy())
    error = np.array(seen)[:, 1:] - np.array(seen)[:, :1]
    assert error[:, 0, layout["joints"]].std() == pytest.approx(0.02, rel=0.15)
    assert error[:, 0, layout["blocks"]].std() == pytest.approx(0.01, rel=0.15)
    assert np.ptp(error[:, 1, layout["blocks"]], axis=0).max() < 1e-6  # an offset stays for the episode
    assert np.abs(error[0, 1, layout["blocks"]]).max() > 1e-3


def test_action_noise_and_pushes_disturb_only_where_they_are_set():
    env = DeskVectorEnv(3, num_threads=1)
    env.set_parameters({"action_noise": [0.0, 0.3, 0.0], "push_force": [0.0, 0.0, 5.0], "push_rate": 5.0})
    quiet = play(DeskVectorEnv(1, num_threads=1), 8, np.zeros(7))
    states = play(env, 8, np.zeros(7))
    np.testing.assert_array_equal(states[:, 0], quiet[:, 0])
    arm, blocks = slice(0, 7), slice(9, None)
    assert np.abs(states[:, 1, arm] - quiet[:, 0, arm]).max() > 0.005
    assert np.abs(states[:, 2, blocks] - quiet[:, 0, blocks]).max() > 0.01
    env.set_parameters({"push_force": 0.0, "action_noise": 0.0})
    np.testing.assert_array_equal(play(env, 8, np.zeros(7))[:, 2], quiet[:, 0])


def test_same_seed_same_bits_with_parameters_at_any_position():
    values = {"mass_red": 0.2, "latency": 0.05, "action_noise": 0.1, "push_force": 3.0, "push_rate": 2.0,
              "object_noise": 0.01}  # fmt: skip
    one, many = DeskVectorEnv(1, num_threads=1), DeskVectorEnv(4, num_threads=2)
    one.set_parameters(values)
    many.set_parameters({name: [TABLE[name].nominal] * 2 + [value] * 2 for name, value in values.items()})
    np.testing.assert_array_equal(play(one, 15)[:, 0], play(many, 15)[:, 3])


def test_noise_of_one_episode_does_not_depend_on_when_others_end():
    values = {"joint_noise": 0.01, "object_noise": 0.01}
    envs = [DeskVectorEnv(2, num_threads=1) for _ in range(2)]
    for env in envs:
        env.set_parameters(values)
        obs, _ = env.reset(seed=3)
    before = obs["observation"].copy()
    obs, _ = envs[1].reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(obs["observation"][1], before[1])
    assert (obs["observation"][0] != before[0]).any()
    after = [env.step(np.zeros((2, 7)))[0]["observation"][1] for env in envs]
    np.testing.assert_array_equal(*after)


def test_cameras_see_colours_lights_and_poses():
    env = DeskVectorEnv(4, num_threads=1)
    env.set_parameters({"color_desk_g": [0.66, 0.1, 0.66, 0.66], "light_key_brightness": [1, 1, 0.2, 1],
                        "camera_static_x": TABLE["camera_static_x"].nominal})  # fmt: skip
    env.set_parameters({"camera_static_yaw": [0, 0, 0, 0.1]})
    env.reset(seed=[0] * 4)
    images = np.stack(env.render()).astype(float)
    assert images[1, ..., 1].mean() < images[0, ..., 1].mean() - 10
    assert images[2].mean() < images[0].mean() - 5
    assert np.abs(images[3] - images[0]).mean() > 2
    batch = env.episodes.sim.batch
    same = render(env.episodes.model(0), batch.get_data(0), "static", 64, 48).rgb
    np.testing.assert_array_equal(same, render(batch.model, batch.get_data(0), "static", 64, 48).rgb)


def test_infos_report_the_values_that_were_set():
    env = DeskVectorEnv(2, num_threads=1)
    _, infos = env.reset(seed=0)
    assert "parameters" not in infos
    env.set_parameters({"mass_red": [0.1, 0.2]})
    _, infos = env.reset()
    assert list(infos["parameters"]) == [{"mass_red": 0.1}, {"mass_red": 0.2}]
    single = DeskEnv()
    single.set_parameters({"latency": 0.1})
    assert single.reset(seed=0)[1]["parameters"] == {"latency": 0.1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mass_rad": 0.1}, "parameter='mass_rad'.*did you mean 'mass_red'"),
        ({"mass_red": 50.0}, r"mass_red=50 in simulation 0: must be between 0.02 and 0.48 kg"),
        (
            {"gravity_z": [-9.81, 0.0]},
            r"gravity_z=0 in simulation 1: must be between -11.81 and -7.81 m/s\^2",
        ),
        ({"mass_red": np.nan}, "mass_red=nan"),
        ({"mass_red": "heavy"}, "mass_red='heavy': expected numbers in kg"),
        ({"texture_desk": "clot"}, "texture_desk='clot'.*did you mean 'cloth'"),
        ({"mass_red": [0.1, 0.1, 0.1]}, r"shape \(3,\): expected one number or \[2\]"),
    ],
)
def test_bad_values_change_nothing(values, message):
    env = DeskVectorEnv(2, num_threads=1)
    with pytest.raises(ValueError, match=message):
        env.set_parameters({"friction_red": 0.5, **values})
    assert env.episodes.parameters.row(0) == {}
    with pytest.raises(ValueError, match="mask"):
        env.set_parameters({"mass_red": 0.1}, mask=[True])


def test_a_texture_may_be_named():
    env = DeskVectorEnv(2, num_threads=1)
    env.set_parameters({"texture_desk": ["wood", "cloth"], "texture_floor": "tiles"})
    assert env.episodes.parameters.values["texture_desk"].tolist() == [0.0, 2.0]
    assert env.episodes.parameters.values["texture_floor"].tolist() == [1.0, 1.0]


def test_only_the_masked_simulations_are_checked_and_changed():
    env = DeskVectorEnv(2, num_threads=1)
    parameters: Parameters = env.episodes.parameters
    env.set_parameters({"mass_red": [0.1, np.nan]}, mask=np.array([True, False]))
    assert parameters.values["mass_red"].tolist() == [0.1, 0.08]
