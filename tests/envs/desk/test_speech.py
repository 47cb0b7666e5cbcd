"""Scenes and the words spoken in them."""

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.desk import instructions
from envs.desk.env import DeskEnv
from envs.desk.meaning import Meaning
from envs.desk.objects import Block
from envs.desk.scene import DESK, SCENES, find_scene, shared_model
from envs.desk.speech import environment
from envs.desk.tasks import CALVIN_TASKS, GROUPS, TASKS, find_tasks, tasks_of
from envs.desk.vector import DeskVectorEnv


def test_every_task_can_be_done_in_some_scene():
    assert {name for scene in SCENES.values() for name in tasks_of(scene)} == set(TASKS)
    assert set(CALVIN_TASKS) < set(tasks_of(DESK))
    assert "stack_block" not in tasks_of(SCENES["held_out_objects"])


@pytest.mark.parametrize("scene", SCENES)
def test_things_rest_where_they_start_and_are_as_large_as_tasks_are_told(scene: str):
    model, blocks = shared_model(SCENES[scene]), SCENES[scene].blocks
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    start = data.qpos.copy()
    mujoco.mj_step(model, data, 300)
    for block in blocks:
        adr = int(model.joint(block.name).qposadr[0])
        np.testing.assert_allclose(data.qpos[adr : adr + 7], start[adr : adr + 7], atol=1e-3)
        seen = model.geom(block.name)
        if (
            block.shape != "block"
        ):  # the drawn mesh fills the box that it collides as, but for the mug's handle
            hull = model.geom(f"{block.name}_hull")
            np.testing.assert_allclose(hull.size, [block.half_size] * 2 + [block.half_height])
            first, count = int(model.mesh_vertadr[seen.dataid[0]]), int(model.mesh_vertnum[seen.dataid[0]])
            turned = np.empty(9)
            mujoco.mju_quat2Mat(turned, seen.quat)
            points = model.mesh_vert[first : first + count] @ turned.reshape(3, 3).T + seen.pos
            assert np.abs(points[:, 2]).max() == pytest.approx(block.half_height, abs=1e-4)
            reach = np.abs(points[:, :2]).max() / block.half_size
            assert reach == pytest.approx(1.0, abs=0.02) or block.shape == "mug"


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("wording", instructions.WORDINGS)
def test_what_is_said_means_the_task_and_names_what_is_there(scene: str, wording: str):
    env = DeskVectorEnv(80, tasks_of(SCENES[scene]), scene=scene, instructions=wording)
    _, infos = env.reset(seed=0)
    lying = set(SCENES[scene].colors)
    others = {name for other in SCENES.values() for name in other.colors} - lying
    for text, task, target in zip(infos["instruction"], infos["task"], infos["color"], strict=True):
        meaning = instructions.parse(text)
        assert meaning.task == TASKS[task].asked.format(
            thing=f"{target}_block" if meaning.color else target
        ) or (meaning.task == task)
        assert target in (meaning.color, meaning.object) or not (meaning.color or TASKS[task].named)
        words = set(text.replace("?", " ").replace(",", " ").split())
        assert not others - {"green", "yellow"} & words, text  # the lights are green and yellow


def test_wordings_are_of_their_kind():
    for wording, heldout in (("seen", False), ("paraphrase", True)):
        _, infos = DeskVectorEnv(80, "calvin", instructions=wording).reset(seed=1)
        plain = [
            text in instructions.paraphrases(task, "paraphrase" if heldout else "seen")
            for text, task in zip(infos["instruction"], infos["task"], strict=True)
            if task in instructions.tasks("seen")
        ]
        assert 0.2 < np.mean(plain) < 0.9  # the others are dressed, or name a target


def test_words_are_a_function_of_the_seed_and_change_nothing_else():
    def play(num_envs: int, first: int, **options):
        env = DeskVectorEnv(num_envs, "calvin", **options)
        obs, infos = env.reset(seed=[first + i for i in range(num_envs)])
        for _ in range(3):
            obs, *_ = env.step(np.full((num_envs, 7), 0.3))
        return obs["observation"], infos["instruction"]

    many, said = play(6, 10)
    for i in range(6):
        one, text = play(1, 10 + i)
        np.testing.assert_array_equal(one[0], many[i])
        assert text[0] == said[i]
    others, paraphrased = play(6, 10, instructions="paraphrase", obs="state+language")
    np.testing.assert_array_equal(others, many)
    assert (paraphrased != said).all()


@pytest.mark.filterwarnings("ignore:.*Box observation space (minimum|maximum) value is.*infinity")
def test_language_in_the_observation(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("open_drawer: ['Öffne die Schublade!']\n")
    env = DeskEnv("open_drawer", obs="rgb+language", image_size=16, human=str(path), render_mode="rgb_array")
    check_env(env)
    said = {env.reset(seed=seed)[0]["instruction"] for seed in range(30)}
    assert any("Öffne" in text for text in said)
    vector = DeskVectorEnv(3, "calvin", obs="state+language", max_episode_steps=2)
    obs, infos = vector.reset(seed=0)
    assert obs in vector.observation_space
    assert obs["instruction"].tolist() == infos["instruction"].tolist()
    vector.step(np.zeros((3, 7)))
    after, _, _, _, infos = vector.step(np.zeros((3, 7)))
    assert infos["final_obs"][0]["instruction"] == obs["instruction"][0] != after["instruction"][0]
    serial = gym.vector.SyncVectorEnv([lambda: DeskEnv("calvin", obs="state+language")] * 2)
    assert serial.reset(seed=0)[0]["instruction"] == tuple(obs["instruction"][:2])
    assert "instruction" not in DeskEnv().observation_space.spaces


def test_groups_are_cut_to_what_the_scene_allows():
    assert {task.name for task in find_tasks("color", SCENES["held_out_colors"])} == set(GROUPS["color"])
    assert "stack_block" not in {task.name for task in find_tasks("all", SCENES["held_out_objects"])}
    assert [task.name for task in find_tasks("composition")] == list(GROUPS["composition"])


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("push the mug left", {"task": "push_mug_left", "scene": "held_out_objects"}),
        (
            "put the bowl in the drawer",
            {"task": "place_in_drawer", "scene": "held_out_objects", "colors": ["bowl"]},
        ),
        (
            "put the green block in the drawer",
            {"task": "place_in_drawer", "scene": "held_out_colors", "colors": ["green"]},
        ),
        ("turn on the light bulb", {"task": "turn_on_lightbulb"}),
        ("lift the red block", {"task": "lift_red_block_table"}),
    ],
)
def test_an_instruction_chooses_task_and_scene(text: str, arguments: dict):
    assert environment(instructions.parse(text)) == arguments
    _, infos = DeskVectorEnv(1, **arguments).reset(seed=0)
    assert infos["task"][0] == arguments["task"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"task": "lift_mug_table"},
            "lift_mug_table.*cannot be done with red, blue, pink.*'held_out_objects'",
        ),
        ({"task": "stack_block", "scene": "held_out_objects"}, "cannot be done with bowl.*'calvin'"),
        ({"task": "object"}, "it can in scene='held_out_objects'"),
        ({"task": "composition", "scene": "held_out_colors"}, "cannot be done with green"),
        ({"scene": "held_out_colrs"}, "scene='held_out_colrs'.*did you mean 'held_out_colors'"),
        ({"scene": "held_out_colors", "colors": ["red"]}, "colors='red'"),
        ({"task": "lift_the_mug"}, "task='lift_the_mug': expected one of.*did you mean"),
        ({"instructions": "sene"}, "instructions='sene'.*did you mean 'seen'"),
        ({"human": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DeskVectorEnv(1, **options)


def test_a_yaml_with_an_unknown_task_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("open_drawr: ['open it']")
    with pytest.raises(ValueError, match="did you mean 'open_drawer'"):
        DeskEnv(human=str(path))


def test_bad_scenes_and_shapes_are_named():
    with pytest.raises(ValueError, match="did you mean 'calvin'"):
        find_scene("calvn")
    with pytest.raises(ValueError, match="shape='mugg'.*did you mean 'mug'"):
        Block(name="x", rgba=(0, 0, 0, 1), shape="mugg")
    with pytest.raises(ValueError, match="a block is a cube"):
        Block(name="x", rgba=(0, 0, 0, 1), flatness=2.0)
    with pytest.raises(ValueError, match="cannot be done with bowl"):
        environment(Meaning(task="stack_block", object="bowl"))
