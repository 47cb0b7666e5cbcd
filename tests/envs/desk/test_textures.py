import subprocess
import sys

import mujoco
import numpy as np
import pytest
from mujoco.batch import Batch

from envs.desk.batch_cameras import BatchCameras
from envs.desk.cameras import Quality, render
from envs.desk.materials import MATERIALS
from envs.desk.opengl import BACKENDS
from envs.desk.scene import COARSE_GROUPS, DESK, build_spec, shared_model
from envs.desk.vector import DeskVectorEnv

TEXTURED = Quality(groups=COARSE_GROUPS, textures=True)
RED, GREEN, BLUE, WHITE = (200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 200)
RGB = mujoco.mjtTextureRole.mjTEXROLE_RGB


def lit_by_itself(geom: int, kind: int, image: np.ndarray, **geom_kwargs) -> mujoco.MjModel:
    """One textured geom under an eye that looks straight down, in light that shows colours as they are."""
    spec = mujoco.MjSpec()
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [1, 1, 1], [0, 0, 0]
    height, width, _ = image.shape
    texture = spec.add_texture(name="image", type=kind, width=width, height=height, nchannel=3)
    texture.data = image.astype(np.uint8).tobytes()
    material = spec.add_material(name="paint", texrepeat=geom_kwargs.pop("texrepeat", [1, 1]))
    material.texuniform = geom_kwargs.pop("texuniform", False)
    material.textures[RGB] = "image"
    spec.worldbody.add_geom(name="it", type=geom, material="paint", **geom_kwargs)
    spec.worldbody.add_camera(name="eye", pos=[0, 0, 4], fovy=np.degrees(2 * np.arctan(1 / 4)))
    return spec.compile()


def seen(model: mujoco.MjModel, size: int) -> np.ndarray:
    """What both kinds of rays see from above, `[size, size, 3]`."""
    batch = Batch(model, 2, 1)
    cameras = BatchCameras(batch, quality=Quality(textures=True), num_threads=1)
    batch.forward(stage=mujoco.mjtStage.mjSTAGE_POS.value)
    rays = render(model, batch.get_data(0), "eye", size, size, quality=Quality(textures=True)).rgb
    for image in cameras.draw("eye", size, size).rgb:
        np.testing.assert_array_equal(image, rays)
    return rays


def test_a_checker_on_a_plane_seen_from_above():
    """The picture lies as one would print it, +x to the right and +y up, and repeats from that corner."""
    picture = np.array([[RED, GREEN], [BLUE, WHITE]])
    plane = {"geom": mujoco.mjtGeom.mjGEOM_PLANE, "kind": mujoco.mjtTexture.mjTEXTURE_2D, "image": picture}
    once = lit_by_itself(**plane, size=[1, 1, 1])
    np.testing.assert_array_equal(seen(once, 2), picture)
    np.testing.assert_array_equal(seen(once, 4), picture.repeat(2, axis=0).repeat(2, axis=1))
    twice = lit_by_itself(**plane, size=[1, 1, 1], texrepeat=[2, 1])
    np.testing.assert_array_equal(seen(twice, 4), np.tile(picture, (1, 2, 1)).repeat(2, axis=0))
    # Once over two metres, from the corner of a plane that is four metres wide.
    metres = lit_by_itself(**plane, size=[2, 2, 1], texuniform=True)
    np.testing.assert_array_equal(seen(metres, 2), picture[::-1, ::-1])


def test_the_upper_face_of_a_cube_texture():
    faces = np.zeros((12, 2, 3))
    faces[8:10] = picture = np.array([[RED, GREEN], [BLUE, WHITE]])  # of right, left, up, down, front, back
    cube = {"kind": mujoco.mjtTexture.mjTEXTURE_CUBE, "image": faces}
    np.testing.assert_array_equal(
        seen(lit_by_itself(mujoco.mjtGeom.mjGEOM_BOX, size=[1.2, 1.2, 0.1], **cube), 2), picture
    )
    np.testing.assert_array_equal(
        seen(lit_by_itself(mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=[2, 2, 0.1], **cube), 2), picture
    )


def test_textures_that_cannot_be_laid_on_are_named():
    image = np.zeros((2, 2, 3))
    for shape, kind in (("sphere", "2D"), ("capsule", "CUBE")):
        geom = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.upper()}")
        model = lit_by_itself(geom, getattr(mujoco.mjtTexture, f"mjTEXTURE_{kind}"), image, size=[1, 1, 0])
        with pytest.raises(ValueError, match=f"'it'.*texture on a {shape}"):
            seen(model, 2)


def bare() -> mujoco.MjModel:
    spec = build_spec(DESK)
    for name in MATERIALS:
        spec.geom(name).material = ""
    return spec.compile()


def test_materials_change_neither_physics_nor_images_without_textures():
    states, images = [], []
    for model in (shared_model(), bare()):
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, 0)
        images.append(render(model, data, "static", 40, 30))
        mujoco.mj_step(model, data, nstep=40)
        states.append(np.concatenate([data.qpos, data.qvel]))
    np.testing.assert_array_equal(*states)
    np.testing.assert_array_equal(images[0].rgb, images[1].rgb)
    np.testing.assert_array_equal(images[0].segmentation, images[1].segmentation)


def test_textures_are_seen_on_the_desk_and_the_floor_only():
    options = {"obs": "rgb+segmentation+depth", "cameras": ["static"], "image_size": 48, "num_threads": 1}
    plain, _ = DeskVectorEnv(2, **options).reset(seed=0)
    env = DeskVectorEnv(2, textures=True, **options)
    textured, _ = env.reset(seed=0)
    for kind in ("segmentation_static", "depth_static"):
        np.testing.assert_array_equal(plain[kind], textured[kind])
    changed = (plain["rgb_static"] != textured["rgb_static"]).any(axis=3)
    on = np.isin(plain["segmentation_static"], [shared_model().geom(name).id for name in MATERIALS])
    assert changed[on].mean() > 0.4  # half of the floor's checker is white
    assert not changed[~on].any()
    env.set_parameters({"texture_desk": 1.5}, np.array([True, False]))
    after, *_ = env.step(np.zeros((2, 7)))
    alone = DeskVectorEnv(1, textures=True, **options)
    alone.set_parameters({"texture_desk": 1.0})
    alone.reset(seed=0)
    expected, *_ = alone.step(np.zeros((1, 7)))
    np.testing.assert_array_equal(after["rgb_static"][0], expected["rgb_static"][0])
    desk = textured["segmentation_static"][0] == shared_model().geom("desk").id
    assert (after["rgb_static"][0] != textured["rgb_static"][0])[desk].mean() > 0.5


@pytest.mark.parametrize("gl", BACKENDS)
def test_opengl_shows_the_same_patterns(gl: str, tmp_path):
    path = tmp_path / "drawn.npz"
    code = (
        "import mujoco, numpy as np; from envs.desk.opengl import GLRenderer as R;"
        "from envs.desk.scene import shared_model, COARSE_GROUPS;"
        "m = shared_model(); d = mujoco.MjData(m); mujoco.mj_resetDataKeyframe(m, d, 0);"
        f"r = R(m, 224, 160, gl={gl!r}, groups=COARSE_GROUPS); plain = r.rgb(d, 'static'); r.close();"
        f"r = R(m, 224, 160, gl={gl!r}, groups=COARSE_GROUPS, textures=True);"
        f"np.savez({str(path)!r}, plain=plain, textured=r.rgb(d, 'static')); r.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    if "OpenGL cannot be used here" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    model, drawn = shared_model(), np.load(path)
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    plain = render(model, data, "static", 224, 160, quality=Quality(groups=COARSE_GROUPS))
    textured = render(model, data, "static", 224, 160, quality=TEXTURED)
    for name in MATERIALS:
        own = plain.segmentation == model.geom(name).id
        # Light divides out: what remains is the pattern.
        ours, theirs = (
            b[own].astype(float) / np.maximum(a[own], 1)
            for a, b in ((plain.rgb, textured.rgb), (drawn["plain"], drawn["textured"]))
        )
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.92, name
        assert np.abs(ours - theirs).mean() < 0.045, name
        assert ours.std() > 0.05, name
