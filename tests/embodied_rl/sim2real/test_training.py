"""Worlds to train in whose parameters are drawn: what is noted of it, and what cannot be."""

import json

import numpy as np
import pytest

from embodied_rl.online import ppo, rollout
from embodied_rl.sim2real import adr, randomization, training
from envs.config import Config as EnvConfig
from envs.suites import DESK
from rl_core import ppo as core
from rl_core import run as runs

HOPPER = EnvConfig(id="Hopper-v5")
DESKS = EnvConfig(task="lift_block", kwargs={"max_episode_steps": 2})
TORSO = randomization.Config(parameters={"body_mass[torso]": {"uniform": [0.8, 1.2]}})
RED = randomization.Config(parameters={"mass_red": {"uniform": [0.5, 1.5], "as": "factor"}})
GROWING = adr.Config(parameters={"body_mass[torso]": {"exp": 1.0}})


def opened(env: EnvConfig = HOPPER, ranges=None, growing=None, **options) -> rollout.World:
    cfg = rollout.Config(**{"num_envs": 2, "horizon": 3, **options})
    return training.open_world(env, cfg, ranges or randomization.Config(), growing or adr.Config())


@pytest.mark.parametrize(
    ("env", "ranges", "options", "name"),
    [
        (HOPPER, TORSO, {}, "body_mass[torso]"),
        (HOPPER, TORSO, {"parallel": True}, "body_mass[torso]"),
        (DESKS, RED, {"threads": 1}, "mass_red"),
    ],
)
def test_what_the_episodes_drew_is_noted(env, ranges, options, name):
    seen = []
    with opened(env, ranges, **options) as world:
        _, infos = world.env.reset(seed=0)
        for _ in range(60):
            seen += _drawn(infos, name)
            *_, ended, cut, infos = world.env.step(np.ones_like(world.env.action_space.low))
            seen += _drawn(infos, name) if (ended | cut).any() else []
        least, total, greatest = world.env.values[name]
    assert world.env.episodes >= 4
    assert (least, greatest) == (min(seen), max(seen))
    assert least < total / world.env.episodes < greatest
    again = training.Drawn(world.env.env, {})
    again.load_state_dict(json.loads(json.dumps(world.env.state_dict())))
    assert again.values == world.env.values


@pytest.mark.parametrize(
    ("env", "ranges", "growing", "options", "name"),
    [
        (HOPPER, TORSO, None, {}, "body_mass[torso]"),
        (HOPPER, None, GROWING, {}, "body_mass[torso]"),
        (DESKS, RED, None, {"threads": 1}, "mass_red"),
    ],
)
def test_a_critic_may_read_what_was_drawn(env, ranges, growing, options, name):
    with opened(env, ranges, growing, critic_keys=("parameters",), **options) as world:
        assert "parameters" not in world.spec.obs_keys
        assert world.critic_spec.obs_dim == world.spec.obs_dim + 1
        obs, infos = world.env.reset(seed=0)
        for _ in range(60):
            seen = obs["parameters"][:, 0].copy()
            if "parameters" in infos and not isinstance(infos["parameters"], dict):
                assert obs["parameters"][:, 0] == pytest.approx(_drawn(infos, name))
            obs, _, ended, cut, infos = world.env.step(np.ones_like(world.env.action_space.low))
            for row in np.flatnonzero(ended | cut):
                assert infos["final_obs"][row]["parameters"] == seen[row]  # of the episode that ended
            stays = ~(ended | cut)
            assert np.array_equal(obs["parameters"][stays, 0], seen[stays])
            if ranges and (ended | cut).any():
                assert (obs["parameters"][~stays, 0] != seen[~stays]).all()
        assert obs["parameters"] in world.env.observation_space["parameters"]


def test_an_asymmetric_critic_trains_on_the_desk(tmp_path):
    settings = runs.Config(dir=str(tmp_path), steps=2, device="cpu", tensorboard=False, checkpoint_every=1)
    cfg = ppo.Config(hidden=(8,), ppo=core.Config(epochs=1))
    world = opened(DESKS, RED, critic_keys=("parameters",), threads=1)
    with world, runs.Run(settings, config=cfg) as run:
        agent = ppo.train(cfg, world, run, lambda agent: {})
    assert agent.obs_stats.mean.shape == (world.spec.obs_dim + 1,)
    assert 0.5 < agent.obs_stats.mean[-1] / randomized_mean(world) < 2.0


def randomized_mean(world) -> float:
    _, total, _ = world.env.values["mass_red"]
    return total / world.env.episodes


def _drawn(infos, name: str) -> list[float]:
    found = infos["parameters"]
    return list(found[name]) if isinstance(found, dict) else [row[name] for row in found]


def test_a_training_reports_what_was_drawn(tmp_path):
    settings = runs.Config(dir=str(tmp_path), steps=2, device="cpu", tensorboard=False, checkpoint_every=1)
    cfg = ppo.Config(hidden=(8,), ppo=core.Config(epochs=1))
    with opened(DESKS, RED, threads=1) as world, runs.Run(settings, config=cfg) as run:
        ppo.train(cfg, world, run, lambda agent: {})
        training.draw(world, run.dir)
        assert world.env.episodes == 2 * (2 + 2)
        assert training.metrics(world) == {"unstable_draws": 0.0}
    (figure,) = json.loads((tmp_path / "figures_randomization.json").read_text())
    assert "mass_red" in figure["svg"]
    assert "8 episodes" in figure["caption"]
    assert "unstable draws: 0" in figure["caption"]


def test_automatic_randomisation_is_carried_along(tmp_path):
    with opened(growing=GROWING) as world:
        assert "env" in world.stateful
        world.env.reset(seed=0)
        training.draw(world, tmp_path)
        assert set(training.metrics(world)) == {"adr_entropy", "adr_widened", "unstable_draws"}
    assert "body_mass[torso]" in (tmp_path / "figures_adr.json").read_text()


def test_nothing_to_draw_is_the_plain_world():
    with opened() as world:
        assert not world.stateful
        assert not training.metrics(world)
        _, infos = world.env.reset(seed=0)
    assert "parameters" not in infos


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growing": GROWING, "parallel": True}, "adr needs one process"),
        ({"growing": GROWING, "ranges": TORSO}, "empty \\(adr=none\\) where randomization has parameters"),
        ({"ranges": randomization.Config(parameters={"body_mas[torso]": {"choice": [1.0]}})}, "body_mass"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        opened(**options)


def test_dactyl_draws_for_the_desk():
    from rl_core import config
    from tests import command_line

    module = command_line.load("train_online")
    words = ["algo=ppo", "env=desk", "task=lift_block", "randomization=dactyl"]
    cfg = config.parse("train_online", module.Config, command_line.groups(module), words)
    small = rollout.Config(num_envs=2, horizon=2, threads=1)
    with training.open_world(cfg.env, small, cfg.randomization, cfg.adr) as world:
        assert world.spec.env_id == DESK
        world.env.reset(seed=0)
        assert world.env.values["push_force"] == [0.08, 0.16, 0.08]
        assert np.ptp(world.env.values["arm_gain"][::2]) > 0
