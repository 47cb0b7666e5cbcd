"""`eval.json`: what an evaluation found, with intervals, under LeRobot's key names (`eval_info.json`)."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied_rl.eval import statistics
from embodied_rl.eval.rollout import Episode, Evaluation
from embodied_rl.eval.scores import Reference
from rl_core import provenance

FILE = "eval.json"
_MEASURES = (
    ("success", "pc_success", " %"),
    ("return", "avg_sum_reward", ""),
    ("score", "normalized_score", ""),
)


def summarize(
    evaluation: Evaluation, reference: Reference | None, *, run_dir: Path, argv: Sequence[str]
) -> dict[str, Any]:
    """Return the content of `eval.json`.

    `overall`, `per_group` and `per_task` carry LeRobot's keys (`pc_success` is in percent; without a notion
    of success it is null) and ours beside them; `episodes` has one row per seed. Without `reference` the
    normalised score is null and `score_reference` says so. Paths are
    relative to `run_dir`, `argv` is the command line.
    """
    tasks = sorted({episode.task for episode in evaluation.episodes})
    per_task = []
    for number, task in enumerate(tasks):
        chosen = [episode for episode in evaluation.episodes if episode.task == task]
        per_task.append(
            {
                "task_group": evaluation.env_id,
                "task_id": number,
                "task": task,
                "metrics": {
                    "sum_rewards": [episode.sum_reward for episode in chosen],
                    "max_rewards": [episode.max_reward for episode in chosen],
                    "successes": [episode.success for episode in chosen],
                    "seeds": [episode.seed for episode in chosen],
                    "video_paths": _videos(chosen, run_dir),
                },
                **_aggregate(evaluation, chosen, reference, run_dir),
            }
        )
    overall = _aggregate(evaluation, evaluation.episodes, reference, run_dir)
    seconds = {"eval_s": evaluation.wall_s, "eval_ep_s": evaluation.wall_s / len(evaluation.episodes)}
    return {
        "overall": {**overall, **seconds, "policy_latency_ms": _latency(evaluation)},
        "per_group": {evaluation.env_id: overall},
        "per_task": per_task,
        "episodes": [_row(episode, run_dir) for episode in evaluation.episodes],
        "score_reference": dataclasses.asdict(reference)
        if reference
        else f"no reference returns are known for {evaluation.env_id}: no normalised score",
        "settings": evaluation.settings,
        "provenance": provenance.collect(argv),
    }


def headline(content: Mapping[str, Any]) -> str:
    """Say in one line what `summarize` found: success and score where there are such."""
    if not content:
        return "not evaluated"
    overall = content["overall"]
    parts = [" ".join(part for part in measure if part) for measure in measures(overall)]
    return f"{', '.join(parts)} over {overall['n_episodes']} episodes"


def measures(overall: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and interval, as text, of each main result that there is."""
    for name, key, unit in _MEASURES:
        if overall[key] is not None:
            yield name, f"{number(overall[key])}{unit}", interval(overall.get(f"{key}_ci95"))


def interval(bounds: Sequence[float | None] | None) -> str:
    """Print `[low, high]`, or nothing where one value shows no spread."""
    if not bounds or bounds[0] is None or bounds[1] is None:
        return ""
    return f"[{number(bounds[0])}, {number(bounds[1])}]"


def number(value: float) -> str:
    """Print a result with as many digits as its intervals deserve: 95.0, 1392.6, 1.05."""
    return f"{value:.1f}" if abs(value) >= 10 or value == 0 else f"{value:.2f}"


def write(run_dir: Path, content: Mapping[str, Any]) -> Path:
    """Write `eval.json` in one move, so that a reader never sees half a file."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)
    return path


def _aggregate(
    evaluation: Evaluation, episodes: Sequence[Episode], reference: Reference | None, run_dir: Path
) -> dict[str, Any]:
    returns = np.array([episode.sum_reward for episode in episodes])
    mean = statistics.bootstrap_mean(returns)
    result: dict[str, Any] = {
        "avg_sum_reward": mean.value,
        "avg_sum_reward_ci95": [mean.low, mean.high],
        "std_sum_reward": float(returns.std()),
        "avg_max_reward": float(np.mean([episode.max_reward for episode in episodes])),
        "avg_length": float(np.mean([episode.length for episode in episodes])),
        "n_episodes": len(episodes),
        "pc_success": None,
        "pc_success_ci95": None,
        "pc_success_at_end": None,
        "normalized_score": None,
        "normalized_score_ci95": None,
        "video_paths": _videos(episodes, run_dir),
    }
    if evaluation.has_success:
        rate = statistics.wilson(sum(episode.success for episode in episodes), len(episodes))
        assert rate.low is not None
        assert rate.high is not None
        result["pc_success"] = 100.0 * rate.value
        result["pc_success_ci95"] = [100.0 * rate.low, 100.0 * rate.high]
        result["pc_success_at_end"] = 100.0 * float(np.mean([e.success_at_end for e in episodes]))
    if reference is not None:
        result["normalized_score"] = reference.score(mean.value)
        result["normalized_score_ci95"] = [
            None if bound is None else reference.score(bound) for bound in (mean.low, mean.high)
        ]
    return result


def _latency(evaluation: Evaluation) -> dict[str, float | int]:
    """Milliseconds per call of the policy, which acts for all simulations of a wave at once."""
    calls = evaluation.latency_ms
    return {
        "median": float(np.median(calls)),
        "p95": float(np.percentile(calls, 95)),
        "batch": evaluation.settings["num_envs"],
        "calls": len(calls),
    }


def _row(episode: Episode, run_dir: Path) -> dict[str, Any]:
    row = dataclasses.asdict(episode)
    row["video"] = _relative(episode.video, run_dir) if episode.video else None
    return row


def _videos(episodes: Sequence[Episode], run_dir: Path) -> list[str]:
    return [_relative(episode.video, run_dir) for episode in episodes if episode.video is not None]


def _relative(path: Path, run_dir: Path) -> str:
    return os.path.relpath(path, run_dir)
