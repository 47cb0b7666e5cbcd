import numpy as np
import pytest

from envs.desk.scene import DESK
from envs.desk.situations import (
    DRAWER,
    GRIPPER,
    LEFT,
    RIGHT,
    STACKED,
    TABLE,
    Situation,
    after,
    draw_situation,
    holds,
)
from envs.desk.starts import draw_start
from envs.desk.state import in_cabinet, in_drawer, on_desk, stacked
from envs.desk.tasks import CALVIN_TASKS, NONE, TASKS, possible_tasks

ON_TABLE = Situation(places=(TABLE, TABLE, TABLE))
SIZE = np.full((1, 3), 0.05)


@pytest.mark.parametrize("name", CALVIN_TASKS)
def test_a_situation_drawn_for_a_task_meets_its_needs_and_its_effects_end_it(name: str):
    task = TASKS[name]
    for seed in range(20):
        situation = draw_situation(np.random.default_rng(seed), 3, task.needs, target=1)
        assert holds(situation, task.needs, 1)
        assert sum(place in (LEFT, RIGHT, DRAWER) for place in situation.places) <= 3
        changed = after(situation, task.effects, 1)
        if (
            task.color == NONE
            or "target" in task.effects
            and task.effects["target"] != task.needs.get("target")
        ):
            assert not holds(changed, task.needs, 1)


def test_a_full_gripper_allows_only_what_needs_it():
    holding = Situation(places=(GRIPPER, TABLE, TABLE), drawer="open")
    tasks = tuple(TASKS[name] for name in CALVIN_TASKS)
    names = {CALVIN_TASKS[number] for number, _ in possible_tasks(tasks, DESK.colors, holding)}
    assert names == {"place_in_slider", "place_in_drawer", "stack_block"}


def test_the_door_decides_which_half_can_be_reached():
    needs = {"target": "slider"}
    left = Situation(places=(LEFT, RIGHT, TABLE), slider="right")
    assert holds(left, needs, 0)
    assert not holds(left, needs, 1)
    assert holds(after(left, {"slider": "left"}, 0), needs, 1)


def test_stacking_needs_a_block_on_the_table():
    assert holds(Situation(places=(GRIPPER, TABLE, LEFT)), TASKS["stack_block"].needs, 0)
    assert not holds(Situation(places=(GRIPPER, DRAWER, LEFT)), TASKS["stack_block"].needs, 0)


@pytest.mark.parametrize("where", [TABLE, LEFT, RIGHT, DRAWER, STACKED])
def test_positions_are_those_of_the_words(where: str):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        situation = Situation(places=(where, TABLE, TABLE), drawer="open", led="on", slider="left")
        start = draw_start(rng, DESK, situation, None, 0)
        pos, furniture = start.pos[None], start.furniture[None]
        seen = {
            TABLE: on_desk(pos, SIZE)[0, 0] and not in_cabinet(pos)[0, 0],
            LEFT: in_cabinet(pos)[0, 0] and pos[0, 0, 0] < 0.47,
            RIGHT: in_cabinet(pos)[0, 0] and pos[0, 0, 0] > 0.47,
            DRAWER: in_drawer(pos, furniture)[0, 0],
            STACKED: stacked(pos, SIZE)[0, 0],
        }
        assert [place for place, true in seen.items() if true] == [where]
        assert start.lights.tolist() == [True, False]
        assert start.furniture[0] > 0.15
        assert start.furniture[3] < 0


def test_a_rooms_lane_is_free():
    task = TASKS["push_red_block_right"]
    for seed in range(20):
        start = draw_start(np.random.default_rng(seed), DESK, ON_TABLE, task.room, 0)
        offset = start.pos[1:, :2] - start.pos[0, :2]
        ahead = (offset[:, 0] > 0) & (offset[:, 0] < 0.2)
        assert (np.abs(offset[ahead, 1]) > 0.08).all()
