import numpy as np
import pytest

from envs.frames import VIEWS, View, before_reset, check_drawable, render_frame
from envs.suites import make, make_vec


@pytest.mark.parametrize(
    "env_id", ["Hopper-v5", "AdroitHandDoor-v1", "FetchReach-v4", "FrankaKitchen-v1", "embodied/Desk-v0"]
)
def test_pictures_show_something(env_id):
    env = make_vec(env_id, 2)
    env.reset(seed=0)
    frame = render_frame(env, 1, width=64, height=48)
    assert frame.shape == (48, 64, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 10
    with pytest.raises(ValueError, match="camera='nowhere'"):
        render_frame(env, camera="nowhere")


@pytest.mark.parametrize(
    "env_id", ["PointMaze_UMaze-v3", "Reacher-v5", "Pusher-v5", "InvertedPendulum-v5", "HandReach-v3"]
)
def test_a_model_without_cameras_is_shown_whole(env_id):
    env = make(env_id)
    env.reset(seed=0)
    before = render_frame(env, width=64, height=48).astype(int)
    assert before.std() > 10
    for _ in range(5):
        env.step(env.action_space.high)
    assert np.abs(render_frame(env, width=64, height=48) - before).max() > 20, "it follows the state"


@pytest.mark.parametrize("env_id", ["PointMaze_UMaze-v3", "AntMaze_UMaze-v5"])
def test_the_goal_of_a_maze_is_drawn_where_it_is(env_id):
    env = make(env_id)
    rows = []
    for cell in (1, 3):
        env.reset(seed=0, options={"goal_cell": np.array([cell, 2]), "reset_cell": np.array([2, 3])})
        frame = render_frame(env, width=160, height=120).astype(int)
        red = (frame[..., 0] > 100) & (frame[..., 1:].max(-1) < 60)
        assert red.any()
        rows.append(np.argwhere(red)[:, 0].mean())
    assert rows[1] - rows[0] > 30, "the second goal lies further down"


@pytest.mark.parametrize("env_id", ["Hopper-v5", "embodied/Desk-v0"])
def test_the_last_state_can_be_drawn_before_it_is_reset_away(env_id):
    vec, single = make_vec(env_id, 2, max_episode_steps=2), make(env_id, max_episode_steps=2)
    vec.reset(seed=[0, 5]), single.reset(seed=5)
    frames = []
    stop = before_reset(vec, 1, lambda: frames.append(render_frame(vec, 1, width=64, height=48)))
    for _ in range(2):
        assert not frames
        vec.step(np.stack([single.action_space.high] * 2))
        single.step(single.action_space.high)
    np.testing.assert_array_equal(frames[0], render_frame(single, width=64, height=48))
    stop()
    for _ in range(2):
        vec.step(np.stack([single.action_space.high] * 2))
    assert len(frames) == 1


def test_what_is_not_mujoco_cannot_be_drawn():
    with pytest.raises(ValueError, match="Pendulum-v1: is no MuJoCo environment"):
        check_drawable(make_vec("Pendulum-v1", 1))
    check_drawable(make_vec("Hopper-v5", 1))
    maze = make("PointMaze_UMaze-v3")
    maze.unwrapped.point_env.fullpath = "gone.xml"
    with pytest.raises(ValueError, match=r"gone\.xml"):
        check_drawable(maze)


def test_drawing_does_not_disturb_the_simulation():
    envs = [make("FetchReach-v4"), make("FetchReach-v4")]
    rng = np.random.default_rng(0)
    for env in envs:
        env.reset(seed=3)
    for _ in range(5):
        action = rng.uniform(-1, 1, 4)
        render_frame(envs[0], width=32, height=32)
        drawn, plain = (env.step(action)[0]["observation"] for env in envs)
        np.testing.assert_array_equal(drawn, plain)


def test_a_place_looks_at_its_target(monkeypatch):
    """Looking down beside the ant, it appears on the other side of the middle."""
    env = make("Ant-v5")
    env.reset(seed=0)
    for lookat, column in [((0.0, 0.0, 0.5), 0.5), ((2.0, 0.0, 0.5), 0.25)]:
        view = View(lookat=lookat, distance=9.0, azimuth=90.0, elevation=-80.0)
        monkeypatch.setitem(VIEWS, "Ant", view)
        frame = render_frame(env, width=64, height=64).astype(int)
        brown = (
            (frame[..., 0] > 60) & (frame[..., 0] > frame[..., 1] + 20) & (frame[..., 0] > frame[..., 2] + 40)
        )
        assert brown.any()
        assert np.flatnonzero(brown.any(axis=0)).mean() / 64 == pytest.approx(column, abs=0.12)
