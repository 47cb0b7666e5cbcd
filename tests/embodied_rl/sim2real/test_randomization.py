"""Desks that are drawn anew for every episode."""

from pathlib import Path

import minari
import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied_rl.data import collect
from embodied_rl.data.recorder import Recorder
from embodied_rl.sim2real.models import fixed, make_randomized
from embodied_rl.sim2real.randomization import Config, Randomization, randomize_desk
from envs.desk.experts import Expert
from envs.desk.vector import DeskVectorEnv
from envs.suites import DESK

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "randomization"
MASS = Config(parameters={"mass_*": {"uniform": [0.5, 1.5], "as": "factor"}})


def desk(num: int, config: Config, **options) -> DeskVectorEnv:
    env = DeskVectorEnv(num, "lift_block", num_threads=1, **options)
    randomize_desk(env, Randomization.of(config, env.episodes.parameters.table))
    return env


def zeros(num: int) -> np.ndarray:
    return np.zeros((num, 7), np.float32)


def test_a_draw_depends_on_seed_and_episode_alone():
    wide, narrow = desk(3, MASS, max_episode_steps=2), desk(1, MASS, max_episode_steps=2)
    seen = {}
    for name, env, seed in (("wide", wide, 5), ("narrow", narrow, 7)):
        _, info = env.reset(seed=seed)
        values = [info["parameters"][-1]]
        for _ in range(4):
            _, _, _, _, info = env.step(zeros(env.num_envs))
            values.append(info["parameters"][-1])
        seen[name] = values
    assert seen["wide"] == seen["narrow"]  # simulation 2 of seed 5 is simulation 0 of seed 7
    first, *_, last = seen["narrow"]
    assert first != last
    assert first["mass_red"] != first["mass_blue"]


def test_the_model_follows_with_its_derived_constants():
    env = desk(2, MASS)
    _, info = env.reset(seed=0)
    model, body = env.episodes.model(1), env.episodes.model(1).body("red").id
    drawn = info["parameters"][1]["mass_red"]
    nominal = env.episodes.sim.model
    assert model.body_mass[body] == drawn != nominal.body_mass[body]
    ratio = drawn / nominal.body_mass[body]
    assert model.body_invweight0[body, 0] == pytest.approx(nominal.body_invweight0[body, 0] / ratio)
    assert model.body_inertia[body] == pytest.approx(nominal.body_inertia[body] * ratio)


def test_the_last_step_of_an_episode_reports_its_own_draw():
    env = desk(1, MASS, max_episode_steps=1)
    _, info = env.reset(seed=0)
    _, _, _, truncated, after = env.step(zeros(1))
    assert truncated.all()
    assert after["final_info"]["parameters"][0] == info["parameters"][0]
    assert after["parameters"][0] != info["parameters"][0]


def test_noise_that_drifts_has_its_correlation_and_spread():
    config = Config(parameters={"action_noise": {"normal": [0.2, 0.02], "correlation": 0.5}})
    table = DeskVectorEnv(1, num_threads=1).episodes.parameters.table
    sampler, rng = Randomization.of(config, table), np.random.default_rng(0)
    draw, values = sampler.episode(rng), []
    for _ in range(20_000):
        values.append(sampler.step(draw, rng, 0.1)["action_noise"])
    x = (np.array(values) - 0.2) / 0.02
    assert x.std() == pytest.approx(1.0, abs=0.05)
    assert np.mean(x[5:] * x[:-5]) == pytest.approx(np.exp(-1.0), abs=0.06)  # 0.5 s later


def test_correlated_parameters():
    wide = {"uniform": [0.5, 1.5]}
    config = Config(
        parameters={"link_mass": wide, "arm_gain": wide}, correlations={"link_mass": {"arm_gain": 0.9}}
    )
    table = DeskVectorEnv(1, num_threads=1).episodes.parameters.table
    sampler, rng = Randomization.of(config, table), np.random.default_rng(0)
    rows = [sampler.episode(rng).values for _ in range(2000)]
    a, b = ([row[name] for row in rows] for name in ("link_mass", "arm_gain"))
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(0.89, abs=0.03)


def test_values_change_from_step_to_step():
    env = desk(2, Config(parameters={"action_noise": {"uniform": [0.0, 0.3], "every": "step"}}))
    env.reset(seed=0)
    rows = [env.step(zeros(2))[4]["parameters"] for _ in range(3)]
    seen = {row[i]["action_noise"] for row in rows for i in range(2)}
    assert len(seen) == 6


def test_divergence_is_named_counted_and_drawn_again():
    env = DeskVectorEnv(2, "lift_block", num_threads=1)
    randomizer = randomize_desk(env, Randomization.of(MASS, env.episodes.parameters.table))
    _, info = env.reset(seed=0)
    env.episodes.sim.batch.bind("qvel")[1] = 1e9
    _, _, _, truncated, after = env.step(zeros(2))
    assert truncated.tolist() == [False, True]
    drawn = info["parameters"][1]["mass_red"]
    assert f"mass_red={drawn:.4g}" in after["final_info"]["error"][1]
    assert randomizer.num_unstable == 1
    assert randomizer.unstable[0]["mass_red"] == drawn
    assert after["parameters"][1]["mass_red"] != drawn
    assert np.isfinite(env.step(zeros(2))[0]["observation"]).all()


def test_a_distribution_that_only_diverges_is_given_up():
    env = DeskVectorEnv(2, "lift_block", num_threads=1)
    seen: list[float] = []
    sampler = Randomization.of(MASS, env.episodes.parameters.table)
    sampler.finished = lambda draw, performance: seen.append(performance)
    randomize_desk(env, sampler, redraws=3)
    env.reset(seed=0)
    for _ in range(2):
        env.episodes.sim.batch.bind("qvel")[1] = 1e9
        env.step(zeros(2))
    env.episodes.sim.batch.bind("qvel")[1] = 1e9
    with pytest.raises(ValueError, match="3 episodes in a row made the physics diverge.*mass_red="):
        env.step(zeros(2))
    assert seen == [0.0] * 3  # failures, for automatic randomisation


def test_recorded_episodes_hold_what_was_drawn(tmp_path):
    env = make_randomized(DESK, 2, fixed(DESK, MASS), threads=1, max_episode_steps=3)
    with Recorder("desk/drawn-v0", collect.info_of(env), tmp_path) as out:
        collect.record(Expert("lift_block"), env, out, episodes=2, seed=3)
    loaded = minari.MinariDataset(tmp_path / "desk/drawn-v0/data")
    _, info = env.reset(seed=3)
    for episode, expected in zip(
        loaded.storage.get_episode_metadata([0, 1]), info["parameters"], strict=True
    ):
        assert episode["parameters"]["mass_red"] == expected["mass_red"]


@pytest.mark.parametrize("name", ["none", "desk", "dactyl"])
def test_presets_fit_the_desk(name):
    config = Config(**OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml")))
    env = desk(2, config, max_episode_steps=3)
    env.reset(seed=0)
    for _ in range(4):
        obs, *_ = env.step(zeros(2))
    assert np.isfinite(obs["observation"]).all()
    assert bool(env.episodes.parameters.changed) == (name != "none")


def test_the_vision_preset_fits_the_desk():
    parameters = OmegaConf.load(CONFIGS / "vision.yaml").parameters
    env = desk(12, Config(parameters=OmegaConf.to_container(parameters)))
    _, info = env.reset(seed=0)
    assert {"color_floor_r", "camera_static_x", "light_key_brightness"} <= set(info["parameters"][0])
    assert {row["texture_desk"] for row in info["parameters"]} == {0.0, 1.0, 2.0}


def test_textures_are_drawn_by_name():
    rules = {"texture_desk": {"choice": ["cloth"]}, "texture_floor": {"choice": ["boards", 1]}}
    _, info = desk(12, Config(parameters=rules)).reset(seed=0)
    assert {row["texture_desk"] for row in info["parameters"]} == {2.0}
    assert {row["texture_floor"] for row in info["parameters"]} == {1.0, 2.0}
    with pytest.raises(ValueError, match="texture_desk='clot'.*'cloth'"):
        desk(1, Config(parameters={"texture_desk": {"choice": ["clot"]}}))


def test_redraws_must_be_positive():
    with pytest.raises(ValueError, match="randomization.redraws=0"):
        Config(redraws=0)
