import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs.desk.cameras import render
from envs.desk.experts import Expert
from envs.desk.scene import DESK
from envs.desk.vector import DeskVectorEnv

BOTH = ["lift_block", "place_block"]


def play(env: DeskVectorEnv, seeds: list[int], steps: int = 25) -> dict[int, list[np.ndarray]]:
    """Observations and rewards of every seed under actions that depend on the seed alone."""
    rngs = [np.random.default_rng(1000 + seed) for seed in seeds]
    obs, _ = env.reset(seed=seeds)
    track = {seed: [obs["observation"][i]] for i, seed in enumerate(seeds)}
    for _ in range(steps):
        obs, reward, *_ = env.step(np.stack([rng.uniform(-1, 1, 7) for rng in rngs]))
        for i, seed in enumerate(seeds):
            track[seed] += [obs["observation"][i], obs["desired_goal"][i], reward[i : i + 1]]
    return track


def test_same_seed_same_bits_at_any_thread_count_batch_size_and_position():
    kwargs = {"task": BOTH, "max_episode_steps": 10}  # short: the comparison covers two automatic resets
    reference = play(DeskVectorEnv(1, num_threads=1, **kwargs), [5])[5]
    for num_threads, seeds in ((1, [3, 5, 9]), (2, [5, 1, 2, 3, 4]), (2, list(range(12, 4, -1)))):
        other = play(DeskVectorEnv(len(seeds), num_threads=num_threads, **kwargs), seeds)[5]
        assert all(np.array_equal(a, b) for a, b in zip(reference, other, strict=True))


def test_integer_seed_counts_up_and_a_new_reset_goes_on():
    env = DeskVectorEnv(3)
    first, _ = env.reset(seed=7)
    listed, _ = env.reset(seed=[7, 8, 9])
    np.testing.assert_array_equal(first["observation"], listed["observation"])
    second, _ = env.reset()
    assert (second["observation"] != first["observation"]).any(axis=1).all()


def test_unseeded_environments_differ():
    a, _ = DeskVectorEnv(1).reset()
    b, _ = DeskVectorEnv(1).reset()
    assert (a["observation"] != b["observation"]).any()


def test_reset_mask_touches_only_its_simulations():
    env = DeskVectorEnv(4, num_threads=1)
    env.reset(seed=0)
    for _ in range(3):
        env.step(env.action_space.sample())
    before = env.episodes.sim.batch.state.copy()
    env.reset(options={"reset_mask": np.array([False, True, False, False])})
    after = env.episodes.sim.batch.state
    assert (before != after).any(axis=1).tolist() == [False, True, False, False]
    assert env.episodes.elapsed.tolist() == [3, 0, 3, 3]
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(options={"reset_mask": np.array([True])})


def test_time_limit_truncates_and_resets_in_the_same_step():
    env = DeskVectorEnv(2, max_episode_steps=3)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=0)
    action = np.zeros((2, 7), np.float32)
    for step in range(3):
        obs, _, terminated, truncated, infos = env.step(action)
        assert not terminated.any()
        assert truncated.all() == (step == 2)
        assert ("final_obs" in infos) == (step == 2)
    assert set(infos["final_obs"][0]) == {"observation", "desired_goal"}
    assert (infos["final_obs"][0]["observation"] != obs["observation"][0]).any()
    assert infos["_final_obs"].tolist() == infos["final_info"]["_is_success"].tolist() == [True, True]
    assert infos["final_info"]["is_success"].tolist() == [False, False]


def test_staggered_episodes_reset_one_by_one():
    env = DeskVectorEnv(2, max_episode_steps=4)
    env.reset(seed=0)
    env.step(np.zeros((2, 7)))
    env.reset(options={"reset_mask": np.array([True, False])})
    for _ in range(2):
        env.step(np.zeros((2, 7)))
    _, _, _, truncated, infos = env.step(np.zeros((2, 7)))
    assert truncated.tolist() == [False, True]
    assert infos["final_obs"][0] is None
    assert infos["_final_info"].tolist() == [False, True]


def test_a_nan_action_ends_only_that_episode():
    env = DeskVectorEnv(3)
    obs, _ = env.reset(seed=0)
    action = np.zeros((3, 7))
    action[1, 2] = np.nan
    after, reward, terminated, truncated, infos = env.step(action)
    assert truncated.tolist() == [False, True, False]
    assert not terminated.any()
    assert reward[1] == 0.0
    assert "not finite" in infos["error"][1]
    assert infos["_error"].tolist() == infos["final_info"]["_error"].tolist() == [False, True, False]
    np.testing.assert_array_equal(infos["final_obs"][1]["observation"], obs["observation"][1])
    assert np.isfinite(after["observation"]).all()
    healthy = DeskVectorEnv(3)
    healthy.reset(seed=0)
    expected, *_ = healthy.step(np.zeros((3, 7)))
    np.testing.assert_array_equal(after["observation"][[0, 2]], expected["observation"][[0, 2]])


@pytest.mark.parametrize("value", [np.nan, 1e12])
def test_diverged_physics_ends_only_that_episode(value: float, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning to a log in the current folder
    env = DeskVectorEnv(2)
    env.reset(seed=0)
    env.episodes.sim.batch.bind("qvel")[0, -1] = value
    obs, _, _, truncated, infos = env.step(np.zeros((2, 7)))
    assert truncated.tolist() == [True, False]
    assert "diverged" in infos["error"][0]
    assert np.isfinite(infos["final_obs"][0]["observation"]).all()
    for _ in range(3):
        obs, *_ = env.step(np.zeros((2, 7)))
    assert np.isfinite(obs["observation"]).all()


def test_errors_can_raise_instead(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = DeskVectorEnv(2, on_error="raise")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="simulation 0: action"):
        env.step(np.full((2, 7), np.nan))
    env.episodes.sim.batch.bind("qvel")[1, -1] = np.nan
    with pytest.raises(FloatingPointError, match="simulation 1: the physics diverged"):
        env.step(np.zeros((2, 7)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "num_envs=0"),
        ({"num_threads": 0}, "num_threads=0"),
        ({"task": "lift_blck"}, "did you mean 'lift_block'"),
        ({"obs": "stat"}, "did you mean 'state'"),
        ({"colors": ["blu"]}, "did you mean 'blue'"),
        ({"colors": "blu"}, "colors='blu'.*did you mean 'blue'"),
        ({"colours": "blue"}, "argument='colours'.*did you mean 'colors'"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"max_episode_steps": 0}, "max_episode_steps=0"),
        ({"max_episode_steps": "60"}, "max_episode_steps='60': expected int"),
        ({"textures": "false"}, "textures='false': expected bool"),
        ({"obs": ["rgb"]}, "expected str"),
        ({"task": 3}, "task=3: expected one of"),
        ({"num_envs": 2.5}, "num_envs=2.5: must be an integer"),
        ({"render_mode": "human"}, "render_mode='human'"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DeskVectorEnv(**kwargs)


def test_misuse_is_named():
    env = DeskVectorEnv(2)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros((2, 7)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(2, 6\): expected \(2, 7\)"):
        env.step(np.zeros((2, 6)))
    with pytest.raises(ValueError, match="action: expected numbers"):
        env.step([["left"] * 7] * 2)
    for seed in ([1, 2, 3], 1.5, -1, ["a", "b"], [1.5, 2.5], np.array(3), 2**70):
        with pytest.raises(ValueError, match="seed="):
            env.reset(seed=seed)
    with pytest.raises(ValueError, match="first reset must begin all 2"):
        DeskVectorEnv(2).reset(options={"reset_mask": np.array([True, False])})


def test_colors_and_tasks_are_drawn_per_episode():
    env = DeskVectorEnv(64, BOTH, colors=["blue", "pink"])
    obs, infos = env.reset(seed=0)
    assert set(infos["color"]) == {"blue", "pink"}
    assert set(infos["task"]) == set(BOTH)
    assert all(c in text for c, text in zip(infos["color"], infos["instruction"], strict=True))
    goal, where = obs["desired_goal"], env.episodes.goal_layout
    assert (goal[:, where["color"]].argmax(axis=1) == [DESK.colors.index(c) for c in infos["color"]]).all()
    assert (goal[:, where["task"]].argmax(axis=1) == [BOTH.index(t) for t in infos["task"]]).all()
    assert ((goal[:, where["goal"]] != 0).all(axis=1) == (infos["task"] == "place_block")).all()


def test_returned_observations_are_the_callers_own():
    env = DeskVectorEnv(2)
    obs, _ = env.reset(seed=0)
    obs["observation"][:] = np.nan
    after, *_ = env.step(np.zeros((2, 7)))
    assert np.isfinite(after["observation"]).all()


def test_make_vec_finds_the_native_environment():
    env = gym.make_vec("envs.desk:embodied/Desk-v0", num_envs=3, task="place_block")
    assert isinstance(env.unwrapped, DeskVectorEnv)
    recorded = gym.wrappers.vector.RecordEpisodeStatistics(env)
    recorded.reset(seed=0)
    for _ in range(3):
        recorded.step(recorded.action_space.sample())


def test_free_play_starts_anywhere_and_asks_for_what_is_possible():
    tasks = ["open_drawer", "close_drawer", "lift_red_block_slider", "turn_on_led"]
    env = DeskVectorEnv(48, tasks, start="play")
    obs, infos = env.reset(seed=0)
    assert set(infos["task"]) == set(tasks)
    drawer = obs["observation"][:, env.episodes.layout["furniture"]][:, 0]
    assert (drawer[infos["task"] == "open_drawer"] < 0.02).all()
    assert (drawer[infos["task"] == "close_drawer"] > 0.15).all()
    with pytest.raises(ValueError, match="none can begin"):
        DeskVectorEnv(1, "stack_block", start="play").reset(seed=0)


def test_lights_follow_button_and_switch_and_are_seen():
    env = DeskVectorEnv(1, ["turn_on_led", "turn_on_lightbulb"], terminate_on_success=False)
    expert = Expert(["turn_on_led", "turn_on_lightbulb"])
    for seed in range(4):
        obs, infos = env.reset(seed=seed)
        before = env.render()[0].astype(int)
        for _ in range(25):
            obs, *_ = env.step(expert.act(obs))
        light = int(infos["task"][0] == "turn_on_lightbulb")
        assert env.episodes.sim.state(env.episodes.sim.hand()).lights[0, light]
        data = env.episodes.sim.batch.get_data(0)
        image = render(env.episodes.sim.model, data, "static", 200, 152)
        lit = env.episodes.sim.model.geom(("led_lit", "bulb_lit")[light]).id
        assert (image.segmentation == lit).sum() > 10
        assert (env.render()[0] != before).any()
