from dataclasses import replace

import numpy as np
import pytest

from envs.desk.scene import DESK
from envs.desk.state import State
from envs.desk.tasks import SHAPING, TASKS, evaluate, find_tasks

START = np.array([[[0.5, 0.0, 0.025], [0.6, 0.2, 0.025], [0.4, -0.2, 0.025]]])
UPRIGHT = np.tile([1.0, 0.0, 0.0, 0.0], (1, 3, 1))


def state(**changes) -> State:
    """One desk: the hand high above a red block that lies on the desk; all shut and off, as at the start."""
    base = State(
        hand_pos=np.array([[0.5, 0.0, 0.2]]),
        width=np.array([0.08]),
        block_pos=START,
        block_quat=UPRIGHT,
        block_speed=np.zeros((1, 3)),
        block_size=np.full((1, 3), 0.05),
        block_height=np.full((1, 3), 0.05),
        furniture=np.zeros((1, 4)),
        lights=np.zeros((1, 2), bool),
        target=np.array([0]),
        goal=np.array([[0.5, 0.0]]),
        amount=np.array([1.0]),
        start_pos=START,
        start_quat=UPRIGHT,
        start_furniture=np.zeros((1, 4)),
        start_lights=np.zeros((1, 2), bool),
    )
    return replace(base, **{key: np.array([value]) for key, value in changes.items()})


def blocks(red: tuple[float, float, float]) -> list[tuple[float, float, float]]:
    return [red, (0.6, 0.2, 0.025), (0.4, -0.2, 0.025)]


def success(task: str, at: State) -> bool:
    return bool(TASKS[task].success(at)[0])


def test_lifted_means_five_centimetres_of_clearance_in_the_gripper():
    held = {"hand_pos": (0.5, 0, 0.08), "width": 0.05}
    assert success("lift_block", state(block_pos=blocks((0.5, 0, 0.080)), **held))
    assert not success("lift_block", state(block_pos=blocks((0.5, 0, 0.073)), **held))
    thrown = {"hand_pos": (0.5, 0, 0.30), "width": 0.05}
    assert not success("lift_block", state(block_pos=blocks((0.5, 0, 0.15)), **thrown))


def test_placed_means_near_resting_and_released():
    assert success("place_block", state())
    assert not success("place_block", state(goal=(0.545, 0.0)))
    assert success("place_block", state(goal=(0.535, 0.0)))
    assert not success("place_block", state(block_speed=(0.2, 0.0, 0.0)))
    assert not success("place_block", state(hand_pos=(0.5, 0, 0.03), width=0.05))
    assert not success("place_block", state(block_pos=blocks((0.5, 0, 0.06))))


def test_success_is_about_the_target_only():
    assert not success("place_block", state(target=1))


def reward(task: str, at: State) -> float:
    return float(evaluate([TASKS[task]], np.array([0]), at)[0][0])


@pytest.mark.parametrize("task", ["lift_block", "place_block", "lift_red_block_table", "unstack_block"])
def test_each_stage_of_the_grasp_pays_more_than_hovering(task: str):
    far = {"goal": (0.6, 0.1)}
    stages = [
        state(**far),
        state(hand_pos=(0.5, 0, 0.06), width=0.0, **far),  # hovering with closed fingers
        state(hand_pos=(0.5, 0, 0.025), **far),  # around the block, open
        state(hand_pos=(0.5, 0, 0.025), width=0.065, **far),  # half closed
        state(hand_pos=(0.5, 0, 0.025), width=0.050, **far),  # grasped
    ]
    rewards = [reward(task, stage) for stage in stages]
    assert rewards == sorted(rewards)
    assert len(set(rewards)) == len(rewards)
    assert 0.0 <= rewards[0] <= rewards[-1] < SHAPING


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_scales_sum_to_one_and_name_the_terms(task):
    assert sum(task.scales.values()) == pytest.approx(1.0)
    assert set(task.terms(state())) == set(task.scales)


def test_letting_go_at_the_goal_costs_nothing():
    holding = reward("place_block", state(hand_pos=(0.5, 0, 0.025), width=0.05, block_speed=(0.1, 0, 0)))
    open_hand = reward("place_block", state(hand_pos=(0.5, 0, 0.025), width=0.08, block_speed=(0.1, 0, 0)))
    assert open_hand > holding


def test_a_mixed_batch_is_judged_like_each_alone():
    both = [TASKS["lift_block"], TASKS["place_block"]]
    lifted = state(block_pos=blocks((0.5, 0, 0.08)), hand_pos=(0.5, 0, 0.08), width=0.05)
    rows = [lifted, state()]
    batch = State(**{k: np.concatenate([getattr(r, k) for r in rows]) for k in State.__dataclass_fields__})
    for order, expected in (([0, 1], [True, True]), ([1, 0], [False, False])):
        values, done, terms = evaluate(both, np.array(order), batch)
        assert done.tolist() == expected
        assert values[0] == pytest.approx(reward(both[order[0]].name, lifted))
        assert terms["carry"][order.index(0)] == 0.0


def test_place_goals_are_free_and_away_from_the_start():
    rng = np.random.default_rng(0)
    start = np.array([[0.5, 0.0, 0.025], [0.6, 0.2, 0.025], [0.4, -0.2, 0.025]])
    for _ in range(100):
        goal = TASKS["place_block"].sample_goal(rng, start, 0, DESK)
        distance = np.linalg.norm(start[:, :2] - goal, axis=1)
        assert distance[0] > 0.12
        assert distance[1:].min() > 0.10
    with pytest.raises(ValueError, match="no free spot"):
        TASKS["place_block"].sample_goal(
            rng, start, 0, replace(DESK, start_low=(0.5, 0), start_high=(0.5, 0))
        )


def test_unknown_tasks_name_the_nearest():
    with pytest.raises(ValueError, match=r"task='lift_blok'.*did you mean 'lift_block'"):
        find_tasks("lift_blok")
    with pytest.raises(ValueError, match="at least one"):
        find_tasks([])
    with pytest.raises(ValueError, match="each once"):
        find_tasks(["lift_block", "lift_block"])


def turned(degrees: float) -> list[list[float]]:
    half = np.radians(degrees) / 2
    return [[np.cos(half), 0.0, 0.0, np.sin(half)], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]


def asked(task: str, **changes) -> bool:
    """Success of a task with its own amount."""
    return success(task, state(amount=TASKS[task].amount, **changes))


def test_rotated_means_by_more_than_60_degrees_the_right_way_where_it_lay():
    assert asked("rotate_red_block_left", block_quat=turned(61))
    assert not asked("rotate_red_block_left", block_quat=turned(59))
    assert not asked("rotate_red_block_left", block_quat=turned(-61))
    assert asked("rotate_red_block_right", block_quat=turned(-61))
    assert not asked("rotate_red_block_left", block_quat=turned(61), block_pos=blocks((0.61, 0, 0.025)))
    assert not asked("rotate_red_block_left", block_quat=turned(61), block_pos=blocks((0.5, 0, 0.10)))


def test_pushed_means_by_more_than_10_centimetres_along_x_on_the_desk():
    assert asked("push_red_block_right", block_pos=blocks((0.605, 0, 0.025)))
    assert not asked("push_red_block_right", block_pos=blocks((0.595, 0, 0.025)))
    assert asked("push_red_block_left", block_pos=blocks((0.395, 0, 0.025)))
    assert not asked("push_red_block_right", block_pos=blocks((0.605, 0, 0.08)))


def test_lifted_out_of_the_cabinet_means_by_3_centimetres():
    held = {"hand_pos": (0.5, 0, 0.06), "width": 0.05, "block_pos": blocks((0.5, 0, 0.06))}
    assert asked("lift_red_block_slider", **held)
    assert not asked("lift_red_block_table", **held)


def test_furniture_must_move_far_enough_from_where_it_began():
    assert asked("open_drawer", furniture=(0.125, 0, 0, 0))
    assert not asked("open_drawer", furniture=(0.125, 0, 0, 0), start_furniture=(0.01, 0, 0, 0))
    assert asked("close_drawer", start_furniture=(0.16, 0, 0, 0), furniture=(0.03, 0, 0, 0))
    assert asked("move_slider_left", furniture=(0, 0.16, 0, 0))
    assert not asked("move_slider_right", furniture=(0, 0.16, 0, 0))


def test_lights_must_have_been_switched():
    assert asked("turn_on_led", lights=(True, False))
    assert not asked("turn_on_led", lights=(True, False), start_lights=(True, False))
    assert not asked("turn_on_led", lights=(False, True))
    assert asked("turn_off_lightbulb", start_lights=(False, True))


def test_placed_in_means_inside_and_released():
    drawer = {"furniture": (0.16, 0, 0, 0), "block_pos": blocks((0.46, -0.33, -0.053))}
    assert asked("place_in_drawer", **drawer)
    assert asked("push_into_drawer", **drawer)
    assert not asked("place_in_drawer", **drawer, hand_pos=(0.46, -0.33, -0.045), width=0.05)
    assert not asked("place_in_drawer", block_pos=blocks((0.46, -0.33, -0.053)))  # it is closed
    assert asked("place_in_slider", block_pos=blocks((0.37, 0.375, 0.065)))
    assert not asked("place_in_slider", block_pos=blocks((0.37, 0.20, 0.065)))


def test_stacked_and_unstacked_are_changes_from_the_start():
    tower = blocks((0.6, 0.2, 0.075))
    assert asked("stack_block", block_pos=tower)
    assert not asked("stack_block", block_pos=tower, start_pos=tower)
    assert not asked("stack_block", block_pos=tower, hand_pos=(0.6, 0.2, 0.075), width=0.05)
    assert asked("unstack_block", start_pos=tower)
    assert not asked("unstack_block", start_pos=tower, block_pos=blocks((0.6, 0.2, 0.12)))
