"""Automatic domain randomisation: boundaries move as performance says, and the state survives."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embodied_rl.online import ppo, rollout
from embodied_rl.sim2real.adr import Adr, Config, Curriculum
from embodied_rl.sim2real.models import make_randomized, parameters_of
from embodied_rl.sim2real.randomization import Draw, stream
from envs.suites import DESK
from rl_core import checkpoint, config
from rl_core import ppo as core
from rl_core import run as runs
from tests import command_line

TABLE = parameters_of(DESK, threads=1)
GAIN = {"arm_gain": {"exp": 1.0}}
SMALL = {"delta": 0.1, "buffer": 3, "low_performance": 0.3, "high_performance": 0.7}


def small(**parameters) -> Adr:
    return Adr(Config(parameters=parameters or {"arm_gain": {"exp": 1.0}}, **SMALL), TABLE)


def at(adr: Adr, i: int, side: int) -> Draw:
    """An episode on a boundary."""
    lam = np.zeros(len(adr.names))
    lam[i] = adr.bounds[i, side]
    return Draw(values={}, latent=lam, boundary=(i, side))


def report(adr: Adr, side: int, *performances: float) -> None:
    for performance in performances:
        adr.finished(at(adr, 0, side), performance)


def test_the_references_values_are_the_defaults():
    cfg = Config()
    assert (cfg.boundary_probability, cfg.delta, cfg.buffer) == (0.5, 0.02, 240)
    assert (cfg.low_performance, cfg.high_performance, cfg.max_lambda) == (10.0, 20.0, 4.0)


def test_boundaries_widen_and_narrow_each_by_its_own_buffer():
    adr = small()
    report(adr, 1, 1, 1)
    assert adr.bounds.tolist() == [[0.0, 0.0]]  # two of three: not yet
    report(adr, 1, 1)
    assert adr.bounds.tolist() == [[0.0, 0.1]]
    report(adr, 0, 1, 1, 1)
    assert adr.bounds.tolist() == [[-0.1, 0.1]]
    report(adr, 1, 0.5, 0.5, 0.5)  # between the thresholds: stays, and the buffer is emptied
    report(adr, 1, 0, 0)
    assert adr.bounds.tolist() == [[-0.1, 0.1]]
    report(adr, 1, 0)
    assert adr.bounds.tolist() == [[-0.1, 0.0]]
    report(adr, 1, 0, 0, 0)
    assert adr.bounds.tolist() == [[-0.1, 0.0]]  # never past the calibrated value


def test_only_episodes_on_the_present_boundary_count():
    adr = small()
    old = at(adr, 0, 1)
    report(adr, 1, 1, 1, 1)
    for _ in range(3):
        adr.finished(old, 1.0)  # began before the boundary moved
        adr.finished(Draw(values={}, latent=np.zeros(1)), 1.0)  # on none
    assert adr.bounds.tolist() == [[0.0, 0.1]]
    assert adr.episodes == 9


def test_entropy_by_hand():
    adr = small(arm_gain={"exp": 1.0}, link_mass={"exp": 1.0})
    assert adr.entropy() == pytest.approx(math.log(0.1))  # a point counts as one step wide
    adr.bounds[:] = [[-0.5, 0.5], [0.0, 0.25]]
    assert adr.entropy() == pytest.approx((math.log(1.0) + math.log(0.25)) / 2)


def test_ranges_stay_within_what_is_possible():
    adr = small(arm_gain={"exp": 1.0}, latency={"above": 0.05}, offset_joint1={"linear": 0.03})
    for _ in range(60):
        for i in range(3):
            for side in (0, 1):
                for _ in range(3):
                    if (i, side) in adr._buffers:
                        adr.finished(at(adr, i, side), 1.0)
    np.testing.assert_allclose(adr.ranges(), [[0.5, 2.0], [0.0, 0.2], [-0.1, 0.1]])
    assert adr.bounds[1, 0] == 0.0  # a delay has no lower side
    draws = [adr.episode(stream(0, k)).values for k in range(200)]
    for name in adr.names:
        assert (
            TABLE[name].low <= min(d[name] for d in draws) <= max(d[name] for d in draws) <= TABLE[name].high
        )


def test_half_of_the_episodes_lie_on_a_boundary():
    adr = small()
    adr.bounds[:] = [[-0.3, 0.4]]
    draws = [adr.episode(stream(1, k)) for k in range(1000)]
    on = [draw for draw in draws if draw.boundary]
    assert len(on) == pytest.approx(500, abs=50)
    assert {draw.latent[0] for draw in on} == {-0.3, 0.4}
    assert draws[0].values["arm_gain"] == pytest.approx(math.exp(draws[0].latent[0]))


def test_state_goes_through_a_checkpoint(tmp_path):
    adr, other = small(), small()
    report(adr, 1, 1, 1, 1, 1)
    json.dumps(adr.state_dict())
    env = make_randomized(DESK, 1, adr, threads=1)
    checkpoint.save(tmp_path, 1, {"env": Curriculum(env, adr)})
    checkpoint.load_latest(tmp_path, {"env": Curriculum(env, other)})
    assert other.state_dict() == adr.state_dict()
    for one in (adr, other):
        report(one, 1, 1, 1)
    assert other.bounds.tolist() == adr.bounds.tolist() == [[0.0, 0.2]]
    with pytest.raises(ValueError, match="those of the checkpoint"):
        small(link_mass={"exp": 1.0}).load_state_dict(adr.state_dict())


@pytest.mark.parametrize("succeeds", [False, True])
def test_a_desk_widens_what_it_succeeds_at(succeeds: bool, monkeypatch):
    cfg = Config(parameters={"arm_gain": {"exp": 0.3}}, **{**SMALL, "boundary_probability": 1.0})
    adr = Adr(cfg, TABLE)
    env = make_randomized(DESK, 4, adr, threads=1, max_episode_steps=1)
    env.reset(seed=0)
    for _ in range(10):
        if succeeds:  # nobody lifts a block in one step: the task is to have done nothing
            judge = env.unwrapped.episodes._judge
            monkeypatch.setattr(
                env.unwrapped.episodes,
                "_judge",
                lambda errors, judge=judge: replace(judge(errors), success=np.ones(4, np.bool_)),
            )
        env.step(np.zeros((4, 7), np.float32))
    assert adr.episodes == 40
    assert isinstance(Curriculum(env, adr), checkpoint.Stateful)
    (low, high) = adr.bounds[0]
    assert (low < 0.0 < high) if succeeds else (low == high == 0.0)


def test_performance_is_success_or_where_there_is_none_the_return():
    with pytest.raises(ValueError, match=r"adr.high_performance=20.0: must be at most 1"):
        Curriculum(make_randomized(DESK, 1, small(), threads=1), Adr(Config(parameters=GAIN), TABLE))
    hopper = parameters_of("Hopper-v5")
    cfg = Config(parameters={"body_mass[torso]": {"exp": 0.1}}, buffer=2, boundary_probability=1.0)
    adr = Adr(cfg, hopper)
    seen: list[float] = []
    adr.finished = lambda draw, performance: seen.append(performance)
    env = Curriculum(make_randomized("Hopper-v5", 1, adr), adr)
    env.reset(seed=0)
    paid = 0.0
    while not seen:
        _, reward, *_ = env.step(np.zeros((1, 3), np.float32))
        paid += float(reward[0])
    assert seen == [pytest.approx(paid)]
    assert paid > 5.0


def test_ranges_grow_on_through_a_resume(tmp_path: Path):
    def trained(name: str, steps: int, resume: bool = False) -> Curriculum:
        adr = Adr(
            Config(parameters=GAIN, **{**SMALL, "high_performance": 0.0, "low_performance": -1.0}), TABLE
        )
        env = Curriculum(make_randomized(DESK, 2, adr, threads=1, max_episode_steps=2), adr)
        cfg = ppo.Config(hidden=(8,), ppo=core.Config(epochs=1))
        how = rollout.Config(num_envs=2, horizon=4)
        settings = runs.Config(dir=str(tmp_path / name), steps=steps, device="cpu", tensorboard=False,
                               checkpoint_every=2, resume=resume)  # fmt: skip
        with rollout.world_of(env, how, DESK) as world, runs.Run(settings, config=cfg) as run:
            ppo.train(cfg, world, run, lambda agent: {})
        return env

    whole, part = trained("whole", 4), trained("parts", 2)
    resumed = trained("parts", 4, resume=True)
    assert whole.state_dict() == resumed.state_dict() != part.state_dict()
    assert whole.adr.entropy() > small().entropy()


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("desk", {"mass_red", "latency", "offset_joint7"}),
        ("vision", {"mass_red", "camera_static_x", "color_desk_r", "light_key_brightness", "latency"}),
    ],
)
def test_presets_fit_the_desk(preset: str, names: set[str]):
    module = command_line.load("train_online")
    words = ["algo=ppo", f"adr={preset}"]
    adr = Adr(config.parse("train_online", module.Config, command_line.groups(module), words).adr, TABLE)
    assert names <= set(adr.names)
    assert Curriculum(make_randomized(DESK, 1, adr, threads=1), adr).adr is adr
    assert adr.episode(stream(0, 0)).values["arm_gain"] == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {}}, "at least one parameter"),
        ({"parameters": {"arm_gian": {"exp": 1}}}, "adr.parameters: .*did you mean 'arm_gain'"),
        ({"parameters": {"arm_gain": {"ecp": 1}}}, "did you mean 'exp'"),
        ({"parameters": {"arm_gain": {"exp": -1}}}, "finite and > 0"),
        ({"parameters": {"latency": {"exp": 1}}}, "the nominal value is 0"),
        ({"parameters": {"arm_gain": {}}}, "one of"),
        ({"parameters": {"arm_gain": 1.0}}, "arm_gain=1.0: must be a mapping such as"),
        ({"parameters": {"arm_gain": None}}, "arm_gain=None: must be a mapping"),
        ({"parameters": {"arm_gain": {"exp": "wide"}}}, "arm_gain.exp='wide': must be a finite number"),
        ({"low_performance": 30}, "less than adr.high_performance=20"),
        ({"buffer": 0}, "adr.buffer=0"),
        ({"boundary_probability": 0}, "adr.boundary_probability=0"),
    ],
)
def test_bad_settings(changes, words):
    with pytest.raises(ValueError, match=words):
        Adr(Config(**changes), TABLE)
