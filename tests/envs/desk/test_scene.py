from dataclasses import replace

import mujoco
import numpy as np
import pytest

from envs.desk.scene import DESK, HOME, Block, build_model, shared_model
from envs.desk.starts import draw_positions


@pytest.fixture(scope="module")
def settled() -> tuple[mujoco.MjModel, mujoco.MjData, np.ndarray]:
    model = shared_model()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    start = data.qpos.copy()
    for _ in range(400):
        mujoco.mj_step(model, data)
    return model, data, start


def test_arm_holds_its_pose_without_sagging(settled):
    _, data, _ = settled
    np.testing.assert_allclose(data.qpos[:7], HOME, atol=1e-3)


def test_blocks_rest_where_they_start(settled):
    model, data, start = settled
    for color in DESK.colors:
        adr = int(model.joint(color).qposadr[0])
        np.testing.assert_allclose(data.qpos[adr : adr + 7], start[adr : adr + 7], atol=1e-3)


def test_home_hand_points_down_over_the_middle_of_the_start_region(settled):
    _, data, _ = settled
    np.testing.assert_allclose(data.site("grasp").xmat.reshape(3, 3)[:, 2], [0, 0, -1], atol=0.2)
    xy = data.site("grasp").xpos[:2]
    assert (xy > DESK.start_low).all()
    assert (xy < DESK.start_high).all()


def test_every_element_is_named():
    model = shared_model()
    for kind, count in (("body", model.nbody), ("geom", model.ngeom), ("joint", model.njnt)):
        assert all(getattr(model, kind)(i).name for i in range(count)), kind


def test_a_scene_is_data():
    scene = replace(DESK, blocks=(*DESK.blocks, Block(name="green", rgba=(0, 1, 0, 1), half_size=0.02)))
    model = build_model(scene)
    assert model.geom("green").size[0] == 0.02
    assert scene.colors == ("red", "blue", "pink", "green")


def test_start_positions_keep_apart_and_inside():
    rng = np.random.default_rng(0)
    for _ in range(50):
        xy = draw_positions(rng, DESK)
        gaps = [np.linalg.norm(xy[i] - xy[j]) for i in range(3) for j in range(i)]
        assert min(gaps) >= DESK.start_gap
        assert (xy >= DESK.start_low).all()
        assert (xy <= DESK.start_high).all()


def test_a_rectangle_too_small_for_the_blocks_is_refused():
    scene = replace(DESK, start_high=(0.42, -0.19))
    with pytest.raises(ValueError, match=r"scene\.start_gap=0\.11"):
        draw_positions(np.random.default_rng(0), scene)
