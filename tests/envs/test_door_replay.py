"""The human demonstrations replayed: physics, success and reward of the door against known figures.

Measured with gymnasium-robotics 1.4.2 on MuJoCo 3.3: 8 of 25 succeed; the mean return is 802.8 as the
environment pays it, 795.7 with the sign of D4RL, 821.3 from the repaired start states. MuJoCo 4 gives 803.1,
795.9 and 815.8.
"""

from pathlib import Path

import numpy as np
import pytest

from embodied_rl.data.import_door import initial_state
from envs.suites import make

DEMOS = Path(__file__).parents[3] / "shared" / "data" / "adroit-door-human" / "demos.npz"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DEMOS.exists(), reason=f"the door demonstrations are not at {DEMOS}"),
]


@pytest.mark.parametrize(
    ("reward", "repaired", "mean_return"),
    [("upstream", False, 802.8), ("fixed", False, 795.7), ("upstream", True, 821.3)],
)
def test_replay(reward, repaired, mean_return):
    demos = np.load(DEMOS)
    env = make("AdroitHandDoor-v1", reward=reward, max_episode_steps=300)
    returns, successes, end = [], 0, 0
    for length, place in zip(demos["lengths"], demos["door_body_pos"], strict=True):
        start, end = end, end + length
        first = demos["observations"][start].astype(np.float64)
        state = {"qpos": np.zeros(30), "qvel": np.zeros(30), "door_body_pos": place}
        state = initial_state(env, first, place) if repaired else state
        env.reset(seed=0, options={"initial_state_dict": state})
        steps = [env.step(action) for action in demos["actions"][start:end]]
        returns.append(sum(step[1] for step in steps))
        successes += any(step[4]["is_success"] for step in steps)
    assert np.mean(returns) == pytest.approx(mean_return, rel=0.01)
    assert successes == 8
