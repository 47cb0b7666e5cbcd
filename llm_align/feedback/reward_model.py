"""Reward models: learn a score from judgements; one loop, objectives as pure functions of the scores.

    pairwise    -log sigmoid(r(chosen) - r(rejected) - margin)      pairs (Bradley-Terry; arXiv:2203.02155)
    listwise    Plackett-Luce likelihood of a ranking               K answers, in K forwards and not K (K - 1)
    pointwise   (r - score)^2                                       answers with a number
    outcome     binary cross-entropy of r                           answers that are right or wrong
    process     the same at the end of every step                   steps with labels (arXiv:2305.20050)

plus `centering` (scores near 0, arXiv:2312.09244) and `lm` (negative log-likelihood of the better answer from
the same forward, which keeps a causal backbone a language model, arXiv:2406.10216).

`frozen` trains the output alone, on features computed once: minutes on a CPU for a text encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_align.data import examples as kinds
from llm_align.data.examples import Example
from llm_align.data.loader import Batch, Batches
from llm_align.data.readers import Row
from llm_align.feedback import steps
from llm_align.feedback.calibration import Calibration, calibration
from llm_align.feedback.scorer import Scorer
from llm_align.models import optim
from llm_align.models.parallel import distribute
from rl_core import distributed
from rl_core.config import choice, require, require_read
from rl_core.preferences import bradley_terry_loss, centering_loss, plackett_luce_loss, pointwise_loss
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """Objective, regularisers and optimiser."""

    objective: str = "pairwise"  # pairwise | listwise | pointwise | outcome | process
    centering: float = 0.0  # weight of (best + worst)^2
    lm: float = 0.0  # weight of the better answer's negative log-likelihood, a mean over tokens
    l2: float = 0.0  # weight of the output's squared norm: a ridge on frozen features
    frozen: bool = False  # train the output on features computed once
    aggregation: str = "last"  # of a solution's step scores into one: last | min | mean
    optim: optim.Config = field(default_factory=lambda: optim.Config(lr=1e-5, warmup=10))

    def __post_init__(self) -> None:
        """Check ranges, and that the settings go together."""
        choice("algo.objective", self.objective, EXAMPLES)
        choice("algo.aggregation", self.aggregation, steps.AGGREGATIONS)
        for name in ("centering", "lm", "l2"):
            require(getattr(self, name) >= 0, f"algo.{name}", getattr(self, name), ">= 0")
        require_read(self, "objective", READS)
        require(not (self.frozen and self.lm), "algo.lm", self.lm, "0 with a frozen trunk")


EXAMPLES: dict[str, Callable[[Sequence[Row]], list[Example]]] = {
    "pairwise": kinds.preferences,
    "listwise": kinds.rankings,
    "pointwise": kinds.scored,
    "outcome": kinds.ratings,
    "process": steps.labelled,
}


COMPARED = ("pairwise", "listwise")
READS: dict[str, tuple[str, ...]] = {  # of the settings that not every objective has a use for
    **dict.fromkeys(COMPARED, ("centering", "lm", "l2", "frozen")),
    "pointwise": ("l2", "frozen"),
    "outcome": ("l2", "frozen"),
    "process": ("aggregation",),
}


def pairwise(score: Tensor, batch: Batch) -> Tensor:
    """Bradley-Terry with the column `margin`, `[P, 2] -> [P]`."""
    margin = torch.tensor([example.margin or 0.0 for example in batch.examples], device=score.device)
    return bradley_terry_loss(score[:, 0], score[:, 1], margin)


def listwise(score: Tensor, batch: Batch) -> Tensor:
    """Plackett-Luce of rankings, `[P, K] -> [P]`; answers of one rank are not compared."""
    rank = torch.zeros_like(score)
    ranks = [rank for example in batch.examples for rank in (example.columns or {})["ranks"]]
    rank = rank.masked_scatter(batch.mask, torch.tensor(ranks, dtype=score.dtype, device=score.device))
    return plackett_luce_loss(score, rank, batch.mask)


def pointwise(score: Tensor, batch: Batch) -> Tensor:
    """Squared error to the column `score`, `[P, 1] -> [P]`."""
    rating = [(example.columns or {})["score"] for example in batch.examples]
    return pointwise_loss(score[:, 0], torch.tensor(rating, device=score.device))


def outcome(score: Tensor, batch: Batch) -> Tensor:
    """Binary cross-entropy against the column `label`, `[P, 1] -> [P]`."""
    labels = [float(example.labels[0]) for example in batch.examples if example.labels]
    label = torch.tensor(labels, device=score.device)
    return F.binary_cross_entropy_with_logits(score[:, 0], label, reduction="none")


OBJECTIVES: dict[str, Callable[[Tensor, Batch], Tensor]] = {
    "pairwise": pairwise,
    "listwise": listwise,
    "pointwise": pointwise,
    "outcome": outcome,
}


class Agent(nn.Module):
    """The scorer and its optimizer; `frozen` leaves it the output only."""

    def __init__(self, scorer: Scorer, cfg: Config) -> None:
        super().__init__()
        if cfg.frozen:
            scorer.trunk.requires_grad_(False)
        if scorer.backbone == "encoder" and (cfg.lm or cfg.objective == "process"):
            raise ValueError(
                "model.backbone='encoder': algo.lm and process rewards need a causal backbone "
                "(an encoder has no next-token probabilities, and sees the steps that follow)"
            )
        self.scorer = scorer
        self.optimizer = optim.adamw(scorer, cfg.optim)


def update(agent: Agent, batch: Batch, features: Tensor | None, cfg: Config) -> dict[str, Tensor]:
    """One optimizer step; returns the losses before it. `features [P, K, H]` stand in for a frozen trunk."""
    stats: dict[str, Tensor]
    if cfg.objective == "process":
        objective, stats = steps.loss(agent.scorer, batch), {}
    else:
        objective, stats = _objective(agent, batch, features, cfg)
    objective.backward()
    stats = distributed.combine({"loss": objective.detach(), **stats})
    return stats | {"grad_norm": optim.apply_gradients(agent.optimizer, cfg.optim)}


def _objective(
    agent: Agent, batch: Batch, features: Tensor | None, cfg: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """This process's part of the loss, and of means to log."""
    regulariser = cfg.l2 * agent.scorer.ridge() / distributed.size()
    count = distributed.total(torch.tensor(float(len(batch.mask)), device=batch.mask.device))
    if cfg.lm:
        flat, log_probs = agent.scorer.with_log_probs(batch.responses)
        score = batch.grid(flat)
        best = batch.first_rows()
        mask = batch.responses.loss_mask[best]
        regulariser = regulariser - cfg.lm * log_probs.log_prob[best].sum() / distributed.total(mask.sum())
    else:
        score = scores(agent, batch, features)
    loss = OBJECTIVES[cfg.objective](score, batch).sum() / count
    stats = {"score": score.detach()[batch.mask].sum() / distributed.total(batch.mask.sum())}
    if cfg.objective in COMPARED:
        last = score.gather(1, batch.mask.sum(1, keepdim=True) - 1)[:, 0]
        regulariser = regulariser + cfg.centering * centering_loss(score[:, 0], last).sum() / count
        stats["accuracy"] = (score[:, 0] > last).sum() / count
    return loss + regulariser, stats


def scores(agent: Agent, batch: Batch, features: Tensor | None = None) -> Tensor:
    """Scores `[P, K]` of a batch, from its features where they are known."""
    if features is not None:
        return agent.scorer.head(features)
    return batch.grid(agent.scorer(batch.responses))


class Features:
    """What a frozen trunk makes of a dataset, computed once: `features(batch) -> [P, K, H]`.

    Without `frozen` there are none. `fit` also sets the scorer's normaliser to these features.
    """

    def __init__(self, agent: Agent, data: Batches, cfg: Config, *, fit: bool) -> None:
        self._table: Tensor | None = None
        if not cfg.frozen:
            return
        agent.eval()
        with torch.no_grad():
            for batch in data.once():
                values = agent.scorer.features(batch.responses).float()
                if self._table is None:
                    longest = max(len(item.responses) for item in data.encoded)
                    self._table = values.new_zeros(len(data), longest, values.shape[-1])
                owner = torch.tensor(batch.rows, device=values.device)[batch.responses.prompt_index]
                place = batch.mask.nonzero()[:, 1]
                self._table[owner, place] = values
            assert self._table is not None
            self._table = distributed.total(self._table)
            if fit:
                exists = torch.tensor(
                    [[k < len(item.responses) for k in range(longest)] for item in data.encoded]
                )
                agent.scorer.normalizer.update(self._table[exists.to(self._table.device)])
        agent.train()

    def __call__(self, batch: Batch) -> Tensor | None:
        """The features of a batch, or None."""
        return None if self._table is None else self._table[batch.rows, : batch.mask.shape[1]]


@torch.no_grad()
def evaluate(agent: Agent, data: Batches, cfg: Config, features: Features | None = None) -> dict[str, float]:
    """Loss, and how often the better answer scores higher (or a label is on its side of 0)."""
    agent.eval()
    totals: dict[str, Tensor] = {}
    for batch in data.once():
        if cfg.objective == "process":
            values = steps.evaluate(agent.scorer, batch, cfg.aggregation)
        else:
            score = scores(agent, batch, features(batch) if features else None)
            values = {"loss": OBJECTIVES[cfg.objective](score, batch).mean()} | _accuracy(score, batch, cfg)
        for name, value in values.items():
            part = value.double().cpu() * len(batch.rows) / len(data)
            totals[name] = totals.get(name, torch.zeros_like(part)) + part
    agent.train()
    return {name: value.item() for name, value in distributed.combine(totals).items()}


def _accuracy(score: Tensor, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    if cfg.objective == "pointwise":
        return {}
    if cfg.objective == "outcome":
        labels = torch.tensor([bool(example.labels and example.labels[0]) for example in batch.examples])
        return {"accuracy": ((score[:, 0] > 0).cpu() == labels).float().mean()}
    last = score.gather(1, batch.mask.sum(1, keepdim=True) - 1)[:, 0]
    return {"accuracy": (score[:, 0] > last).float().mean()}


def report(agent: Agent, data: Batches) -> Calibration:
    """Accuracy and calibration on pairs (best and worst answer), by the difference of their lengths."""
    return calibration(*pair_scores(agent, data).unbind(1))


@torch.no_grad()
def pair_scores(agent: Agent, data: Batches) -> Tensor:
    """Of each example's best and worst answer: both scores, both lengths in tokens, `[P, 4]`."""
    agent.eval()
    parts = []
    for batch in data.once():
        score = scores(agent, batch)
        length = batch.grid(batch.responses.lengths)
        last = batch.mask.sum(1, keepdim=True) - 1
        found = (score[:, :1], score.gather(1, last), length[:, :1], length.gather(1, last))
        parts.append(torch.cat(found, dim=1).cpu())
    agent.train()
    return distributed.cat(torch.cat(parts))


@torch.no_grad()
def rate(agent: Agent, data: Batches) -> list[float]:
    """The score of every example's first answer, in the order of `data`."""
    agent.eval()
    found = [0.0] * len(data)
    for batch in data.once():
        for row, score in zip(batch.rows, scores(agent, batch)[:, 0].tolist(), strict=True):
            found[row] = score
    agent.train()
    return found


def train(cfg: Config, scorer: Scorer, data: Batches, held_out: Batches | None, run: Run) -> Agent:
    """Train for `run.cfg.steps` updates, evaluating on `held_out` where there is one."""
    agent = Agent(distribute(scorer.to(run.device).train(), run.cfg.distributed), cfg)
    features = Features(agent, data, cfg, fit=True)
    held_features: Any = held_out and Features(agent, held_out, cfg, fit=False)
    step_fn = run.accelerate(update)
    for step in run.steps(agent, data=data):
        optim.schedule(agent.optimizer, cfg.optim, step, run.cfg.steps)
        batch = data.next()
        run.log(step, step_fn(agent, batch, features(batch), cfg))
        if held_out and run.should_eval(step):
            run.log(step, evaluate(agent, held_out, cfg, held_features), group="eval")
    return agent
