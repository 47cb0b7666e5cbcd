"""The transfer test end to end, small; and that it goes on where it was stopped."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from embodied_rl.eval.statistics import bootstrap_mean, overlap, wilson
from embodied_rl.online import ppo, rollout
from embodied_rl.sim2real import adr, identified, randomization, transfer
from embodied_rl.sim2real.distributions import Rule
from embodied_rl.sim2real.randomization import Draw, Randomization
from embodied_rl.sim2real.realities import Reality
from embodied_rl.sim2real.table import Table
from rl_core import ppo as core
from rl_core import run as runs

REALITIES = {"stiff": Reality(parameters={"arm_gain": 1.5}, backlash=0.002)}
WIDE = {"arm_gain": {"uniform": [0.8, 1.2]}}


def training(**changes) -> transfer.Training:
    return transfer.Training(
        algo=ppo.Config(hidden=(8,), ppo=core.Config(epochs=1, minibatch_size=16)),
        rollout=rollout.Config(num_envs=2, horizon=8, threads=1),
        run=runs.Config(steps=2, device="cpu", checkpoint_every=1, tensorboard=False, **changes),
        ranges=randomization.Config(parameters=WIDE),
        adr=adr.Config(parameters={"arm_gain": {"exp": 1.0}}, low_performance=0.2, high_performance=0.8),
        env={"task": "lift_block", "max_episode_steps": 4},
    )


def settings(*methods: str, **changes) -> transfer.Config:
    return transfer.Config(methods=methods, seeds=(0,), episodes=2, num_envs=2, motion_episodes=2, **changes)


def test_every_method_is_trained_and_tried_and_kept(tmp_path: Path):
    cfg = settings("nominal", "adr")
    table = transfer.compare(cfg, training(), tmp_path, cfg, REALITIES)
    assert set(table.successes) == {"nominal", "adr"}
    assert {desk: len(trials) for desk, trials in table.successes["adr"][0].items()} == {
        "nominal": 2,
        "stiff": 2,
    }
    assert table.steps == 2 * 2 * 8
    saved = json.loads((tmp_path / "transfer.json").read_text())
    assert saved["success"]["adr"]["held out"]["value"] in (0.0, 0.5, 1.0)
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert "ADR: entropy" in (tmp_path / "adr-seed0" / "report.html").read_text()
    # Again: what is finished is only read, what lacks its policy is trained on from its checkpoint.
    before = (tmp_path / "adr-seed0" / "metrics.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "nominal-seed0" / "policy")
    (tmp_path / "nominal-seed0" / "transfer.json").unlink()
    again = transfer.compare(cfg, training(), tmp_path, cfg, REALITIES)
    assert again.successes == table.successes
    assert (tmp_path / "adr-seed0" / "metrics.jsonl").read_bytes() == before


def test_methods_can_share_their_first_steps(tmp_path: Path):
    cfg = settings("nominal", "fixed", shared_steps=1)
    table = transfer.compare(cfg, training(), tmp_path, cfg, REALITIES)
    assert table.steps == 2 * 2 * 8  # the shared ones count for everybody
    steps = {path.parent.name: path.read_text().count("\n") for path in tmp_path.glob("*/metrics.jsonl")}
    assert steps.keys() == {"start-seed0", "nominal-seed0", "fixed-seed0"}
    with pytest.raises(ValueError, match="transfer.shared_steps=2.*less than run.steps=2"):
        transfer.compare(settings("fixed", shared_steps=2), training(), tmp_path, cfg, REALITIES)


@dataclass(kw_only=True)
class Record:
    """As of the script: what a run's `config.yaml` holds."""

    transfer: transfer.Config
    randomization: randomization.Config


def test_results_are_kept_only_where_they_are_the_same(tmp_path: Path):
    def compared(how: transfer.Training, *methods: str, **changes) -> Table:
        cfg = settings(*methods, **changes)
        record = Record(transfer=cfg, randomization=how.ranges)
        return transfer.compare(cfg, how, tmp_path, record, REALITIES)

    compared(training(), "nominal", "fixed")
    learnt = (tmp_path / "nominal-seed0" / "metrics.jsonl").read_bytes()
    table = compared(training(), "nominal", seed=7)  # other episodes: tried again, not trained again
    assert json.loads((tmp_path / "nominal-seed0" / "transfer.json").read_text())["settings"]["seed"] == 7
    assert len(table.successes["nominal"][0]["stiff"]) == 2
    other = training()
    other.ranges = randomization.Config(parameters={"arm_gain": {"uniform": [0.9, 1.1]}})
    compared(other, "nominal")  # which draws nothing
    assert (tmp_path / "nominal-seed0" / "metrics.jsonl").read_bytes() == learnt
    with pytest.raises(ValueError, match=r"another configuration \(randomization.parameters"):
        compared(other, "fixed")


def test_mistakes_of_any_method_come_before_the_training(tmp_path: Path):
    how = training()
    how.adr = adr.Config(parameters={"arm_gian": {"exp": 1.0}})
    moving = {"arm_gain": {"uniform": [0.8, 1.2], "every": "step"}}
    for method, ranges, words in (
        ("adr", WIDE, "did you mean 'arm_gain'"),
        ("fixed", {}, "randomization='none': must be ranges"),
        ("sysid", moving, "randomization.every='step'"),
    ):
        how.ranges = randomization.Config(parameters=ranges)
        cfg = settings("nominal", method)
        with pytest.raises(ValueError, match=words):
            transfer.compare(cfg, how, tmp_path, cfg, REALITIES)
    assert not list(tmp_path.iterdir())


def test_identified_desks_are_like_the_realities(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(identified, "_STEPS", 25)
    monkeypatch.setattr(identified, "IDENTIFIED", ("arm_gain",))

    # A pattern that comes later must not draw again what is identified.
    ranges = {
        "arm_gain": {"choice": [1.0]},
        "link_mass": {"choice": [1.1]},
        "arm_ga*": {"uniform": [0.9, 1.1]},
    }

    def sampled() -> transfer.Sampler:
        return identified.identified(
            {"stiff": Reality(parameters={"arm_gain": 1.5})},
            randomization.Config(parameters=ranges),
            2,
            tmp_path,
        )

    sampler = sampled()
    fit = json.loads((tmp_path / "stiff" / "fit.json").read_text())
    assert fit["parameters"]["arm_gain"]["value"] == pytest.approx(1.5, abs=0.1)
    assert "<svg" in (tmp_path / "stiff" / "report.html").read_text()
    before = (tmp_path / "stiff" / "fit.json").stat().st_mtime_ns
    draw = sampled().episode(np.random.default_rng(3)).values  # from what is there
    assert (tmp_path / "stiff" / "fit.json").stat().st_mtime_ns == before
    assert draw == sampler.episode(np.random.default_rng(3)).values
    draws = [sampler.episode(np.random.default_rng(seed)).values for seed in range(20)]
    assert np.mean([draw["arm_gain"] for draw in draws]) == pytest.approx(1.5, abs=0.1)
    assert {draw["link_mass"] for draw in draws} == {1.1}


def test_a_mixture_draws_from_all_its_parts():
    parts = [Randomization([Rule(name="a", kind="choice", numbers=(x,), group="a")]) for x in (1.0, 2.0)]
    mixture = identified.Mixture(parts)
    assert {mixture.episode(np.random.default_rng(seed)).values["a"] for seed in range(20)} == {1.0, 2.0}
    moving = Rule(name="a", kind="choice", numbers=(1.0,), group="a", every="step")
    with pytest.raises(ValueError, match="episode in a mixture"):
        identified.Mixture([Randomization([moving])])
    mixture.finished(Draw(values={}), 1.0)


def test_cells_by_hand():
    first = {"nominal": [True] * 2, "a": [True], "b": [False]}
    second = {"nominal": [True] * 2, "a": [False], "b": [False]}
    table = Table(successes={"nominal": {0: first, 5: second}}, steps=10)
    assert table.per_seed("nominal") == {0: 0.5, 5: 0.0}
    assert table.to_json()["held_out_per_seed"]["nominal"] == {0: 0.5, 5: 0.0}
    row = table.rows()["nominal"]
    assert [row[desk].value for desk in ("nominal", "a", "b", "held out")] == [1.0, 0.5, 0.0, 0.25]
    assert "| nominal | 100 [51, 100] | 50 [9, 91] |" in table.markdown()
    assert "| 25 |\n" in table.markdown() + "\n"  # one start shows no spread
    assert "points more than" not in table.markdown()


def test_a_start_counts_once_however_many_desks_and_policies_begin_from_it():
    half = [True, False] * 20
    better = [True, True, *half[2:]]
    successes = {
        name: {0: {"nominal": half, "a": trials, "b": half}}
        for name, trials in (("nominal", half), ("adr", better))
    }
    table = Table(successes=successes, steps=10)
    per_start = np.mean([better, half], axis=0)
    assert table.overall("adr") == bootstrap_mean(per_start)
    twice = Table(successes={"adr": {seed: successes["adr"][0] for seed in (0, 1)}}, steps=10)
    assert twice.overall("adr") == table.overall("adr")
    assert table.cell("adr", "a") == wilson(21, 40)
    # Apart, the two methods' intervals overlap by far; paired, one start tells and 39 say nothing.
    assert overlap(*map(table.overall, successes))
    gain = table.difference("adr", "nominal")
    assert (gain.value, gain.low, gain.high) == pytest.approx((1 / 80, 0.0, 3 / 80))
    assert table.difference("nominal", "adr").value == -gain.value
    saved = json.loads(json.dumps(table.to_json()))
    assert saved["held_out_differences"]["adr"]["nominal"]["value"] == gain.value
    assert Table.from_json(saved) == table
    assert "| held out, points more than | nominal | adr |\n" in table.markdown()
    assert "| adr | 1.2 [0.0, 3.8] |  |" in table.markdown()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("nominl",)}, "did you mean 'nominal'"),
        ({"methods": ()}, "some of"),
        ({"seeds": ()}, "at least one, all >= 0"),
        ({"seeds": (0, -1)}, "at least one, all >= 0"),
        ({"seeds": (0, 0)}, r"transfer.seeds=\(0, 0\): must be each once"),
        ({"methods": ("adr", "adr")}, "each once"),
        ({"seed": -5}, "transfer.seed=-5"),
        ({"episodes": 0}, "transfer.episodes=0"),
    ],
)
def test_bad_settings(changes, words):
    with pytest.raises(ValueError, match=words):
        transfer.Config(**changes)
