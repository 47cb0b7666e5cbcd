"""The command lines of identification and transfer: what they compose."""

import pytest

from embodied_rl.online import ppo
from rl_core import config
from tests import command_line


def compose(name: str, *overrides: str):
    groups = {"transfer": {"algo": {"ppo": ppo.Config}}, "identify_system": {}}
    return config.parse(name, command_line.load(name).Config, groups[name], overrides)


def test_transfer_composes_its_recipe_and_a_preset():
    cfg = compose("transfer", "+experiment=transfer_lift_block", "randomization=dactyl")
    assert cfg.transfer.methods == ("nominal", "fixed", "adr", "sysid")
    assert cfg.randomization.parameters["push_force"] == {"choice": [0.08]}
    assert cfg.adr.parameters["latency"] == {"above": 0.05}
    assert cfg.env.task == "lift_block"
    vision = compose("transfer", "randomization=vision").randomization.parameters
    assert {"mass_*", "camera_static_?"} <= set(vision)  # upon those of the desk


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
    assert online("adr=desk").adr.parameters["latency"] == {"above": 0.05}
    with pytest.raises(ValueError, match="did you mean 'dactyl'"):
        online("randomization=dactil")
