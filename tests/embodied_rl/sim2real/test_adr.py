"""Automatic domain randomisation: boundaries move as performance says, and the state survives."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied_rl.sim2real.adr import Adr, Config, Curriculum
from embodied_rl.sim2real.models import make_randomized, parameters_of
from embodied_rl.sim2real.randomization import Draw, stream
from envs.suites import DESK
from rl_core import checkpoint

TABLE = parameters_of(DESK, threads=1)
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


def test_a_desk_widens_what_it_succeeds_at():
    cfg = Config(parameters={"arm_gain": {"exp": 0.3}}, **{**SMALL, "boundary_probability": 1.0})
    adr = Adr(cfg, TABLE)
    env = make_randomized(DESK, 4, adr, threads=1, max_episode_steps=1)
    env.reset(seed=0)
    for _ in range(10):
        env.step(np.zeros((4, 7), np.float32))
    assert adr.episodes == 40
    assert adr.bounds.tolist() == [[0.0, 0.0]]  # nobody lifts a block in one step
    assert isinstance(Curriculum(env, adr), checkpoint.Stateful)


def test_the_preset_fits_the_desk():
    file = Path(__file__).resolve().parents[3] / "configs" / "adr" / "desk.yaml"
    adr = Adr(Config(**OmegaConf.to_container(OmegaConf.load(file))), TABLE)
    assert {"mass_red", "latency", "offset_joint7"} <= set(adr.names)
    assert adr.episode(stream(0, 0)).values["arm_gain"] == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {}}, "at least one parameter"),
        ({"parameters": {"arm_gian": {"exp": 1}}}, "did you mean 'arm_gain'"),
        ({"parameters": {"arm_gain": {"ecp": 1}}}, "did you mean 'exp'"),
        ({"parameters": {"arm_gain": {"exp": -1}}}, "finite and > 0"),
        ({"parameters": {"latency": {"exp": 1}}}, "the nominal value is 0"),
        ({"parameters": {"arm_gain": {}}}, "one of"),
        ({"low_performance": 30}, "less than adr.high_performance=20"),
        ({"buffer": 0}, "adr.buffer=0"),
        ({"boundary_probability": 0}, "adr.boundary_probability=0"),
    ],
)
def test_bad_settings(changes, words):
    with pytest.raises(ValueError, match=words):
        Adr(Config(**changes), TABLE)
