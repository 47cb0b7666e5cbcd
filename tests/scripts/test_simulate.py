"""`scripts/simulate.py` as a user runs it."""

from functools import partial

import pytest

from embodied_rl.eval import demonstrate
from tests import command_line


@pytest.fixture(scope="module")
def simulate():
    return partial(command_line.call, "simulate")


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Small pictures; the path of the video."""
    film = demonstrate.film
    monkeypatch.setattr(demonstrate, "film", lambda *args, **more: film(*args, size=(32, 32), **more))
    return tmp_path / "video.mp4"


@pytest.mark.parametrize(
    ("instruction", "task"),
    [
        ("pick up the red block", "lift_red_block_table red"),
        ("push the mug left", "push_mug_left"),
    ],
)
def test_an_instruction_becomes_a_video(simulate, quick, capsys, instruction, task):
    simulate(f"instruction={instruction}", f"out={quick}")
    said = " ".join(capsys.readouterr().err.split())
    assert task in said
    assert "success: True" in said
    assert quick.stat().st_size > 500


def test_fallback_says_what_it_guesses(simulate, quick, capsys):
    simulate("instruction=lift the rad blok", "fallback=nearest", f"out={quick}", "steps=2")
    said = " ".join(capsys.readouterr().err.split())
    assert "unknown word 'rad'" in said
    assert "taken for 'lift the red block'" in said
    assert "success: False" in said


def test_own_sentences(simulate, quick, capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lift_pink_block_table: [hop]")
    simulate("instruction=hop", f"human={path}", f"out={quick}", "steps=1")
    assert "lift_pink_block_table pink" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["instruction=lift the rad block"], "unknown word 'rad' (nearest: red"),
        (["instruction=turn on the light"], "which light?"),
        (["instruction=lift the red block", "policy=nowhere"], "policy='nowhere'"),
        (["instruction=lift the red block", "fallback=nearst"], "did you mean 'nearest'"),
        (["instruction=lift the red block", "steps=0"], "steps=0"),
        (["instruction=lift the golden block"], "unknown word 'golden'"),
        ([], "instruction"),
    ],
)
def test_a_mistake_gets_a_sentence(simulate, quick, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        simulate(*arguments, f"out={quick}")
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not quick.exists()
