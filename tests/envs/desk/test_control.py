import numpy as np
import pytest

from envs.desk.control import MAX_ROTATION, MAX_TRANSLATION
from envs.desk.episodes import DeskOptions, Episodes
from envs.desk.observations import hand_yaw
from envs.desk.scene import DESK


@pytest.fixture
def desks() -> Episodes:
    episodes = Episodes(4, "lift_block", DeskOptions(max_episode_steps=1000), num_threads=1)
    episodes.seed(np.arange(4), [0, 1, 2, 3])
    episodes.begin(np.arange(4))
    return episodes


def move(desks: Episodes, action: list[float], steps: int = 1) -> None:
    for _ in range(steps):
        desks.step(np.tile(np.asarray(action, np.float32), (desks.num_envs, 1)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_unit_action_moves_the_hand_by_most_of_its_unit(desks: Episodes, axis: int, sign: float):
    before = desks.sim.hand().pos
    action = [0.0] * 7
    action[axis] = sign
    move(desks, action, steps=2)
    moved = desks.sim.hand().pos - before
    expected = np.zeros(3)
    expected[axis] = 2 * sign * MAX_TRANSLATION
    np.testing.assert_allclose(moved, np.tile(expected, (4, 1)), atol=0.012)


def test_a_unit_turn_about_the_vertical_is_most_of_its_angle(desks: Episodes):
    before = desks.sim.hand()
    move(desks, [0, 0, 0, 0, 0, 1, 1])
    after = desks.sim.hand()
    np.testing.assert_allclose(hand_yaw(after.rot) - hand_yaw(before.rot), MAX_ROTATION, atol=0.04)
    np.testing.assert_allclose(after.pos, before.pos, atol=0.005)


def test_zero_action_stays(desks: Episodes):
    before = desks.sim.hand().pos
    move(desks, [0, 0, 0, 0, 0, 0, 1], steps=10)
    np.testing.assert_allclose(desks.sim.hand().pos, before, atol=0.005)


@pytest.mark.parametrize("direction", [(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)])
def test_the_hand_stays_in_the_workspace(desks: Episodes, direction: tuple[int, int, int]):
    move(desks, [*direction, 0, 0, 0, 1], steps=25)
    pos = desks.sim.hand().pos
    assert (pos > np.asarray(DESK.workspace_low) - 0.015).all()
    assert (pos < np.asarray(DESK.workspace_high) + 0.015).all()


def test_the_gripper_opens_and_closes_by_sign(desks: Episodes):
    move(desks, [0, 0, 0, 0, 0, 0, -0.1], steps=3)
    assert (desks.sim.hand().width < 0.002).all()
    move(desks, [0, 0, 0, 0, 0, 0, 0.1], steps=3)
    assert (desks.sim.hand().width > 0.078).all()


def test_actions_beyond_the_bounds_are_clipped(desks: Episodes):
    twin = Episodes(4, "lift_block", DeskOptions(max_episode_steps=1000), num_threads=1)
    twin.seed(np.arange(4), [0, 1, 2, 3])
    twin.begin(np.arange(4))
    move(desks, [5, -9, 2, 0, 0, 3, 8])
    move(twin, [1, -1, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(desks.sim.hand().joints, twin.sim.hand().joints)
