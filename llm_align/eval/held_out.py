"""How a policy does on prompts that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from llm_align.eval.accuracy import verifiable
from llm_align.online.rollout import Samples, Task, join
from rl_core import distributed
from rl_core.config import require
from rl_core.run import Run


def held_out(task: Task, policy: Any, seed: int, device: torch.device | str = "cpu") -> dict[str, float]:
    """Mean reward, length and more over a group of responses to every prompt of `task`.

    Where every reward is 0 or 1, also accuracy and pass@k for k = 1 and the group.
    """
    return summary(draw(task, policy, seed, device))


def draw(task: Task, policy: Any, seed: int, device: torch.device | str = "cpu") -> Samples:
    """A judged group of responses to every prompt; the same seed draws the same random numbers."""
    generator = torch.Generator(device).manual_seed(seed)
    size, count = task.config.prompts, len(task.prompts)
    parts = [
        task.draw(policy, range(start, min(start + size, count)), generator)
        for start in range(0, count, size)
    ]
    return join(parts)


def calibrate(task: Task, policy: Any, run: Run, count: int) -> None:
    """Standardise trained rewards on the policy's answers to the first `count` prompts; 0 leaves them.

    Writes mean and deviation of each to `calibration.json`. Drawn from the run's seed before anything is
    trained, so that a resumed run finds the same. Raises ValueError where there are fewer prompts.
    """
    if count:
        require(
            count <= len(task.prompts), "rewards.calibrate", count, f"at most the {len(task.prompts)} prompts"
        )
        first = replace(task, prompts=task.prompts[:count])
        samples = draw(first, policy.to(run.device), run.cfg.seed, run.device)
        scales = task.rewards.calibrate(samples.parts)
        run.write("calibration.json", {name: asdict(scale) for name, scale in scales.items()})


def logged(folder: Path) -> dict[str, float]:
    """The last evaluation in a run's metrics."""
    rows = map(json.loads, reversed((folder / "metrics.jsonl").read_text().splitlines()))
    evaluations = (
        {k.removeprefix("eval/"): v for k, v in row.items() if k.startswith("eval/")} for row in rows
    )
    return next(filter(None, evaluations), {})


def write(overall: dict[str, float], folder: Path) -> str:
    """Write `eval.json` into `folder`, one process of several; returns the numbers in one line."""
    if distributed.rank() == 0:
        (folder / "eval.json").write_text(json.dumps({"overall": overall}, indent=1) + "\n")
    return "  ".join(f"{name} {value:.4g}" for name, value in overall.items())


def summary(samples: Samples, ks: Sequence[int] = ()) -> dict[str, float]:
    """Numbers of judged samples, pass@k for `ks`, 1 and the group; without a judged one, only their shape.

    Raises ValueError for `ks` where rewards are not right or wrong, 1 or 0.
    """
    reward = samples.reward[~samples.reward.isnan()]
    values = {
        "length": float(samples.responses.lengths.float().mean()),
        "truncated": float((~samples.ended).float().mean()),
        **samples.logged.means(),
    }
    if len(reward) == 0:
        return values
    if len(samples.parts) > 1:
        values |= {f"reward_{name}": float(part.nanmean()) for name, part in samples.parts.items()}
    best = samples.grouped(samples.reward.nan_to_num(-torch.inf)).amax(1)
    values |= {"reward": float(reward.mean()), "best_of_group": float(best[best.isfinite()].mean())}
    verdicts = bool(((reward == 0) | (reward == 1)).all())
    require(verdicts or not ks, "ks", list(ks), "empty where rewards are other numbers than 0 and 1")
    if verdicts:
        values |= verifiable(samples, ks=sorted({1, *ks, samples.group_size}))
    return values
