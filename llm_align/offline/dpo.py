"""The DPO family: learning from preferences without a reward model (Rafailov et al. 2023, arXiv:2305.18290).

    r(y) = s(log pi(y | x) - log pi_ref(y | x))     score of a response: a sum over its tokens, or their mean
    L    = E[ loss(r(chosen), r(rejected)) ] - sft * (mean token log-likelihood of the chosen)

A member of the family is a point on independent axes (`family`): score (the divergence's f'), loss, sum or
mean over tokens, with or without a reference, likelihood term. `algo=ipo algo.reference=false` is as valid
as any.

The reference is asked once per dataset and not at all the next time (`offline.reference`), but for TR-DPO's,
which moves; the prompt of a pair is computed once, for both answers, by packing.

Departures: KTO's mismatched answers are those of the next example of the dataset, fixed, so that their
reference log-probabilities are cached too (TRL rotates within batches, fixed as well); BCO without its
density-ratio weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llm_align.data import examples as kinds
from llm_align.data.examples import Example
from llm_align.data.loader import Batch, Batches
from llm_align.data.readers import Row, require_columns
from llm_align.models import optim
from llm_align.models.log_probs import log_probs
from llm_align.models.parallel import distribute
from llm_align.offline.family import LOSSES, MEMBERS, SCORES, Config, Given
from llm_align.offline.reference import MovingReference, References, Scored, shared_tokens
from rl_core import distributed
from rl_core import preferences as losses
from rl_core.config import require
from rl_core.normalizers import RunningMeanStd
from rl_core.run import Run

__all__ = ["MEMBERS", "Agent", "Config", "evaluate", "to_examples", "train", "update"]


def to_examples(rows: Sequence[Row], cfg: Config) -> list[Example]:
    """Ratings, rankings or preferences among `rows`, as the loss needs them."""
    takes = LOSSES[cfg.loss].takes
    if takes == "rating":
        return kinds.ratings(rows)
    if takes == "ranking" and "completions" in rows[0]:
        return kinds.rankings(rows)
    if cfg.margin_coef:
        require_columns(rows, ("chosen", "rejected", "margin"))
    return kinds.preferences(rows)


class Agent(nn.Module):
    """The policy, its optimizer, the running mean of scores that BCO subtracts, TR-DPO's own reference."""

    def __init__(self, policy: Any, cfg: Config, moving: MovingReference | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.moving = moving
        self.shift = RunningMeanStd()
        self.optimizer = optim.adamw(policy, cfg.optim)


def update(agent: Agent, batches: Sequence[Scored], cfg: Config) -> dict[str, Tensor]:
    """One optimizer step on the mean over the examples of `batches`; returns losses and rewards before it."""
    device = batches[0].batch.mask.device
    num = distributed.total(torch.tensor(float(sum(len(item.batch.mask) for item in batches)), device=device))
    tokens = distributed.total(torch.stack([_chosen_mask(item.batch).sum() for item in batches]).sum())
    totals: dict[str, Tensor] = {}
    for item, shared in zip(batches, _shared_ahead(agent, batches, cfg), strict=True):
        loss, nll, stats = losses_of(agent, item, cfg, shared)
        objective = loss.sum() / num + cfg.sft * nll / tokens
        objective.backward()
        stats |= {
            "loss": objective.detach() * num / len(loss),
            "nll": nll.detach() / tokens * num / len(loss),
        }
        for name, value in stats.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value * len(loss) / num
    return distributed.combine(totals) | {"grad_norm": optim.apply_gradients(agent.optimizer, cfg.optim)}


def losses_of(
    agent: Agent, item: Scored, cfg: Config, shared: Tensor | None = None
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss of each example `[P]`, summed negative log-likelihood of the chosen, and means to log.

    `shared` is the batch's part of what its update shares (`SHARED`); None: the batch is all of the update.
    """
    batch = item.batch
    token_log_prob = log_probs(agent.policy, batch.responses).log_prob
    score, log_prob = _scores(token_log_prob, item, cfg)
    if shared is None:
        shared = SHARED[cfg.loss](agent, [item], [score.detach()], cfg)[0] if cfg.loss in SHARED else NOTHING
    labels = [bool(example.labels and example.labels[0]) for example in batch.examples]
    given = Given(
        mask=batch.mask,
        margin=torch.tensor([example.margin or 0.0 for example in batch.examples], device=score.device),
        desirable=torch.tensor(labels, device=score.device),
        shared=shared.to(score.device),
    )
    loss = LOSSES[cfg.loss].function(score, given, cfg)
    if LOSSES[cfg.loss].takes == "rating":
        stats = _classification(score, given, cfg)
    else:
        stats = _comparison(score, cfg)
    if cfg.on_policy:
        weight = losses.on_policy_weight(token_log_prob, batch.responses.loss_mask)
        loss = loss * batch.grid(weight).masked_fill(~batch.mask, 1.0).prod(1)
    stats["log_prob"] = log_prob.detach()[:, 0].mean()
    nll = -token_log_prob[batch.first_rows()].sum()
    return loss, nll, stats


def _scores(token_log_prob: Tensor, item: Scored, cfg: Config) -> tuple[Tensor, Tensor]:
    """Scores of answers, and their log-probabilities, both `[P, K]`."""
    batch = item.batch
    log_prob = batch.grid(token_log_prob.sum(1))
    if cfg.surplus != 1:
        within = batch.grid(torch.where(shared_tokens(batch), token_log_prob, 0.0).sum(1))
        log_prob = within.lerp(log_prob, cfg.surplus)
    if cfg.loss == "aot":  # the policy's gap and the reference's: their difference is that of the log ratios
        gaps = [x[:, 0] - x[:, 1] for x in (log_prob, item.reference)]
        return torch.stack(gaps, 1), log_prob
    ratio = log_prob - item.reference if cfg.reference else log_prob
    if cfg.per_token:
        ratio = ratio / batch.grid(batch.responses.loss_mask.sum(1)).clamp_min(1)
    return SCORES[cfg.score](ratio, cfg), log_prob


@torch.no_grad()
def _shared_ahead(agent: Agent, batches: Sequence[Scored], cfg: Config) -> Sequence[Tensor | None]:
    """What an update of several batches shares, before any of them is learnt; one batch shares with none.

    So that the update is that of one large batch. Costs a forward more, but for KTO.
    """
    if len(batches) == 1 or cfg.loss not in SHARED:
        return [None] * len(batches)
    scores = []
    if cfg.loss != "kto":
        for item in batches:
            scores.append(_scores(log_probs(agent.policy, item.batch.responses).log_prob, item, cfg)[0])
    return SHARED[cfg.loss](agent, batches, scores, cfg)


@torch.no_grad()
def _reference_point(
    agent: Agent, items: Sequence[Scored], scores: Sequence[Tensor], cfg: Config
) -> list[Tensor]:
    """KTO's, of the mismatched answers of the update."""
    ratios = []
    for item in items:
        assert item.mismatched is not None
        assert item.mismatched_reference is not None
        ratios.append(log_probs(agent.policy, item.mismatched).log_prob.sum(1) - item.mismatched_reference)
    return [losses.kto_reference_point(distributed.cat(torch.cat(ratios)))] * len(items)


def _running_mean(
    agent: Agent, items: Sequence[Scored], scores: Sequence[Tensor], cfg: Config
) -> list[Tensor]:
    """BCO's, of rewards up to this update's."""
    if agent.training:
        agent.shift.update(cfg.beta * distributed.cat(torch.cat(list(scores))[:, 0]))
    return [agent.shift.mean.float()] * len(items)


def _rivals(agent: Agent, items: Sequence[Scored], scores: Sequence[Tensor], cfg: Config) -> list[Tensor]:
    """AOT's: the rows of this process among those of the same rank in the update of all processes."""
    own = torch.cat(list(scores))
    parts = [part.to(own.device) for part in distributed.gather(own.cpu())]
    rivals = losses.same_rank(*torch.cat(parts).unbind(1))
    first = sum(len(part) for part in parts[: distributed.rank()])
    return list(rivals[first : first + len(own)].split([len(score) for score in scores]))


NOTHING = torch.zeros(())  # APO-zero's reference point
# what a loss takes from all examples of an update: of scores [P, 2] or [P, 1], one result for each batch
SHARED: dict[str, Callable[[Agent, Sequence[Scored], Sequence[Tensor], Config], list[Tensor]]] = {
    "kto": _reference_point,
    "bco": _running_mean,
    "aot": _rivals,
    "aot_unpaired": _rivals,
}


def _classification(score: Tensor, given: Given, cfg: Config) -> dict[str, Tensor]:
    """How often a rated answer is on its side of the baseline, and where that is."""
    baseline = given.shared if cfg.loss == "bco" else cfg.beta * given.shared
    right = (cfg.beta * score.detach()[:, 0] > baseline) == given.desirable
    return {"accuracy": right.float().mean(), "baseline": given.shared}


def _comparison(score: Tensor, cfg: Config) -> dict[str, Tensor]:
    """How often the best answer scores above the second, and by how much, `beta` included."""
    gap = cfg.beta * (score[:, 0] - score[:, 1]).detach()
    return {"accuracy": (gap > 0).float().mean(), "margin": gap.mean()}


def _chosen_mask(batch: Batch) -> Tensor:
    return batch.responses.loss_mask[batch.first_rows()]


@torch.no_grad()
def evaluate(
    agent: Agent, data: Batches, references: Callable[[Batch], Scored], cfg: Config
) -> dict[str, float]:
    """Loss, accuracy and margin over all of `data`, every example weighing the same.

    AOT sorts, and KTO estimates its reference point, within each batch: their losses depend on its size.
    """
    agent.eval()
    totals: dict[str, Tensor] = {}
    for batch in data.once():
        loss, _, stats = losses_of(agent, references(batch), cfg)
        for name, value in (stats | {"loss": loss.mean()}).items():
            part = value.double().cpu() * len(batch.rows) / len(data)
            totals[name] = totals.get(name, torch.zeros_like(part)) + part
    agent.train()
    return {name: value.item() for name, value in distributed.combine(totals).items()}


def _references(policy: Any, data: Batches, cfg: Config, run: Run, other: Any) -> References:
    model = (policy if other is None else other) if cfg.reference else None
    return References(
        model,
        data.encoded,
        mismatched=cfg.loss == "kto",
        surplus=cfg.surplus,
        folder=Path(cfg.cache).expanduser() if cfg.cache else None,
        precision=run.cfg.precision,
        device=run.device,
    )


def train(
    cfg: Config, policy: Any, data: Batches, held_out: Batches | None, run: Run, reference: Any = None
) -> Agent:
    """Align `policy` for `run.cfg.steps` updates against `reference`, or against itself as it comes in."""
    policy = policy.to(run.device).train()
    how = run.cfg.distributed
    require(how == "ddp" or not cfg.sync, "run.distributed", how, "ddp with algo.sync")
    distributed.same_weights(policy)  # it is the reference of every process
    moving = held_references = None
    if cfg.sync:
        moving = MovingReference(policy if reference is None else reference.to(run.device), run.cfg.precision)
    references = moving or _references(policy, data, cfg, run, reference)
    if held_out:
        held_references = moving or _references(policy, held_out, cfg, run, reference)
    agent = Agent(distribute(policy, how), cfg, moving)
    step_fn = run.accelerate(update)
    for step in run.steps(agent, data=data):
        optim.schedule(agent.optimizer, cfg.optim, step, run.cfg.steps)
        batches = [references(data.next()) for _ in range(cfg.accumulate)]
        run.log(step, step_fn(agent, batches, cfg))
        if moving and step % cfg.sync_every == 0:
            moving.follow(agent.policy, cfg.sync)
        if held_out and held_references and run.should_eval(step):
            run.log(step, evaluate(agent, held_out, held_references, cfg), group="eval")
    return agent
