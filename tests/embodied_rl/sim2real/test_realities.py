"""Effects that no randomisation draws."""

import numpy as np
import pytest

from embodied_rl.sim2real.realities import HELD_OUT, Reality, RealityEnv, open_reality
from envs.desk.observations import observation_layout
from envs.desk.scene import DESK as SCENE

LAYOUT = observation_layout(SCENE)


def moved(reality: Reality, actions: list[list[float]]) -> np.ndarray:
    """Way of the hand, `[steps + 1, 3]`, as it truly is."""
    env = open_reality(reality, 1, threads=1)
    env.reset(seed=0)
    way = [env.unwrapped.episodes.sim.hand().pos[0].copy()]
    for action in actions:
        env.step(np.array([[*action, 0, 0, 0, 1]], np.float32))
        way.append(env.unwrapped.episodes.sim.hand().pos[0].copy())
    return np.array(way)


def test_zeros_change_nothing():
    env, plain = open_reality(Reality(), 2, threads=1), open_reality(None, 2, threads=1)
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 2, 7)).astype(np.float32)
    seen = []
    for one in (env, plain):
        obs = [one.reset(seed=3)[0]["observation"]]
        obs += [one.step(action)[0]["observation"] for action in actions]
        seen.append(np.stack(obs))
    assert isinstance(env, RealityEnv)
    assert not isinstance(plain, RealityEnv)
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)


def test_backlash_swallows_the_way_back():
    actions = [[0.5, 0, 0]] * 4 + [[-0.5, 0, 0]] * 4
    free, play = moved(Reality(), actions), moved(Reality(backlash=0.012), actions)
    assert free[4, 0] - play[4, 0] == pytest.approx(0.006, abs=1e-3)  # half of it at first
    back = (play[4, 0] - play[8, 0]) - (free[4, 0] - free[8, 0])
    assert back == pytest.approx(-0.012, abs=2e-3)  # all of it after turning round


def test_dropped_commands_repeat_the_last_one():
    way = moved(Reality(dropped=0.999999), [[1, 0, 0]] * 3)
    assert np.abs(way[-1] - way[0]).max() < 5e-3  # nothing ever arrives
    both = [moved(Reality(dropped=0.5), [[1, 0, 0], [0, 1, 0]] * 3) for _ in range(2)]
    assert np.array_equal(*both)  # from the seed


def test_jitter_makes_commands_late():
    actions = [[1, 0, 0], [0, 0, 0]] * 3
    on_time, late = moved(Reality(), actions), moved(Reality(jitter=0.1), actions)
    assert on_time[1, 0] - late[1, 0] > 0.005
    assert late[-1, 0] == pytest.approx(on_time[-1, 0], abs=0.02)  # late, not lost
    env = open_reality(Reality(jitter=0.1), 2, threads=1)
    env.reset(seed=0)
    drawn = [[row["latency"] for row in env.step(np.zeros((2, 7)))[4]["parameters"]] for _ in range(3)]
    assert len(np.unique(drawn)) == 6
    assert np.max(drawn) <= 0.1


def test_an_episode_depends_on_its_seed_alone():
    reality, actions = HELD_OUT["unsteady_link"], np.random.default_rng(0).uniform(-1, 1, (6, 7))
    ends = []
    for num, seed in ((3, 5), (1, 7)):
        env = open_reality(reality, num, threads=1)
        env.reset(seed=seed)
        for action in actions:
            obs, *_ = env.step(np.tile(action, (num, 1)))
        ends.append(obs["observation"][-1])
    assert np.array_equal(*ends)


def test_calibration_errors():
    seen, true = (
        open_reality(reality, 1, threads=1).reset(seed=0)[0]["observation"]
        for reality in (Reality(camera=(0.01, 0.0, -0.02)), None)
    )
    shift = seen - true
    np.testing.assert_allclose(shift[0, LAYOUT["target"]], [0.01, 0.0, -0.02], atol=1e-6)
    np.testing.assert_allclose(shift[0, LAYOUT["blocks"]].reshape(3, 3), [[0.01, 0.0, -0.02]] * 3, atol=1e-6)
    assert not shift[0, LAYOUT["joints"]].any()
    straight, turned = (moved(Reality(turned=turn), [[1, 0, 0]] * 4) for turn in (0.0, 0.1))
    angle = [np.arctan2(*(way[-1] - way[0])[[1, 0]]) for way in (straight, turned)]
    assert angle[1] - angle[0] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("name", HELD_OUT)
def test_the_held_out_realities_run(name: str):
    env = open_reality(HELD_OUT[name], 2, threads=1)
    env.reset(seed=0)
    obs, *_, infos = env.step(np.zeros((2, 7), np.float32))
    assert np.isfinite(obs["observation"]).all()
    reality = HELD_OUT[name]
    found = dict(infos["parameters"][0])
    latency, least = found.pop("latency", 0.0), reality.parameters.get("latency", 0.0)
    assert found == {name: x for name, x in reality.parameters.items() if name != "latency"}
    assert least <= latency <= least + reality.jitter


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backlash": -1.0}, "backlash=-1.0"),
        ({"dropped": 1.0}, "dropped=1.0"),
        ({"jitter": 0.15, "parameters": {"latency": 0.1}}, r"jitter=0.15: must be in \[0, 0.1\] s"),
    ],
)
def test_bad_effects(changes, words):
    with pytest.raises(ValueError, match=words):
        Reality(**changes)
