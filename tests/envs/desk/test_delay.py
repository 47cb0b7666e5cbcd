"""Observations that come late."""

import numpy as np
import pytest

from envs.desk.delay import MAX_SENSOR_DELAY, SensorDelay
from envs.suites import DESK, make_vec

STEPS = 9


def observations(delays: list[float] | None, obs: str = "state", key: str = "observation") -> np.ndarray:
    """What is seen, `[STEPS + 1, 3, D]`, over more than two episodes of four steps."""
    env = make_vec(DESK, 3, task="lift_block", obs=obs, threads=1, max_episode_steps=4)
    if delays:
        env.unwrapped.set_parameters({"sensor_delay": np.array(delays)})
    rng = np.random.default_rng(0)
    seen = [env.reset(seed=0)[0][key]]
    seen += [env.step(rng.uniform(-1, 1, (3, 7)))[0][key] for _ in range(STEPS)]
    env.close()
    return np.stack(seen)


@pytest.mark.parametrize("obs", ["state", "rgb"])
def test_each_desk_shows_what_it_showed_before(obs: str):
    key = {"state": "observation", "rgb": "proprioception"}[obs]
    now, late = observations(None, obs, key), observations([0.0, 0.2, 0.15], obs, key)
    assert np.array_equal(late[:, 0], now[:, 0])
    # Episodes begin at steps 0, 4 and 8, and nothing of one is seen in the next.
    for step, shown in enumerate([0, 0, 0, 1, 4, 4, 4, 5, 8, 8]):
        assert np.array_equal(late[step, 1], now[shown, 1])
    np.testing.assert_allclose(late[3, 2], (now[1, 2] + now[2, 2]) / 2, atol=1e-6)


def test_noise_is_drawn_once_and_then_delayed():
    desk = {"joint_noise": 0.01, "sensor_delay": 0.1}
    env = make_vec(DESK, 1, task="lift_block", threads=1)
    env.unwrapped.set_parameters({**desk, "sensor_delay": 0.0})
    env.reset(seed=0)
    now = env.step(np.zeros((1, 7)))[0]["observation"]
    env.unwrapped.set_parameters(desk)
    env.reset(seed=0)
    env.step(np.zeros((1, 7)))
    assert np.array_equal(env.step(np.zeros((1, 7)))[0]["observation"], now)


def test_the_longest_delay_is_kept():
    delay = SensorDelay(np.array([MAX_SENSOR_DELAY]))
    shown = []
    for step in range(12):
        shown.append(float(delay(np.array([[step]], np.float32), np.array([0]))[0, 0]))
        delay.advance()
    assert shown == [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6]


def test_more_than_that_is_refused():
    env = make_vec(DESK, 1, task="lift_block", threads=1)
    with pytest.raises(ValueError, match="sensor_delay=0.6 .* between 0 and 0.5 s"):
        env.unwrapped.set_parameters({"sensor_delay": 0.6})
