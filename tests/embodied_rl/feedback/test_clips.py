"""What the camera films, and how a person's answers are taken."""

import json

import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from embodied_rl.feedback import clips
from envs.suites import make_vec
from rl_core.comparisons import ComparisonStore


@pytest.fixture
def camera(monkeypatch) -> clips.Camera:
    """A camera on two pendulums whose episodes end after five steps, and that sees the number of the step."""
    camera = clips.Camera(make_vec("InvertedPendulum-v5", 2, max_episode_steps=5))

    def draw(env: VectorEnv, index: int) -> np.ndarray:
        return np.full((16, 16, 3), camera._t, np.uint8)

    monkeypatch.setattr(clips, "render_frame", draw)
    return camera


def test_several_pieces_of_one_simulation_are_filmed_and_those_an_end_cuts_are_not(
    camera, tmp_path, monkeypatch
):
    places = [(0, 0), (0, 3), (0, 6), (1, 2)]  # the second goes on after step 5
    pieces = [
        clips.Piece(env=env, start=start, file=tmp_path / f"{env}-{start}.mp4") for env, start in places
    ]
    written = {}
    monkeypatch.setattr(camera, "_write", lambda file, frames: written.update({file.stem: len(frames)}))
    camera.reset(seed=0)
    camera.film(pieces, 3)
    for _ in range(10):
        camera.step(np.zeros((2, 1), np.float32))
    assert [(piece.env, piece.start) for piece in camera.whole] == [(0, 0), (1, 2), (0, 6)]
    assert written == {"0-0": 3, "1-2": 3, "0-6": 3}
    camera.film(pieces[:1], 3)  # the next rollout
    assert camera.whole == []
    for _ in range(3):
        camera.step(np.zeros((2, 1), np.float32))
    assert camera.whole == pieces[:1]


def test_the_end_of_the_input_stops_like_q(tmp_path):
    rows = [{"question": "Which?", "items": [f"a{i}", f"b{i}"]} for i in range(3)]
    (tmp_path / clips.QUESTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = iter(["2"])

    def read(prompt: str) -> str:
        for word in said:
            return word
        raise EOFError

    assert clips.answer(tmp_path, "anna", read) == 2
    assert clips.answer(tmp_path, "anna", read) == 2
    assert [c.rank for c in ComparisonStore(tmp_path / "comparisons.jsonl")] == [(1, 0)]
