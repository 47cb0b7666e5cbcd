"""One self-contained HTML page for a run: numbers with intervals, curves, videos, and how to repeat it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml

from embodied_rl.eval import figures, results
from rl_core import provenance

FILE = "report.html"
_MAX_CURVES = 12
_MAX_VIDEOS = 4
_MAX_POINTS = 1000  # per curve: more cannot be seen, and the page would grow with the run


def write_report(run_dir: Path) -> Path:
    """Write `report.html` from what a run directory holds, and say on the page which parts are missing.

    Reads `config.yaml`, `metrics.jsonl`, `eval.json` and the videos it names, `figures*.json`. Raises a
    ValueError if there is none of them, or if one cannot be parsed (naming the file).
    """
    if not run_dir.is_dir():
        raise ValueError(f"run_dir={str(run_dir)!r}: no such directory")
    config = _config(run_dir / "config.yaml")
    metrics = _metrics(run_dir / "metrics.jsonl")
    evaluation = _json(run_dir / results.FILE)
    videos = _videos(run_dir, evaluation)
    own = [figures.Inline(**row) for file in sorted(run_dir.glob(figures.FILES)) for row in _json(file)]
    parts = {
        "the configuration (config.yaml)": config,
        "learning curves (metrics.jsonl)": metrics,
        "the evaluation (eval.json)": evaluation,
        "a video (videos/*.mp4)": videos,
    }
    missing = [name for name, part in parts.items() if not part]
    if len(missing) == len(parts) and not own:
        raise ValueError(f"run_dir={str(run_dir)!r}: holds no run, none of {', '.join(parts)}")
    missing += _left_out(len(_filmed(run_dir, evaluation)), metrics)
    page = _template().render(
        title=run_dir.resolve().name,
        subtitle=_subtitle(config, evaluation),
        missing=missing,
        tiles=_tiles(evaluation, metrics),
        videos=videos,
        figures=own,
        curves=_curves(metrics),
        scores=_scores(evaluation),
        score_note=_score_note(evaluation),
        returns=_returns(evaluation),
        commands=_commands(config, evaluation),
        facts=_facts(config, evaluation),
        config=_dump({k: v for k, v in config.items() if k != "provenance"}),
        settings=_dump(evaluation.get("settings")),
    )
    path = run_dir / FILE
    path.write_text(page, encoding="utf-8")
    return path


def _template() -> jinja2.Template:
    source = (
        resources.files("embodied_rl.eval").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    )
    return jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    ).from_string(source)


def _json(path: Path) -> Any:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not valid JSON ({error})") from error
    return content


def _config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is not valid YAML ({error})") from error


def _metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Read (step, value) pairs per metric; a last line cut short by a stop is left out."""
    series: dict[str, list[tuple[float, float]]] = {}
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}: line {number} is not valid JSON ({error})") from error
        for name, value in row.items():
            if name not in ("step", "time"):
                series.setdefault(name, []).append((row["step"], value))
    return series


def _videos(run_dir: Path, evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    videos = []
    for row in _filmed(run_dir, evaluation)[:_MAX_VIDEOS]:
        ending = f", {'success' if row['success'] else 'no success'}" if _has_success(evaluation) else ""
        caption = f"{row['task']}, seed {row['seed']}: return {row['sum_reward']:.4g}{ending}"
        content = base64.b64encode((run_dir / row["video"]).read_bytes()).decode()
        videos.append({"base64": content, "caption": caption})
    return videos


def _filmed(run_dir: Path, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The episodes whose videos are there; other files in `videos/` are of earlier evaluations."""
    rows = evaluation.get("episodes", [])
    return [row for row in rows if row["video"] and (run_dir / row["video"]).exists()]


def _curves(metrics: Mapping[str, list[tuple[float, float]]]) -> list[figures.Inline]:
    """Draw what the run is about first: success, return, other evaluation, then training, then the rest."""
    first = ["eval/success", "eval/return"]
    groups = {"eval": 0, "train": 1}

    def place(name: str) -> tuple[int, int, str]:
        rank = first.index(name) if name in first else len(first)
        return rank, groups.get(name.split("/")[0], 2), name

    names = sorted(metrics, key=place)
    curves = []
    for name in [name for name in names if len(metrics[name]) > 1][:_MAX_CURVES]:
        every = max(1, len(metrics[name]) // _MAX_POINTS)
        points = metrics[name][::-every][::-1]  # thinned from the end: the last value stays
        steps, values = zip(*points, strict=True)
        curves.append(figures.curve(name, steps, values))
    return curves


def _left_out(num_videos: int, metrics: Mapping[str, list[tuple[float, float]]]) -> list[str]:
    curves = sum(len(points) > 1 for points in metrics.values()) - _MAX_CURVES
    counts = {"more videos (in videos/)": num_videos - _MAX_VIDEOS, "more metrics (in metrics.jsonl)": curves}
    return [f"{count} {name}" for name, count in counts.items() if count > 0]


def _returns(evaluation: Mapping[str, Any]) -> figures.Inline | None:
    values = [row["sum_reward"] for row in evaluation.get("episodes", [])]
    return figures.histogram("return of each episode", values) if len(values) > 1 else None


def _has_success(evaluation: Mapping[str, Any]) -> bool:
    return evaluation.get("overall", {}).get("pc_success") is not None


def _tiles(evaluation: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    tiles = []
    if evaluation:
        overall = evaluation["overall"]
        for name, value, bounds in results.measures(overall):
            note = f"95 % interval {bounds}" if bounds else ""
            tiles.append({"name": name.capitalize(), "value": value, "note": note})
        latency = overall["policy_latency_ms"]
        note = f"95 % of calls under {latency['p95']:.2f} ms, batch {latency['batch']}"
        tiles.append({"name": "Policy latency", "value": f"{latency['median']:.2f} ms", "note": note})
        note = f"{overall['eval_s']:.1f} s of evaluation"
        tiles.append({"name": "Episodes", "value": f"{overall['n_episodes']}", "note": note})
    elif metrics:
        last = max(points[-1][0] for points in metrics.values())
        tiles.append({"name": "Training steps", "value": f"{last:,}", "note": ""})
    return tiles


def _scores(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not evaluation:
        return []
    tasks = [(row["task"], row) for row in evaluation["per_task"]]
    rows = [*tasks, ("overall", evaluation["overall"])] if len(tasks) > 1 else tasks
    return [
        {
            "name": name,
            "episodes": row["n_episodes"],
            "cells": [
                _cell(row, "pc_success"),
                _cell(row, "pc_success_at_end"),
                _cell(row, "avg_sum_reward"),
                _cell(row, "normalized_score"),
                _cell(row, "avg_length"),
            ],
        }
        for name, row in rows
    ]


def _cell(row: Mapping[str, Any], key: str) -> dict[str, str]:
    if row[key] is None:
        return {"value": "–", "interval": ""}
    return {"value": results.number(row[key]), "interval": results.interval(row.get(f"{key}_ci95"))}


def _score_note(evaluation: Mapping[str, Any]) -> str:
    reference = evaluation.get("score_reference")
    if isinstance(reference, dict):
        span = f"{reference['minimum']:g} scores 0, {reference['maximum']:g} scores 100"
        return f"Score: {reference['source']} ({span})."
    return f"Score: {reference}." if reference else ""


def _subtitle(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    origin = config.get("provenance") or evaluation.get("provenance") or {}
    env = evaluation.get("settings", {}).get("env_id")
    return " · ".join(str(part) for part in (env, origin.get("started")) if part)


def _commands(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    origins = [("Training", config.get("provenance")), ("Evaluation", evaluation.get("provenance"))]
    commands: list[dict[str, str]] = []
    for name, origin in origins:
        if origin and origin["command"] not in [command["text"] for command in commands]:
            commands.append({"name": name, "text": origin["command"]})
    return commands


def _facts(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[tuple[str, Any]]:
    origin = config.get("provenance") or evaluation.get("provenance") or provenance.collect([])
    seed = config.get("run", {}).get("seed")
    settings = evaluation.get("settings", {})
    facts = [
        ("Training seed", seed),
        ("Evaluation seeds", _seeds(settings)),
        ("Revision", origin.get("revision")),
        ("Python", origin.get("python")),
        ("Packages", ", ".join(f"{name} {version}" for name, version in origin.get("packages", {}).items())),
        ("Environment repairs", "; ".join(settings.get("repairs", []))),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]


def _seeds(settings: Mapping[str, Any]) -> str | None:
    if not settings:
        return None
    return f"{settings['seed']} to {settings['seed'] + settings['episodes'] - 1}"


def _dump(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True) if tree else ""
