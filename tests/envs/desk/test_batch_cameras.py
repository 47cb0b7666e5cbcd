import mujoco
import numpy as np
import pytest
from mujoco.batch import Batch

from envs.desk.batch_cameras import BatchCameras, Images
from envs.desk.cameras import Quality, render
from envs.desk.experts import Expert
from envs.desk.scene import COARSE_GROUPS
from envs.desk.vector import DeskVectorEnv

# Every shape, near and far, beside and behind the eye; a mesh that is open on one side.
SHAPES = """
<mujoco>
  <asset>
    <mesh name="roof" vertex="-.3 -.3 0  .3 -.3 0  .3 .3 0  -.3 .3 0  0 0 .3"
      face="0 1 4  1 2 4  2 3 4  3 0 4  0 3 2  0 2 1"/>
    <material name="paint" rgba=".1 .2 .9 1"/>
  </asset>
  <worldbody>
    <light name="lamp" pos="1 -1 3" diffuse=".5 .5 .4"/>
    <light name="sun" type="directional" pos="0 0 5" dir="1 0 -1" diffuse=".3 .3 .3" castshadow="false"/>
    <geom name="floor" type="plane" size="6 6 1" rgba=".3 .8 .3 1"/>
    <camera name="eye" pos="-.2 -2.6 1.5" xyaxes="1 .1 0 -.05 .5 .9" fovy="60"/>
    <camera name="above" pos="0 0 2.5" fovy="60"/>
    <geom name="ball" type="sphere" size=".35" pos="-1 0 .4" rgba="1 0 0 1"/>
    <geom name="pill" type="capsule" size=".15 .3" pos="-.3 .3 .6" euler="20 50 0"/>
    <geom name="egg" type="ellipsoid" size=".3 .15 .2" pos=".4 -.4 .3" euler="0 30 10" rgba="1 1 0 1"/>
    <geom name="can" type="cylinder" size=".2 .3" pos=".9 .5 .5" euler="60 0 20" material="paint"/>
    <geom name="pyramid" type="mesh" mesh="roof" pos=".3 .5 .1" rgba="0 .9 .9 1"/>
    <geom name="behind" type="box" size=".4 3 .02" pos=".9 -3 .6" euler="0 4 0" rgba=".5 .3 .2 1"/>
    <geom name="unseen" type="box" size=".3 .3 .3" pos="-.3 -1 .8" rgba="1 1 1 0"/>
    <body name="mover" pos="0 -.6 .2"><freejoint/>
      <geom name="cube" type="box" size=".12 .2 .1" rgba=".9 .4 .7 1"/>
    </body>
  </worldbody>
</mujoco>
"""
ALL = (0, 1, 2)


def in_place(batch: Batch, **quality) -> BatchCameras:
    cameras = BatchCameras(batch, quality=Quality(**quality), num_threads=1)
    batch.forward(stage=mujoco.mjtStage.mjSTAGE_POS.value)
    return cameras


def desk_cameras(num_sims: int, num_threads: int = 1, **quality) -> tuple[DeskVectorEnv, BatchCameras]:
    env = DeskVectorEnv(num_sims, "place_block", num_threads=1)
    env.reset(seed=0)
    batch = env.episodes.sim.batch
    cameras = BatchCameras(batch, quality=Quality(groups=COARSE_GROUPS, **quality), num_threads=num_threads)
    batch.forward(stage=mujoco.mjtStage.mjSTAGE_POS.value)
    return env, cameras


def agreement(ours: Images, row: int, rays) -> tuple[float, float, float]:
    """Share of pixels with the same geom; 99th percentile of differences in colour (of 255) and depth (m)."""
    same = ours.segmentation[row] == rays.segmentation
    color = np.abs(ours.rgb[row].astype(int) - rays.rgb)[same]
    seen = same & np.isfinite(rays.depth)
    depth = np.abs(ours.depth[row][seen] - rays.depth[seen])
    return same.mean(), np.percentile(color, 99), np.percentile(depth, 99)


@pytest.mark.parametrize("camera", ["eye", "above"])
@pytest.mark.parametrize("shadows", [(), ALL])
def test_every_shape_is_what_rays_see(camera: str, shadows: tuple[int, ...]):
    model = mujoco.MjModel.from_xml_string(SHAPES)
    batch = Batch(model, 2, 1)
    batch.bind("qpos")[1, :3] = 0.5, -1.0, 0.5
    images = in_place(batch, shadows=shadows).draw(camera, 120, 160)
    for sim in range(2):
        rays = render(model, batch.get_data(sim), camera, 160, 120, quality=Quality(shadows=shadows))
        same, color, depth = agreement(images, sim, rays)
        assert same > 0.99
        assert depth < 0.02  # of polyhedra instead of round shapes
        assert shadows or color <= 12  # light on facets
        flat = np.isin(rays.segmentation, [model.geom(n).id for n in ("floor", "behind", "cube", "pyramid")])
        flat &= images.segmentation[sim] == rays.segmentation
        np.testing.assert_allclose(images.depth[sim][flat], rays.depth[flat], rtol=1e-5)
        wrong = np.abs(images.rgb[sim].astype(int) - rays.rgb).max(axis=2)[flat] > 1
        assert wrong.mean() < (0.03 if shadows else 1e-9)  # the edges of shadows
    assert {model.geom(n).id for n in ("floor", "ball", "can", "cube")} <= set(np.unique(images.segmentation))
    assert (images.segmentation == model.geom("unseen").id).sum() == 0


@pytest.mark.parametrize("camera", ["static", "wrist"])
def test_the_desk_is_what_rays_see(camera: str):
    env, cameras = desk_cameras(3)
    images = cameras.draw(camera, 64, 64)
    batch = env.episodes.sim.batch
    for sim in range(3):
        rays = render(batch.model, batch.get_data(sim), camera, 64, 64, quality=Quality(groups=COARSE_GROUPS))
        same, color, depth = agreement(images, sim, rays)
        assert same > 0.995
        assert color <= 5
        assert depth < 0.005


def test_images_do_not_depend_on_threads_batch_or_position():
    _, many = desk_cameras(19, num_threads=2, shadows=COARSE_GROUPS, textures=True)
    everyone = many.draw("static", 48, 32)
    for num_sims in (1, 4):
        _, few = desk_cameras(num_sims, shadows=COARSE_GROUPS, textures=True)
        images = few.draw("static", 48, 32)
        for field in ("rgb", "depth", "segmentation"):
            np.testing.assert_array_equal(getattr(images, field), getattr(everyone, field)[:num_sims])
    order = np.array([17, 0, 5])
    some = many.draw("static", 48, 32, order)
    np.testing.assert_array_equal(some.rgb, everyone.rgb[order])
    np.testing.assert_array_equal(some.depth, everyone.depth[order])


def test_parameters_of_each_simulation_are_seen():
    env, cameras = desk_cameras(2)
    before = cameras.draw("static", 64, 64)
    values = {"color_red_r": 0.0, "light_key_brightness": 0.2, "camera_static_fovy": 40.0}
    env.set_parameters(values, np.array([False, True]))
    after = cameras.draw("static", 64, 64)
    np.testing.assert_array_equal(before.rgb[0], after.rgb[0])
    rays = render(
        env.episodes.model(1), env.episodes.sim.batch.get_data(1), "static", 64, 64,
        quality=Quality(groups=COARSE_GROUPS),
    )  # fmt: skip
    same, color, _ = agreement(after, 1, rays)
    assert same > 0.995
    assert color <= 5
    assert (before.rgb[1] != after.rgb[1]).any()


def test_what_is_kept_of_still_things_changes_no_bit():
    env, keeping = desk_cameras(6)
    batch = env.episodes.sim.batch
    expert = Expert("place_block")
    obs, _ = env.reset(seed=0)
    some = np.array([1, 4, 5])
    changes = ({}, {"camera_static_fovy": 30.0}, {"light_key_brightness": 0.2}, {"camera_static_x": 0.7})
    for step, values in enumerate(changes):
        for _ in range(4):
            obs = env.step(expert.act(obs))[0]
        env.set_parameters(values, np.arange(6) % 2 == 1)
        batch.forward(stage=mujoco.mjtStage.mjSTAGE_POS.value)
        fresh = BatchCameras(batch, quality=Quality(groups=COARSE_GROUPS), num_threads=1)
        fresh._layers = None  # keeps nothing
        batch.forward(stage=mujoco.mjtStage.mjSTAGE_POS.value)
        sims = some if step % 2 else None
        images, expected = (cameras.draw("static", 48, 64, sims) for cameras in (keeping, fresh))
        for field in ("rgb", "depth", "segmentation"):
            np.testing.assert_array_equal(getattr(images, field), getattr(expected, field))


def test_an_eye_that_looks_at_nothing_sees_the_sky():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="sphere" size=".1" pos="0 0 -3"/>'
        '<camera name="up" pos="0 0 1" xyaxes="1 0 0 0 -1 0"/></worldbody></mujoco>'
    )
    batch = Batch(model, 1, 1)
    images = in_place(batch).draw("up", 8, 8)
    assert (images.segmentation == -1).all()
    assert np.isinf(images.depth).all()
    np.testing.assert_array_equal(images.rgb[0], render(model, batch.get_data(0), "up", 8, 8).rgb)


def test_bad_input_is_named():
    _, cameras = desk_cameras(1)
    with pytest.raises(ValueError, match="did you mean 'static'"):
        cameras.draw("statc", 8, 8)
    with pytest.raises(ValueError, match="width=0"):
        cameras.draw("static", 8, 0)
    with pytest.raises(ValueError, match="num_threads=0"):
        desk_cameras(1, num_threads=0)
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><asset><hfield name='hill' nrow='2' ncol='2' size='1 1 1 1'/></asset>"
        "<worldbody><geom name='ground' type='hfield' hfield='hill'/></worldbody></mujoco>"
    )
    with pytest.raises(ValueError, match="'ground'.*hfield"):
        in_place(Batch(model, 1, 1))
