"""The command lines of identification and transfer: what they compose."""

import json
from pathlib import Path

import minari
import pytest

from embodied_rl.sim2real.belief import Belief
from embodied_rl.sim2real.realities import HELD_OUT
from rl_core import config
from tests import command_line


def compose(name: str, *overrides: str):
    module = command_line.load(name)
    return config.parse(name, module.Config, command_line.groups(module), overrides)


def test_transfer_composes_its_recipe_and_a_preset():
    cfg = compose("transfer", "+experiment=transfer_lift_block", "randomization=dactyl")
    assert cfg.transfer.methods == ("nominal", "fixed", "adr", "sysid")
    assert cfg.randomization.parameters["push_force"] == {"choice": [0.08]}
    assert "latency" in cfg.adr.parameters
    assert cfg.env.task == "lift_block"
    vision = compose("transfer", "randomization=vision").randomization.parameters
    assert {"mass_*", "camera_static_?"} <= set(vision)  # upon those of the desk


@pytest.mark.slow
def test_identification_goes_on_and_what_it_writes_is_a_randomisation(tmp_path: Path):
    words = ["contacts=false", "parameters=[arm_gain]", f"data.root={tmp_path / 'data'}", "seconds=12"]
    shake = ["data.id=desk/shaken-v0", "shake={arm_gain: 0.8, joint_noise: 3e-4}"]
    command_line.call("identify_system", *words, *shake, f"out={tmp_path / 'one'}")
    again = ["data.id=desk/shaken-v1", "shake={arm_gain: 0.8, joint_noise: 3e-4}", "seed=5"]
    command_line.call(
        "identify_system", *words, *again, f"belief={tmp_path / 'one'}", f"out={tmp_path / 'two'}"
    )
    one, two = (Belief.load(tmp_path / name) for name in ("one", "two"))
    assert two.mean[0] == pytest.approx(0.8, rel=0.02)
    assert two.covariance[0, 0] < one.covariance[0, 0]  # what both rounds know
    assert json.loads((tmp_path / "two" / "fit.json").read_text())["start"]["arm_gain"] == one.mean[0]
    ranges = online(f"randomization={tmp_path / 'two' / 'randomization.yaml'}").randomization
    assert ranges.parameters["arm_gain"]["normal"][0] == pytest.approx(two.mean[0])


@pytest.mark.slow
def test_transfer_trains_tries_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [
        "+experiment=transfer_lift_block", "transfer.methods=[nominal,adr]", "transfer.seeds=[0]",
        "transfer.episodes=2", "transfer.num_envs=2", "transfer.shared_steps=1", "rollout.num_envs=2",
        "rollout.horizon=4", "run.steps=2", "run.device=cpu", "run.checkpoint_every=15",
        "env.kwargs={max_episode_steps: 5}", f"run.dir={tmp_path}",
    ]  # fmt: skip
    command_line.call("transfer", *words)
    table = json.loads((tmp_path / "transfer.json").read_text())
    assert set(table["success"]["adr"]) == {"nominal", *HELD_OUT, "held out"}
    assert table["environment_steps"] == 2 * 2 * 4
    command_line.call("transfer", *words, "rollout.threads=1")  # is read, also with other threads
    assert json.loads((tmp_path / "transfer.json").read_text()) == table
    assert "| adr |" in capsys.readouterr().err


def test_demonstrations_of_drawn_desks(tmp_path: Path):
    root = tmp_path / "data"
    command_line.call(
        "collect_demos", "data.id=desk/drawn-v0", f"data.root={root}", "episodes=2", "randomization=desk",
        "env.kwargs={max_episode_steps: 3}",
    )  # fmt: skip
    dataset = minari.MinariDataset(root / "desk/drawn-v0/data")
    drawn = [row["parameters"]["arm_gain"] for row in dataset.storage.get_episode_metadata([0, 1])]
    assert drawn[0] != drawn[1]


def test_a_policy_is_tried_on_a_reality(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["policy=expert", "env.task=lift_block", "eval.episodes=2", "eval.num_envs=2", "eval.videos=0"]
    command_line.call("evaluate", *words, "reality=worn_arm", f"out={tmp_path}")
    found = json.loads((tmp_path / "eval.json").read_text())
    assert found["settings"]["reality"]["backlash"] == 0.015
    for wrong, words_of_it in (
        ("reality=worn_amr", "did you mean 'worn_arm'"),
        ("env.kwargs={obs: rgb}", "vectors for a reality"),
    ):
        with pytest.raises(SystemExit):
            command_line.call("evaluate", *words, "reality=worn_arm", f"out={tmp_path}", wrong)
        assert words_of_it in capsys.readouterr().err


def test_identify_composes():
    cfg = compose("identify_system", "data.id=a/b-v0", "shake={arm_gain: 0.8}", "parameters=[arm_gain]")
    assert cfg.shake == {"arm_gain": 0.8}
    assert cfg.parameters == ("arm_gain",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["randomization=dactil"], "did you mean 'dactyl'"),
        (["transfer.methods=[nominl]"], "did you mean 'nominal'"),
        (["adr.low_performance=2"], "less than adr.high_performance"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        compose("transfer", *words)


def online(*overrides: str):
    module = command_line.load("train_online")
    return config.parse("train_online", module.Config, command_line.groups(module), overrides)


def test_online_training_takes_a_randomisation():
    cfg = online("algo=ppo", "env=desk", "task=lift_block", "randomization=dactyl")
    assert cfg.env.id == "embodied/Desk-v0"
    assert cfg.env.task == "lift_block"
    assert cfg.randomization.parameters["push_force"] == {"choice": [0.08]}
    assert not cfg.adr.parameters
    assert online("+experiment=lift_block_ppo", "task=place_block").env.task == "place_block"
    assert "latency" in online("adr=desk").adr.parameters
    with pytest.raises(ValueError, match="did you mean 'dactyl'"):
        online("randomization=dactil")
