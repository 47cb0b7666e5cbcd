"""From judgements to a reward model in a folder, or to an ensemble of them, with its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_align.data import loader
from llm_align.data.examples import Example
from llm_align.data.loader import Batches
from llm_align.eval.choosing import choosers
from llm_align.eval.held_out import logged
from llm_align.feedback import reward_model, scorer, steps
from llm_align.feedback.calibration import calibration
from llm_align.feedback.trained import RewardModel
from rl_core import run as runs
from rl_core.config import require
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """Everything that decides a run."""

    algo: reward_model.Config = field(default_factory=reward_model.Config)
    model: scorer.Config = field(default_factory=scorer.Config)
    data: loader.Config = field(default_factory=loader.Config)
    run: runs.Config = field(default_factory=runs.Config)
    ensemble: int = 1  # members: each has a seed of its own and its own draw, with repeats, of the examples

    def __post_init__(self) -> None:
        """Check the number of members."""
        require(self.ensemble >= 1, "ensemble", self.ensemble, "at least 1")


def train(
    cfg: Config, examples: Sequence[Example], run: Run, folder: Path
) -> tuple[dict[str, Any], Tensor | None]:
    """Train one reward model and save it in `folder`.

    Returns its report and, of comparisons, its `reward_model.pair_scores` on what was held out (else None).
    """
    objective = cfg.algo.objective
    process = objective == "process"
    model, tokenizer = scorer.build(cfg.model, loader.texts(examples), cfg.data.max_length)
    tokenize = steps.tokenize if process else loader.tokenize
    data, held_out = loader.batches(cfg.data, tokenizer, examples, run, tokenize)
    data = _redrawn(cfg, data, run) if cfg.ensemble > 1 else data
    agent = reward_model.train(cfg.algo, model, data, held_out, run)
    RewardModel(agent.scorer, tokenizer, cfg.data, cfg.algo.aggregation if process else None).save(folder)
    if not held_out:
        return {}, None
    overall: dict[str, Any] = dict(logged(run.dir))
    if objective == "outcome":
        rated = [item.example for item in held_out.encoded]
        overall["questions"] = len({str(example.prompt) for example in rated})
        overall["best_of_n"] = choosers(rated, reward_model.rate(agent, held_out))
    if objective not in reward_model.COMPARED:
        return overall, None
    pairs = reward_model.pair_scores(agent, held_out)
    return overall | asdict(calibration(*pairs.unbind(1))), pairs


def train_ensemble(cfg: Config, examples: Sequence[Example], folder: Path) -> dict[str, Any]:
    """Train the members in `folder/member<k>` and save them in `folder/model/<k>`; returns their report.

    Of comparisons that is the report of the mean score, the mean `spread` of the members on one answer, and
    their accuracies; else the members' own reports. An interrupted ensemble resumes with the member that was
    being trained.
    """
    free = not (folder / "config.yaml").exists()
    require(
        free, "run.dir", str(folder), "a folder that is no run: the members of an ensemble are runs in it"
    )
    reports: list[dict[str, Any]] = []
    pairs: list[Tensor] = []
    for number in range(cfg.ensemble):
        place = folder / f"member{number}"
        begun = cfg.run.resume and place.exists()
        settings = replace(cfg.run, dir=str(place), seed=cfg.run.seed + number, resume=begun)
        member = replace(cfg, run=settings)
        with Run(settings, config=member, shared=True) as run:
            report, scores = train(member, examples, run, folder / "model" / str(number))
            run.write("eval.json", {"overall": report})
        reports.append(report)
        if scores is not None:
            pairs.append(scores)
    if not pairs:
        return {"members": reports}
    stacked = torch.stack(pairs)
    return asdict(calibration(*stacked.mean(0).unbind(1))) | {
        "spread": stacked[..., :2].std(0).mean().item(),
        "members": [report["accuracy"] for report in reports],
    }


def _redrawn(cfg: Config, data: Batches, run: Run) -> Batches:
    """A bootstrap of the examples: seeds alone leave the members of a frozen trunk all but equal."""
    generator = torch.Generator().manual_seed(run.cfg.seed)
    rows = torch.randint(len(data), (len(data),), generator=generator).tolist()
    encoded = [data.encoded[row] for row in rows]
    return Batches(encoded, cfg.data, seed=run.cfg.seed, device=run.device)
