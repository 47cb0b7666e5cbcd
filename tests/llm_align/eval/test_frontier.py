"""The KL-reward frontier of points by hand and of a run's metrics."""

from __future__ import annotations

import json
import math

import pytest

from llm_align.eval.frontier import Point, best_of_n_kl, frontier, points


def test_the_frontier_by_hand():
    all_points = [Point(kl=k, reward=r) for k, r in [(1, 1), (0, 0), (2, 0.5), (2, 2), (3, 2), (0, -1)]]
    assert [(p.kl, p.reward) for p in frontier(all_points)] == [(0, 0), (1, 1), (2, 2)]
    assert frontier([]) == []


def test_points_come_from_a_runs_metrics(tmp_path):
    rows = [{"step": 1, "train/kl": 0.5, "train/reward": 1.0}, {"step": 2, "eval/x": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert points(tmp_path) == [Point(kl=0.5, reward=1.0, run=tmp_path.name, step=1)]
    with pytest.raises(ValueError, match="'train/gold'.*it has eval/x"):
        points(tmp_path, reward="train/gold")
    with pytest.raises(ValueError, match="metrics.jsonl"):
        points(tmp_path / "nowhere")


def test_best_of_n_bound():
    assert best_of_n_kl(1) == 0.0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
