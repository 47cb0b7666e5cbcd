import socket
import subprocess
import sys
from pathlib import Path

import av
import pytest

from embodied_rl.eval import demonstrate
from envs.desk.experts import Expert
from envs.suites import make_vec

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def env():
    return make_vec(
        "embodied/Desk-v0", 1, task="lift_block", terminate_on_success=False, max_episode_steps=500
    )


def test_the_video_runs_at_twice_the_control_rate_until_a_little_after_success(env, tmp_path):
    shown = demonstrate.film(
        Expert("lift_block"), env, tmp_path / "a.mp4", seed=0, max_steps=60, size=(64, 48)
    )
    assert shown.success
    with av.open(str(shown.path)) as file:
        stream = file.streams.video[0]
        # the picture and a line of caption below it
        assert (stream.width, stream.height, float(stream.average_rate)) == (64, 48 + 2, 20.0)
        count = sum(1 for _ in file.decode(stream))
    assert count == demonstrate.BETWEEN * (shown.steps + 8)


def test_what_does_not_succeed_stops_at_the_limit(env, tmp_path):
    shown = demonstrate.film(
        Expert("lift_block"), env, tmp_path / "a.mp4", seed=0, max_steps=2, size=(32, 32)
    )
    assert (shown.success, shown.steps) == (False, 2)


def test_the_web_viewer_serves_the_episode(tmp_path):
    """In a process of its own: the viewer's native part is global."""
    program = f"""
import pathlib, urllib.request
from embodied_rl.eval import demonstrate
from envs.desk.experts import Expert
from envs.suites import make_vec
env = make_vec("embodied/Desk-v0", 1, task="lift_block", terminate_on_success=False)
with demonstrate.web_viewer(env, 8177) as viewer:
    demonstrate.film(
        Expert("lift_block"), env, pathlib.Path({str(tmp_path / "a.mp4")!r}), seed=0, max_steps=2,
        size=(32, 32), viewer=viewer,
    )
    assert viewer.is_running()
    assert (viewer.data.qpos == env.unwrapped.episodes.sim.batch.get_data(0).qpos).all()
    assert b"<html" in urllib.request.urlopen("http://localhost:8177/", timeout=10).read()
print("served")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert "served" in done.stdout, done.stderr


def test_a_taken_port_is_a_clear_error(env):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match="web viewer cannot start"), demonstrate.web_viewer(env, port):
            pass
