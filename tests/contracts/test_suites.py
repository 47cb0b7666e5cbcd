"""Every environment of `envs.suites`: success in every info, SAME_STEP autoreset, same seed same episode."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs.suites import make_vec

ENVS = {  # id: has a notion of success
    "AdroitHandDoor-v1": True,
    "AdroitHandHammer-v1": True,
    "AdroitHandPen-v1": True,
    "AdroitHandRelocate-v1": True,
    "FetchReach-v4": True,
    "FetchPickAndPlace-v4": True,
    "HandReach-v3": True,
    "FrankaKitchen-v1": True,
    "AntMaze_UMaze-v5": True,
    "PointMaze_UMaze-v3": True,
    "Hopper-v5": False,
    "HalfCheetah-v5": False,
}
NUM, LIMIT, STEPS = 2, 8, 12


@pytest.fixture(scope="module", params=ENVS)
def vec(request):
    env = make_vec(request.param, NUM, max_episode_steps=LIMIT)
    yield env
    env.close()


def leaves(tree, path=""):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, np.asarray(tree)


def play(env, seeds):
    rng = np.random.default_rng(0)
    obs, infos = env.reset(seed=seeds)
    steps = [(obs, np.zeros(NUM), np.zeros(NUM, bool), np.zeros(NUM, bool), infos)]
    for _ in range(STEPS):
        action = rng.uniform(env.action_space.low, env.action_space.high).astype(env.action_space.dtype)
        steps.append(env.step(action))
    return steps


def test_contract(vec):
    assert vec.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert vec.metadata["suite"]["has_success"] == ENVS[vec.spec.id]
    assert vec.metadata["suite"]["max_episode_steps"] == vec.spec.max_episode_steps == LIMIT
    first, again, other = play(vec, [3, 4]), play(vec, [3, 4]), play(vec, [5, 6])
    ends = 0
    for (obs, reward, terminated, truncated, infos), repeated in zip(first, again, strict=True):
        assert infos["is_success"].shape == (NUM,)
        assert infos["is_success"].dtype == bool
        assert np.isfinite(reward).all()
        assert all(np.isfinite(value).all() for _, value in leaves(obs))
        assert terminated.dtype == truncated.dtype == bool
        done = terminated | truncated
        if done.any():
            ends += 1
            assert infos["final_info"]["is_success"].shape == (NUM,)
            assert all(infos["final_obs"][i] is not None for i in np.flatnonzero(done))
        np.testing.assert_array_equal(reward, repeated[1])
        for (_, ours), (_, theirs) in zip(leaves(obs), leaves(repeated[0]), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert ends >= 1
    starts = [dict(leaves(steps[0][0])) for steps in (first, other)]
    assert any(not np.array_equal(starts[0][key], starts[1][key]) for key in starts[0]), (
        "start state is constant"
    )
    assert vec.observation_space.contains(first[0][0])
