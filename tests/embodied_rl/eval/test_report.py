import base64
import json
import re

import numpy as np
import pytest
import yaml

from embodied_rl.eval import results, scores
from embodied_rl.eval.report import write_report
from embodied_rl.eval.rollout import Episode, Evaluation
from embodied_rl.eval.video import Mp4Writer

COMMAND = "python scripts/train_offline.py algo=iql data.id='desk/lift block'"


@pytest.fixture
def run_dir(tmp_path):
    path = tmp_path / "desk-iql"
    (path / "videos").mkdir(parents=True)
    origin = {
        "command": COMMAND,
        "started": "2026-01-02",
        "revision": "abc123",
        "packages": {"torch": "2.13.0"},
    }
    config = {"provenance": origin, "run": {"seed": 17}, "algo": {"lr": 0.0003}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [
        {"step": s, "time": s / 10, "train/q_loss": 1 / s, "eval/success": s / 2000}
        for s in range(100, 2001, 100)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    video = path / "videos" / "episode_seed_1000.mp4"
    writer = Mp4Writer(video, fps=10)
    writer.add(np.full((32, 32, 3), 90, np.uint8))
    writer.close()
    episodes = tuple(
        Episode(
            index=i,
            seed=1000 + i,
            task=["lift_block", "place_block"][i % 2],
            sum_reward=10.0 + i,
            max_reward=1.0,
            length=20,
            success=i != 3,
            success_at_end=True,
            terminated=True,
            video=video if i == 0 else None,
        )
        for i in range(20)
    )
    evaluation = Evaluation(
        env_id="AdroitHandDoor-v1",
        episodes=episodes,
        has_success=True,
        settings={
            "episodes": 20,
            "seed": 1000,
            "num_envs": 4,
            "env_id": "AdroitHandDoor-v1",
            "repairs": ["sign"],
        },
        latency_ms=np.array([0.5, 0.6]),
        wall_s=3.0,
    )
    content = results.summarize(evaluation, scores.reference("AdroitHandDoor-v1"), run_dir=path, argv=[])
    results.write(path, content)
    return path


def test_page_holds_everything(run_dir):
    page = write_report(run_dir).read_text()
    assert "95.0 %" in page
    assert "[76.4, 99.1]" in page, "Wilson interval of 19 of 20"
    assert page.count("<svg") == 3, "two curves and the histogram"
    for text in (
        "eval/success",
        "train/q_loss",
        "lift_block",
        "place_block",
        "overall",
        "D4RL constants of door-v0",
    ):
        assert text in page
    for text in (
        "algo=iql",
        "&#39;desk/lift block&#39;",
        "abc123",
        "torch 2.13.0",
        "1000 to 1019",
        "lr: 0.0003",
    ):
        assert text in page
    encoded = re.search(r"data:video/mp4;base64,([^\"]+)", page).group(1)
    assert base64.b64decode(encoded) == (run_dir / "videos" / "episode_seed_1000.mp4").read_bytes()
    assert "lift_block, seed 1000: return 10, success" in page
    assert "Not in this report" not in page


def test_page_asks_nothing_of_the_network(run_dir):
    page = write_report(run_dir).read_text()
    assert not re.search(r"https?:|//[a-z]+\.|@import|<script|<link(?! rel=\"icon\" href=\"data:)", page)
    sources = re.findall(r"(?:src|href)=\"([^\"]{0,5})", page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    references = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page))
    identities = re.findall(r" id=\"([^\"]+)\"", page)
    assert len(identities) == len(set(identities)), "figures must not share ids"
    assert {a or b for a, b in references} <= set(identities)


def test_page_follows_light_and_dark(run_dir):
    page = write_report(run_dir).read_text()
    assert "prefers-color-scheme: dark" in page
    assert "currentColor" in page
    assert "#010203" not in page


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("config.yaml", "the configuration"),
        ("metrics.jsonl", "learning curves"),
        ("eval.json", "the evaluation"),
        ("videos/episode_seed_1000.mp4", "a video"),
    ],
)
def test_missing_parts_are_said(run_dir, gone, said):
    (run_dir / gone).unlink()
    page = write_report(run_dir).read_text()
    assert re.search(rf"Not in this report.*{said}", page, re.DOTALL)


def test_what_there_is_no_room_for_is_said(run_dir):
    names = {f"train/m{i}": 0.5 for i in range(15)}
    rows = [{"step": step, **names} for step in (1, 2)]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = json.loads((run_dir / "eval.json").read_text())
    for row in evaluation["episodes"][:6]:
        row["video"] = "videos/episode_seed_1000.mp4"
    (run_dir / "eval.json").write_text(json.dumps(evaluation))
    page = write_report(run_dir).read_text()
    assert "3 more metrics (in metrics.jsonl)" in page
    assert "2 more videos (in videos/)" in page
    assert page.count("<video") == 4


def test_markup_in_names_is_escaped(run_dir):
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    config["provenance"]["command"] = "python <b>x</b>"
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    page = write_report(run_dir).read_text()
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x" in page


def test_a_line_cut_short_by_a_stop_is_left_out(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2100, "tra')
    assert "eval/success" in write_report(run_dir).read_text()


def test_bad_input(tmp_path, run_dir):
    with pytest.raises(ValueError, match="no such directory"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no run"):
        write_report(tmp_path / "empty")
    (run_dir / "eval.json").write_text("{")
    with pytest.raises(ValueError, match=r"eval.json: is not valid JSON"):
        write_report(run_dir)
    (run_dir / "eval.json").unlink()
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    (run_dir / "metrics.jsonl").write_text("\n".join([lines[0], "nonsense", *lines[1:]]))
    with pytest.raises(ValueError, match="line 2 is not valid JSON"):
        write_report(run_dir)


def test_videos_of_other_evaluations_are_left_out(run_dir):
    (run_dir / "videos" / "episode_seed_7.mp4").write_bytes(b"x")
    page = write_report(run_dir).read_text()
    assert page.count("<video") == 1
    assert "more videos" not in page
