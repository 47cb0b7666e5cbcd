"""The DPO family: learning from preferences without a reward model (Rafailov et al. 2023, arXiv:2305.18290).

    r(y) = s(log pi(y | x) - log pi_ref(y | x))     score of a response: a sum over its tokens, or their mean
    L    = E[ loss(r(chosen), r(rejected)) ] - sft * (mean token log-likelihood of the chosen)

A member of the family is a point on independent axes, which `MEMBERS` lists: score (the divergence's f'),
loss, sum or mean over tokens, with or without a reference, likelihood term. `algo=ipo algo.reference=false`
is as valid as any point in that table. Losses take pairs, rankings of K answers (best first), or single rated
answers (KTO, BCO); the definitions are `rl_core.preferences`', and equal TRL's where it has them.

The reference is asked once per dataset and not at all the next time (`offline.reference`); the prompt of a
pair is computed once, for both answers, by packing.

Departures: KTO's mismatched answers are those of the next example of the dataset, fixed, so that their
reference log-probabilities are cached too (TRL rotates within batches, fixed as well); BCO without its
density-ratio weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_align.data import examples as kinds
from llm_align.data.examples import Example
from llm_align.data.loader import Batch, Batches
from llm_align.data.readers import Row, require_columns
from llm_align.models import optim
from llm_align.models.log_probs import log_probs
from llm_align.offline.reference import References, Scored
from rl_core import preferences as losses
from rl_core.config import choice, require
from rl_core.normalizers import RunningMeanStd
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """A point on the axes; the defaults are DPO with the paper's beta."""

    name: str = "dpo"  # of the member, for the run directory
    score: str = "reverse_kl"  # reverse_kl | forward_kl | js | alpha
    loss: str = "sigmoid"  # one of PAIRED, RANKED or RATED
    per_token: bool = False  # scores are means over tokens: no preference for long or short answers
    reference: bool = True  # scores are log ratios; false: log-probabilities of the policy alone
    beta: float = 0.1
    alpha: float = 0.5  # of score=alpha
    label_smoothing: float = 0.0  # share of flipped labels: smoothed, robust, exo
    offset: float = 0.0  # gap demanded of every pair by `sigmoid` (SimPO's gamma)
    margin_coef: float = 0.0  # times the column `margin`, added to the offset (ODPO)
    sft: float = 0.0  # weight of the chosen's negative log-likelihood, a mean over tokens
    desirable_weight: float = 1.0  # of the rated losses
    undesirable_weight: float = 1.0
    accumulate: int = 1  # batches to an update
    cache: str = "~/.cache/embodied-align/reference"  # of reference log-probabilities; empty: none on disk
    optim: optim.Config = field(default_factory=lambda: optim.Config(lr=1e-6, warmup=10))

    def __post_init__(self) -> None:
        """Check ranges, and that the axes go together."""
        choice("algo.score", self.score, SCORES)
        choice("algo.loss", self.loss, [*PAIRED, *RANKED, *RATED])
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            require(getattr(self, name) > 0, f"algo.{name}", getattr(self, name), "> 0")
        require(self.accumulate >= 1, "algo.accumulate", self.accumulate, "at least 1")
        require(self.sft >= 0, "algo.sft", self.sft, "at least 0")
        require(self.alpha != 1, "algo.alpha", self.alpha, "not 1, where it is score=reverse_kl")
        require(0 <= self.label_smoothing < 0.5, "algo.label_smoothing", self.label_smoothing, "in [0, 0.5)")
        smoothing = self.loss != "exo" or self.label_smoothing > 0
        require(smoothing, "algo.label_smoothing", self.label_smoothing, "> 0 for algo.loss=exo")
        divergence = self.reference or self.score == "reverse_kl"
        require(
            divergence, "algo.score", self.score, "reverse_kl without a reference: there is no divergence"
        )
        odds = self.loss != "odds_ratio" or (self.per_token and not self.reference)
        require(odds, "algo.loss", self.loss, "used with algo.per_token=true algo.reference=false (ORPO)")
        rated = self.loss not in RATED or (self.reference and not self.per_token)
        require(rated, "algo.loss", self.loss, "used with a reference and sums over tokens")


Pair = Callable[[Tensor, Tensor, Config, Tensor], Tensor]  # chosen, rejected [P], margin [P] -> [P]
Ranking = Callable[[Tensor, Tensor, Config], Tensor]  # scores and mask [P, K], best first -> [P]

SCORES: dict[str, Callable[[Tensor, Config], Tensor]] = {
    "reverse_kl": lambda ratio, cfg: ratio,
    "forward_kl": lambda ratio, cfg: losses.forward_kl_score(ratio),
    "js": lambda ratio, cfg: losses.js_score(ratio),
    "alpha": lambda ratio, cfg: losses.alpha_score(ratio, alpha=cfg.alpha),
}

PAIRED: dict[str, Pair] = {
    "sigmoid": lambda w, r, cfg, margin: losses.sigmoid_loss(
        w, r, beta=cfg.beta, offset=cfg.offset + cfg.margin_coef * margin
    ),
    "smoothed": lambda w, r, cfg, _: losses.smoothed_loss(
        w, r, beta=cfg.beta, label_smoothing=cfg.label_smoothing
    ),
    "robust": lambda w, r, cfg, _: losses.robust_loss(
        w, r, beta=cfg.beta, label_smoothing=cfg.label_smoothing
    ),
    "exo": lambda w, r, cfg, _: losses.exo_loss(w, r, beta=cfg.beta, label_smoothing=cfg.label_smoothing),
    "hinge": lambda w, r, cfg, _: losses.hinge_loss(w, r, beta=cfg.beta),
    "ipo": lambda w, r, cfg, _: losses.ipo_loss(w, r, beta=cfg.beta),
    "nca": lambda w, r, cfg, _: losses.nca_loss(w, r, beta=cfg.beta),
    "bco_pair": lambda w, r, cfg, _: losses.bco_pair_loss(w, r, beta=cfg.beta),
    "sppo": lambda w, r, cfg, _: losses.sppo_loss(w, r, beta=cfg.beta),
    "apo_zero": lambda w, r, cfg, _: losses.apo_zero_loss(w, r, beta=cfg.beta),
    "apo_down": lambda w, r, cfg, _: losses.apo_down_loss(w, r, beta=cfg.beta),
    "odds_ratio": lambda w, r, cfg, _: cfg.beta * losses.odds_ratio_loss(w, r),  # beta is ORPO's lambda
}


def plackett_luce(score: Tensor, mask: Tensor, cfg: Config) -> Tensor:
    """DPO on whole rankings (arXiv:2305.18290, app. A.3); with two answers it is `sigmoid`."""
    rank = torch.arange(score.shape[1], device=score.device).expand_as(score)
    return losses.plackett_luce_loss(cfg.beta * score, rank, mask)


def info_nce(score: Tensor, mask: Tensor, cfg: Config) -> Tensor:
    """Contrast the best answer with all others, `-log softmax(beta score)[0]`; with two it is `sigmoid`."""
    return -(cfg.beta * score).masked_fill(~mask, -torch.inf).log_softmax(1)[:, 0]


def pairwise_ranking(score: Tensor, mask: Tensor, cfg: Config) -> Tensor:
    """Mean hinge over all ordered pairs of a ranking (RRHF, arXiv:2304.05302, with a margin of 1 / beta)."""
    gap = cfg.beta * (score[:, :, None] - score[:, None, :])
    ordered = (mask[:, :, None] & mask[:, None, :]).triu(1)
    return torch.where(ordered, F.relu(1.0 - gap), 0.0).sum((1, 2)) / ordered.sum((1, 2)).clamp_min(1)


RANKED: dict[str, Ranking] = {
    "plackett_luce": plackett_luce,
    "info_nce": info_nce,
    "ranking": pairwise_ranking,
}
RATED = ("kto", "bco", "apo_zero_unpaired")

MEMBERS: dict[str, Config] = {
    "dpo": Config(),
    "cdpo": Config(name="cdpo", loss="smoothed", label_smoothing=0.1),
    "robust": Config(name="robust", loss="robust", label_smoothing=0.1),
    "odpo": Config(name="odpo", margin_coef=1.0),
    "rpo": Config(name="rpo", sft=1.0),
    "f_dpo_forward": Config(name="f_dpo_forward", score="forward_kl"),
    "f_dpo_js": Config(name="f_dpo_js", score="js"),
    "f_dpo_alpha": Config(name="f_dpo_alpha", score="alpha"),
    "ipo": Config(name="ipo", loss="ipo", per_token=True),
    "slic": Config(name="slic", loss="hinge", per_token=True, reference=False, beta=1.0, sft=1.0),
    "rso": Config(name="rso", loss="hinge"),
    "exo": Config(name="exo", loss="exo", label_smoothing=1e-3),
    "nca": Config(name="nca", loss="nca"),
    "bco_pair": Config(name="bco_pair", loss="bco_pair"),
    "sppo": Config(name="sppo", loss="sppo", beta=1e-3),
    "apo_zero": Config(name="apo_zero", loss="apo_zero"),
    "apo_down": Config(name="apo_down", loss="apo_down"),
    "cpo": Config(name="cpo", loss="smoothed", reference=False, sft=1.0),
    "simpo": Config(name="simpo", per_token=True, reference=False, beta=2.0, offset=1.0),
    "orpo": Config(name="orpo", loss="odds_ratio", per_token=True, reference=False, sft=1.0),
    "kto": Config(name="kto", loss="kto"),
    "bco": Config(name="bco", loss="bco"),
    "apo_zero_unpaired": Config(name="apo_zero_unpaired", loss="apo_zero_unpaired"),
    "plackett_luce": Config(name="plackett_luce", loss="plackett_luce"),
    "info_nce": Config(name="info_nce", loss="info_nce"),
    "ranking": Config(name="ranking", loss="ranking", per_token=True, reference=False, beta=1.0, sft=1.0),
}


def to_examples(rows: Sequence[Row], cfg: Config) -> list[Example]:
    """Ratings, rankings or preferences among `rows`, as the loss needs them."""
    if cfg.loss in RATED:
        return kinds.ratings(rows)
    if cfg.loss in RANKED and "completions" in rows[0]:
        return kinds.rankings(rows)
    if cfg.margin_coef:
        require_columns(rows, ("chosen", "rejected", "margin"))
    return kinds.preferences(rows)


class Agent(nn.Module):
    """The policy, its optimizer, and the running mean of scores that BCO subtracts."""

    def __init__(self, policy: Any, cfg: Config) -> None:
        super().__init__()
        self.policy = policy
        self.shift = RunningMeanStd()
        self.optimizer = optim.adamw(policy, cfg.optim)


def update(agent: Agent, batches: Sequence[Scored], cfg: Config) -> dict[str, Tensor]:
    """One optimizer step on the mean over the examples of `batches`; returns losses and rewards before it."""
    num = sum(len(item.batch.mask) for item in batches)
    tokens = sum(_chosen_mask(item.batch).sum() for item in batches)
    totals: dict[str, Tensor] = {}
    for item in batches:
        loss, nll, stats = losses_of(agent, item, cfg)
        objective = loss.sum() / num + cfg.sft * nll / tokens
        objective.backward()
        stats |= {
            "loss": objective.detach() * num / len(loss),
            "nll": nll.detach() / tokens * num / len(loss),
        }
        for name, value in stats.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value * len(loss) / num
    return totals | {"grad_norm": optim.apply_gradients(agent.optimizer, cfg.optim)}


def losses_of(agent: Agent, item: Scored, cfg: Config) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss of each example `[P]`, summed negative log-likelihood of the chosen, and means to log."""
    batch = item.batch
    token_log_prob = log_probs(agent.policy, batch.responses).log_prob
    log_prob = batch.grid(token_log_prob.sum(1))
    ratio = log_prob - item.reference if cfg.reference else log_prob
    if cfg.per_token:
        ratio = ratio / batch.grid(batch.responses.loss_mask.sum(1)).clamp_min(1)
    score = SCORES[cfg.score](ratio, cfg)
    if cfg.loss in RATED:
        loss, stats = _rated(agent, item, score[:, 0], cfg)
    elif cfg.loss in RANKED:
        loss, stats = RANKED[cfg.loss](score, batch.mask, cfg), _comparison(score, cfg)
    else:
        margin = torch.tensor([example.margin or 0.0 for example in batch.examples], device=score.device)
        loss = PAIRED[cfg.loss](score[:, 0], score[:, 1], cfg, margin)
        stats = _comparison(score, cfg)
    stats["log_prob"] = log_prob.detach()[:, 0].mean()
    nll = -token_log_prob[batch.first_rows()].sum()
    return loss, nll, stats


def _rated(agent: Agent, item: Scored, score: Tensor, cfg: Config) -> tuple[Tensor, dict[str, Tensor]]:
    labels = [bool(example.labels and example.labels[0]) for example in item.batch.examples]
    desirable = torch.tensor(labels, device=score.device)
    weight = torch.where(desirable, cfg.desirable_weight, cfg.undesirable_weight)
    reward = cfg.beta * score.detach()
    if cfg.loss == "bco":
        if agent.training:
            agent.shift.update(reward)
        baseline = agent.shift.mean.float()
        loss = losses.bco_loss(score, desirable, beta=cfg.beta, shift=baseline)
    else:
        baseline = _reference_point(agent, item) if cfg.loss == "kto" else score.new_zeros(())
        loss = losses.kto_loss(score, desirable, beta=cfg.beta, reference_point=baseline)
    right = (reward > (baseline if cfg.loss == "bco" else cfg.beta * baseline)) == desirable
    return weight * loss, {"accuracy": right.float().mean(), "baseline": baseline}


@torch.no_grad()
def _reference_point(agent: Agent, item: Scored) -> Tensor:
    assert item.mismatched is not None
    assert item.mismatched_reference is not None
    log_prob = log_probs(agent.policy, item.mismatched).log_prob.sum(1)
    return losses.kto_reference_point(log_prob - item.mismatched_reference)


def _comparison(score: Tensor, cfg: Config) -> dict[str, Tensor]:
    """How often the best answer scores above the second, and by how much, `beta` included."""
    gap = cfg.beta * (score[:, 0] - score[:, 1]).detach()
    return {"accuracy": (gap > 0).float().mean(), "margin": gap.mean()}


def _chosen_mask(batch: Batch) -> Tensor:
    return batch.responses.loss_mask[batch.first_rows()]


@torch.no_grad()
def evaluate(agent: Agent, data: Batches, references: References, cfg: Config) -> dict[str, float]:
    """Loss, accuracy and margin over all of `data`, every example weighing the same."""
    agent.eval()
    totals: dict[str, float] = {}
    for batch in data.once():
        loss, _, stats = losses_of(agent, references(batch), cfg)
        for name, value in (stats | {"loss": loss.mean()}).items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(batch.rows) / len(data)
    agent.train()
    return totals


def _references(agent: Agent, data: Batches, cfg: Config, run: Run, other: Any) -> References:
    model = (agent.policy if other is None else other) if cfg.reference else None
    return References(
        model,
        data.encoded,
        mismatched=cfg.loss == "kto",
        folder=Path(cfg.cache).expanduser() if cfg.cache else None,
        precision=run.cfg.precision,
        device=run.device,
    )


def train(
    cfg: Config, policy: Any, data: Batches, held_out: Batches | None, run: Run, reference: Any = None
) -> Agent:
    """Align `policy` for `run.cfg.steps` updates against `reference`, or against itself as it comes in."""
    agent = Agent(policy.to(run.device).train(), cfg)
    references = _references(agent, data, cfg, run, reference)
    held_references = held_out and _references(agent, held_out, cfg, run, reference)
    step_fn = run.accelerate(update)
    for step in run.steps(agent, data=data):
        optim.schedule(agent.optimizer, cfg.optim, step, run.cfg.steps)
        batches = [references(data.next()) for _ in range(cfg.accumulate)]
        run.log(step, step_fn(agent, batches, cfg))
        if held_out and held_references and run.should_eval(step):
            run.log(step, evaluate(agent, held_out, held_references, cfg), group="eval")
    return agent
