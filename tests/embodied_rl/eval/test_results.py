import json

import numpy as np
import pytest

from embodied_rl.eval import results, scores
from embodied_rl.eval.rollout import Episode, Evaluation


def evaluation(returns=(1.0, 2.0, 3.0, 4.0), has_success=True, env_id="Hopper-v5", video=None):
    episodes = tuple(
        Episode(
            index=i,
            seed=10 + i,
            task=["lift", "place"][i % 2],
            sum_reward=value,
            max_reward=value / 2,
            length=5,
            success=i > 0,
            success_at_end=i > 1,
            terminated=True,
            video=video if i == 0 else None,
        )
        for i, value in enumerate(returns)
    )
    settings = {"episodes": len(returns), "seed": 10, "num_envs": 2, "env_id": env_id, "deterministic": True}
    return Evaluation(
        env_id=env_id,
        episodes=episodes,
        has_success=has_success,
        settings=settings,
        latency_ms=np.array([1.0, 2.0, 9.0]),
        wall_s=2.0,
    )


def test_lerobot_keys_and_ours(tmp_path):
    video = tmp_path / "videos" / "a.mp4"
    content = results.summarize(
        evaluation(video=video), scores.reference("Hopper-v5"), run_dir=tmp_path, argv=[]
    )
    overall = content["overall"]
    lerobot = {
        "avg_sum_reward",
        "avg_max_reward",
        "pc_success",
        "n_episodes",
        "video_paths",
        "eval_s",
        "eval_ep_s",
    }
    assert lerobot <= set(overall)
    assert overall["avg_sum_reward"] == 2.5
    assert overall["pc_success"] == 75.0
    assert overall["pc_success_ci95"] == pytest.approx([30.06, 95.44], abs=0.01)
    assert overall["pc_success_at_end"] == 50.0
    assert overall["eval_ep_s"] == 0.5
    assert overall["policy_latency_ms"] == {"median": 2.0, "p95": pytest.approx(8.3), "batch": 2, "calls": 3}
    assert overall["video_paths"] == ["videos/a.mp4"]
    low, high = overall["avg_sum_reward_ci95"]
    assert 1.0 <= low < 2.5 < high <= 4.0
    assert overall["normalized_score"] == pytest.approx(scores.reference("Hopper-v5").score(2.5))
    assert set(content["per_group"]) == {"Hopper-v5"}
    task = content["per_task"][1]
    assert (task["task_group"], task["task_id"], task["task"]) == ("Hopper-v5", 1, "place")
    assert task["metrics"]["sum_rewards"] == [2.0, 4.0]
    assert task["metrics"]["seeds"] == [11, 13]
    assert [row["seed"] for row in content["episodes"]] == [10, 11, 12, 13]
    assert content["settings"]["seed"] == 10
    assert {"mujoco", "gymnasium", "gymnasium-robotics"} <= set(content["provenance"]["packages"])


def test_what_is_not_known_is_null_and_said():
    content = results.summarize(
        evaluation(has_success=False, env_id="embodied/Desk-v0"), None, run_dir=results.Path("runs"), argv=[]
    )
    assert content["overall"]["pc_success"] is None
    assert content["overall"]["normalized_score"] is None
    assert content["score_reference"].startswith("no reference returns are known for embodied/Desk-v0")


def test_written_file_is_plain_json(tmp_path):
    path = results.write(tmp_path / "new", results.summarize(evaluation(), None, run_dir=tmp_path, argv=[]))
    assert json.loads(path.read_text())["overall"]["n_episodes"] == 4
    assert [file.name for file in path.parent.iterdir()] == ["eval.json"]


def test_one_episode_has_no_return_interval(tmp_path):
    content = results.summarize(
        evaluation(returns=(3.0,)), scores.reference("Hopper-v5"), run_dir=tmp_path, argv=[]
    )
    assert content["overall"]["avg_sum_reward_ci95"] == [None, None]
    assert content["overall"]["normalized_score_ci95"] == [None, None]


def test_non_finite_return_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="is not finite"):
        results.summarize(evaluation(returns=(1.0, float("nan"))), None, run_dir=tmp_path, argv=[])


def test_headline(tmp_path):
    content = results.summarize(evaluation(), None, run_dir=tmp_path, argv=[])
    assert results.headline(content).startswith("success 75.0 % [30.1, 95.4], return 2.50 [")
    assert results.headline(content).endswith("over 4 episodes")
    one = results.summarize(evaluation(returns=(3.0,), has_success=False), None, run_dir=tmp_path, argv=[])
    assert results.headline(one) == "return 3.00 over 1 episodes"
