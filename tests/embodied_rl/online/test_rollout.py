"""Rollouts: which step goes where, and what a user can get wrong."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from embodied_rl.feedback import preference_ppo
from embodied_rl.online import ppo, rollout, sac
from embodied_rl.online.rollout import Collector
from envs.config import Config as EnvConfig
from envs.suites import make_vec
from rl_core import run as runs


def right(obs, state, t):
    return torch.full((len(obs), 1), 0.9), state


def test_steps_stand_where_they_were_taken(world, points):
    env = points(3, limit=4)
    collector = Collector(world(env, horizon=6), torch.device("cpu"))
    collector.reset(seed=0)
    first = {key: value.clone() for key, value in _tensors(collector.collect(right)).items()}
    second = collector.collect(right)
    # 0.9 of the box is 1.8, a quarter of that is the way: 0.45 per step, beyond 1.5 after four steps
    np.testing.assert_allclose(first["obs"][0, :, 1], [0.0, 0.45, 0.9, 1.35, 0.0, 0.45], rtol=1e-6)
    assert first["terminated"][0].tolist() == [False, False, False, True, False, False]
    assert first["first"][0].tolist() == [True, False, False, False, True, False]
    torch.testing.assert_close(second.obs[:, 0], first["next_obs"])
    assert collector.finished().keys() == {"return", "length", "success"}
    assert collector.finished() == {}


def _tensors(steps):
    return {name: getattr(steps, name) for name in ("obs", "terminated", "first", "next_obs")}


def test_a_truncation_keeps_the_last_observation(world, points):
    collector = Collector(world(points(3, limit=2), horizon=5), torch.device("cpu"))
    collector.reset(seed=0)
    steps = collector.collect(right)
    assert steps.cut.tolist() == [[i, t] for t in (1, 3) for i in range(3)]
    np.testing.assert_allclose(steps.cut_obs[:, 1], 0.9, rtol=1e-6)
    assert steps.truncated.sum() == 6
    assert not steps.terminated.any()
    found = collector.finished()
    assert found["length"] == 2
    goal = steps.obs[:, :4:2, 0]
    expected = 2 - (0.45 - goal).abs() - (0.9 - goal).abs()
    assert found["return"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert found["success"] == pytest.approx(float((goal > 0).float().mean()))


def test_the_desk_is_the_default_world():
    cfg = rollout.Config(num_envs=2, horizon=3, threads=1)
    with rollout.open_world(EnvConfig(task="lift_block"), cfg) as world:
        assert world.spec.obs_keys == ("desired_goal", "observation")
        collector = Collector(world, torch.device("cpu"))
        collector.reset(seed=1)
        steps = collector.collect(lambda obs, state, t: (torch.zeros(2, 7), state))
    assert steps.obs.shape == (2, 3, world.spec.obs_dim)
    assert (steps.reward > 0).all()


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ({"task": "lift_blok"}, {}, "lift_block"),
        ({"id": "Hoper-v5"}, {}, "did you mean Hopper-v5"),
        ({}, {"obs_keys": ("observatoin",)}, "rollout.obs_keys.*did you mean 'observation'"),
        ({}, {"critic_keys": ("secret",)}, "rollout.critic_keys"),
        ({}, {"obs_keys": ("a",), "critic_keys": ("a",)}, "rollout.critic_keys"),
        ({}, {"num_envs": 0}, "rollout.num_envs=0: must be at least 1"),
    ],
)
def test_mistakes_are_named(env, options, message):
    with pytest.raises(ValueError, match=message):
        rollout.open_world(EnvConfig(**env), rollout.Config(**{"num_envs": 1, "threads": 1, **options}))


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda: make_vec("embodied/Desk-v0", 1), 60),
        (lambda: make_vec("embodied/Desk-v0", 1, max_episode_steps=7), 7),
        (lambda: make_vec("Pendulum-v1", 1), 200),
        (lambda: make_vec("Pendulum-v1", 1, parallel=True, max_episode_steps=9), 9),
        (lambda: gym.wrappers.vector.ClipReward(make_vec("Pendulum-v1", 1), -1, 1), 200),
        (lambda: SyncVectorEnv([lambda: gym.make("Pendulum-v1")]), 200),
    ],
)
def test_an_environment_tells_its_time_limit(make, limit):
    env = make()
    assert rollout.episode_limit(env) == limit
    env.close()


@pytest.mark.parametrize(("every", "horizon", "least"), [(2, 2, 3), (1, 5, 2), (5, 1, 6)])
def test_episodes_that_never_end_are_refused(world, points, every, horizon, least):
    """After 6 steps an episode of these points is over: new ones may not begin everywhere before that."""
    here = world(limited(points()), horizon=horizon)
    long, short = (runs.Config(steps=steps, checkpoint_every=every) for steps in (every + 1, every))
    message = f"run.checkpoint_every={every}: must be at least {least} with rollout.horizon={horizon}"
    with pytest.raises(ValueError, match=message):
        rollout.require_whole_episodes(here, long)
    rollout.require_whole_episodes(here, short)  # begins once
    rollout.require_whole_episodes(here, runs.Config(steps=99, checkpoint_every=least))
    rollout.require_whole_episodes(world(points(), horizon=horizon), long)  # whose limit nobody knows


def limited(env):
    env.spec = gym.envs.registration.EnvSpec("Points-v0", entry_point="nowhere", max_episode_steps=6)
    return env


@pytest.mark.parametrize("module", [ppo, sac, preference_ppo])
def test_every_loop_wants_whole_episodes(world, points, train, module):
    with pytest.raises(ValueError, match="run.checkpoint_every=2: must be at least 3 with rollout.horizon=2"):
        train(module, module.Config(), world(limited(points()), horizon=2), steps=4, checkpoint_every=2)


def test_an_environment_that_resets_later_is_refused(world, points):
    env = points()
    env.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    with pytest.raises(ValueError, match="SAME_STEP"):
        Collector(world(env), torch.device("cpu"))
