"""What every vector environment of the project promises; one environment is one line in `FACTORIES`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv

from envs.desk.experts import Expert
from envs.desk.grammar import TASK_NAMES
from envs.desk.scene import DESK, SCENES
from envs.desk.tasks import CALVIN_TASKS, TASKS, families, tasks_of
from envs.desk.vector import DeskVectorEnv

Factory = Callable[..., VectorEnv]


def desk(task: Any, **fixed: Any) -> Factory:
    return lambda num_envs, **kwargs: DeskVectorEnv(num_envs, task, **fixed, **kwargs)


# One task of each family, and all tasks of each scene mixed; every single task is tested at the end.
ALONE = [task.name for task, _ in families(tuple(TASKS[name] for name in tasks_of(DESK)))]
FACTORIES = {name: desk(name) for name in ALONE}
FACTORIES["images"] = desk("lift_block", obs="state+rgbd+segmentation", image_size=12)
FACTORIES |= {f"all of {name}": desk(tasks_of(scene), scene=name) for name, scene in SCENES.items()}


@pytest.fixture(params=FACTORIES.values(), ids=FACTORIES)
def make(request: pytest.FixtureRequest) -> Factory:
    return request.param


def rollout(env: VectorEnv, steps: int, seed: int) -> list[tuple]:
    """`steps` steps under actions that change slowly, so that the robot goes somewhere."""
    rng = np.random.default_rng(seed)
    obs, infos = env.reset(seed=seed)
    results = [(obs, None, None, None, infos)]
    action = np.zeros(env.action_space.shape)
    for _ in range(steps):
        action = 0.6 * action + 0.8 * rng.uniform(env.action_space.low, env.action_space.high)
        action = np.clip(action, env.action_space.low, env.action_space.high).astype(np.float32)
        results.append(env.step(action))
    return results


def test_spaces_hold_what_is_returned(make: Factory):
    env = make(3)
    assert isinstance(env, VectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert (env.single_action_space.low == -1).all()
    assert (env.single_action_space.high == 1).all()
    for obs, reward, terminated, truncated, infos in rollout(env, 5, seed=0)[1:]:
        assert obs in env.observation_space
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        assert terminated.dtype == truncated.dtype == bool
        assert infos["is_success"].dtype == bool
        assert infos["is_success"].shape == (3,)


def test_success_is_reported_at_reset_and_starts_false(make: Factory):
    _, infos = make(32).reset(seed=0)
    assert infos["is_success"].shape == (32,)
    assert not infos["is_success"].any()


def test_rewards_and_their_terms_are_finite_and_in_the_unit_interval(make: Factory):
    for _, reward, _, _, infos in rollout(make(16), 70, seed=1)[1:]:
        for value in (reward, *infos["reward_terms"].values()):
            assert value.shape == (16,)
            assert np.isfinite(value).all()
            assert (value >= 0).all()
            assert (value <= 1).all()


def test_observations_are_finite_and_none_is_constant(make: Factory):
    # Random actions leave the lights alone and a few desks do not draw every task, so the expert plays too.
    env = make(16, terminate_on_success=False)
    tasks = [task.name for task in env.episodes.tasks]
    if len(tasks) > 1:
        env = make(256, terminate_on_success=False)
    seen = [step[0] for step in rollout(env, 70 if len(tasks) == 1 else 10, seed=2)]
    expert, (obs, _) = Expert(tasks, scene=env.episodes.sim.scene), env.reset()
    for _ in range(20):
        obs, *_ = env.step(expert.act(obs))
        seen.append(obs)
    for key in seen[0]:
        values = np.stack([obs[key] for obs in seen])
        assert np.isfinite(values).all()
        constant = np.flatnonzero(np.ptp(values.reshape(-1, values.shape[-1]), axis=0) == 0)
        assert not len(constant), f"{key}{constant.tolist()} never change"


def test_a_seed_repeats_every_number(make: Factory):
    for a, b in zip(rollout(make(4), 30, seed=3), rollout(make(4), 30, seed=3), strict=True):
        for key in a[0]:
            np.testing.assert_array_equal(a[0][key], b[0][key])
        for x, y in zip(a[1:4], b[1:4], strict=True):
            np.testing.assert_array_equal(x, y)


def test_start_states_vary_between_simulations_and_episodes(make: Factory):
    env = make(8)
    first, _ = env.reset(seed=4)
    second, _ = env.reset()
    starts = np.concatenate([first["observation"], second["observation"]])
    assert len(np.unique(starts, axis=0)) == 16


def test_final_observations_come_with_the_end_and_only_then(make: Factory):
    env = make(4, max_episode_steps=5)
    for step in rollout(env, 12, seed=5)[1:]:
        ended = step[2] | step[3]
        assert ("final_obs" in step[4]) == ended.any()
        if ended.any():
            assert [obs is not None for obs in step[4]["final_obs"]] == ended.tolist()
            assert step[4]["_final_obs"].tolist() == ended.tolist()
            assert step[4]["final_info"]["_is_success"].tolist() == ended.tolist()


@pytest.fixture(scope="module")
def expert_episodes() -> dict[str, list[tuple[bool, int]]]:
    """Success and length of the expert's first episodes under a little noise, by task: some seeds of each."""
    episodes: dict[str, list[tuple[bool, int]]] = {name: [] for name in TASKS}
    for scene, num_envs in (("calvin", 256), ("held_out_colors", 128), ("held_out_objects", 128)):
        first_episodes(scene, num_envs, episodes)
    return episodes


def first_episodes(scene: str, num_envs: int, episodes: dict[str, list[tuple[bool, int]]]) -> None:
    tasks = [name for name in tasks_of(SCENES[scene]) if scene == "calvin" or name not in tasks_of(DESK)]
    env = DeskVectorEnv(num_envs, tasks, scene=scene, max_episode_steps=60)
    expert = Expert(tasks, scene=scene, noise=0.05)
    obs, infos = env.reset(seed=0)
    assert not infos["is_success"].any()
    names, ended = infos["task"].copy(), np.zeros(env.num_envs, bool)
    for step in range(60):
        obs, reward, terminated, truncated, infos = env.step(expert.act(obs))
        np.testing.assert_array_equal(reward == 1.0, terminated)
        for i in np.flatnonzero((terminated | truncated) & ~ended):
            assert infos["final_info"]["task"][i] == names[i]
            episodes[names[i]].append((bool(terminated[i]), step + 1))
        ended |= terminated | truncated
        if ended.all():
            break


@pytest.mark.parametrize("name", TASKS)
def test_every_task_begins_unsolved_and_is_solved_by_its_expert(expert_episodes, name: str):
    episodes = expert_episodes[name]
    assert episodes, "some seeds of 256 draw each task"
    assert all(length > 2 for _, length in episodes)
    assert np.mean([success for success, _ in episodes]) >= 0.75


def test_calvins_tasks_are_all_there():
    assert len(CALVIN_TASKS) == 34
    assert set(CALVIN_TASKS) | {"lift_block", "place_block"} == set(tasks_of(DESK))
    assert {"lift_block", *TASK_NAMES} == set(TASKS)  # every task can be asked for, and the other way round
