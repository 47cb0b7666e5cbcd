import numpy as np
import pytest

from embodied_rl.eval.play import env_id, has_success, play
from envs.suites import make_vec


class Still:
    def __init__(self):
        self.resets = []

    def reset(self, batch):
        self.resets.append(batch)

    def act(self, obs, deterministic=True):
        return np.zeros((len(obs["observation"]), 3), np.float32)


def test_every_episode_runs_to_its_first_end_and_no_further():
    env = make_vec("Hopper-v5", 3)
    policy, seen = Still(), []
    steps = list(play(policy, env, [4, 5], seed=10, watch=lambda running: seen.append(running.copy())))
    assert policy.resets == [3]
    assert not any(step.running[2] for step in steps), "two episodes in three simulations"
    for slot in range(2):
        running = [bool(step.running[slot]) for step in steps]
        length = sum(running)
        assert running == [True] * length + [False] * (len(steps) - length)
        assert [bool(step.ended[slot]) for step in steps] == [i == length - 1 for i in range(len(steps))]
        last = steps[length - 1]
        assert last.terminated[slot]
        assert not np.array_equal(last.final_obs[slot], last.next_obs[slot])
    np.testing.assert_array_equal(np.stack(seen), np.stack([step.running for step in steps]))
    alone = make_vec("Hopper-v5", 1)
    np.testing.assert_array_equal(alone.reset(seed=15)[0][0], steps[0].obs[1])


def test_perturbed_actions_are_what_is_executed_and_reported():
    env = make_vec("Hopper-v5", 2)
    plain = next(play(Still(), env, [0, 1], seed=0))
    moved = next(play(Still(), env, [0, 1], seed=0, perturb=lambda action: action + 0.5))
    assert (moved.action == 0.5).all()
    np.testing.assert_array_equal(plain.obs, moved.obs)
    assert not np.array_equal(plain.next_obs, moved.next_obs)


def test_what_an_environment_says_of_itself():
    env = make_vec("Hopper-v5", 1)
    assert env_id(env) == "Hopper-v5"
    assert not has_success(env)
    assert has_success(make_vec("FetchReach-v4", 1))
    env.spec = None
    with pytest.raises(ValueError, match="make_vec"):
        env_id(env)
