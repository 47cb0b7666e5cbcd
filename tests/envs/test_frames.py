import numpy as np
import pytest

from envs.frames import VIEWS, View, render_frame
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


def test_a_model_without_cameras_is_an_error():
    env = make("PointMaze_UMaze-v3")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="PointMaze_UMaze-v3: its model has no camera"):
        render_frame(env)


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
