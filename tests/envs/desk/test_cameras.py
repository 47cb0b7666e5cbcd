import gymnasium as gym
import gymnasium_robotics
import mujoco
import numpy as np
import pytest

from envs.desk.cameras import Quality, find_camera, render
from envs.desk.scene import shared_model

# A camera two metres above a floor, looking straight down on a ball of radius 0.5 at the origin.
BALL = """
<mujoco>
  <visual><headlight ambient=".2 .2 .2" diffuse=".6 .6 .6"/></visual>
  <worldbody>
    <light name="sun" type="directional" pos="0 0 5" dir="1 0 -1" diffuse=".5 .5 .5"/>
    <geom name="floor" type="plane" size="5 5 1" rgba="0 1 0 1"/>
    <camera name="above" pos="0 0 2" fovy="90"/>
    <body mocap="true"><geom name="ball" type="sphere" size=".5" rgba="1 0 0 1"/></body>
    <geom name="hidden" type="sphere" size=".2" pos="0 0 1" group="3"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def ball() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(BALL)
    return model, mujoco.MjData(model)


def test_depth_and_identity_are_those_of_geometry(ball):
    model, data = ball
    image = render(model, data, "above", 41, 41)
    floor, sphere = model.geom("floor").id, model.geom("ball").id
    assert image.segmentation[20, 20] == sphere
    assert image.segmentation[0, 0] == floor
    assert image.depth[20, 20] == pytest.approx(1.5, abs=1e-6)
    # Depth is measured along the optical axis: the floor is equally deep in every corner.
    np.testing.assert_allclose(image.depth[[0, 0, -1, -1], [0, -1, 0, -1]], 2.0, atol=1e-6)


def test_headlight_is_lamberts_law(ball):
    model, data = ball
    model.light_active[:] = False
    image = render(model, data, "above", 41, 41)
    # Straight below, the ball faces the camera: ambient + diffuse = 0.8 of full red.
    assert image.rgb[20, 20].tolist() == [204, 0, 0]
    x = (0 + 0.5 - 20.5) * 2 / 41
    cosine = 1 / np.sqrt(1 + 2 * x * x)
    assert image.rgb[0, 0, 1] == pytest.approx(255 * (0.2 + 0.6 * cosine), abs=1)


def test_shadow_falls_away_from_the_light(ball):
    model, data = ball
    lit = render(model, data, "above", 64, 64).rgb.astype(int)
    shaded = render(model, data, "above", 64, 64, quality=Quality(shadows=(0, 1, 2))).rgb.astype(int)
    darker = (shaded < lit).any(axis=2)
    assert darker[32, 41:43].all()  # the light shines towards +x, which is right
    assert not darker[:, :14].any()
    assert not (shaded > lit).any()


def test_moving_an_object_moves_its_pixels(ball):
    model, data = ball
    data.mocap_pos[0] = (0.8, 0, 0)
    seen = render(model, data, "above", 32, 32).segmentation == model.geom("ball").id
    assert np.argwhere(seen)[:, 1].min() > 16


def test_more_samples_soften_edges_only(ball):
    model, data = ball
    coarse, fine = (render(model, data, "above", 32, 32, quality=Quality(samples=k)) for k in (1, 3))
    np.testing.assert_array_equal(fine.segmentation, coarse.segmentation)
    assert len(np.unique(fine.rgb.reshape(-1, 3), axis=0)) > len(np.unique(coarse.rgb.reshape(-1, 3), axis=0))


def test_nothing_hit_is_sky_at_infinity(ball):
    model, data = ball
    model.cam_quat[0] = (0, 1, 0, 0)  # look up
    image = render(model, data, "above", 8, 8)
    assert (image.segmentation == -1).all()
    assert np.isinf(image.depth).all()


@pytest.mark.parametrize("camera", ["static", "wrist"])
def test_desk_cameras_see_the_blocks_and_the_fingers(camera: str):
    model = shared_model()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    seen = {model.geom(i).name for i in np.unique(render(model, data, camera, 96, 96).segmentation) if i >= 0}
    assert {"red", "blue", "pink", "desk", "left_finger_2", "right_finger_2"} <= seen


def test_models_of_gymnasium_robotics_can_be_drawn():
    gym.register_envs(gymnasium_robotics)
    env = gym.make("AdroitHandDoor-v1").unwrapped
    env.reset(seed=0)
    image = render(env.model, env.data, 0, 48, 48)
    assert len(np.unique(image.segmentation)) > 3
    env.close()


def test_bad_requests_are_named(ball):
    model, data = ball
    with pytest.raises(ValueError, match=r"camera='abov'.*did you mean 'above'"):
        find_camera(model, "abov")
    with pytest.raises(ValueError, match="camera=1"):
        find_camera(model, 1)
    with pytest.raises(ValueError, match="width=0"):
        render(model, data, "above", 0, 4)
    with pytest.raises(ValueError, match="samples=0"):
        Quality(samples=0)
    with pytest.raises(ValueError, match="groups="):
        Quality(groups=(9,))
