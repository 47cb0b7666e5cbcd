"""Every field of the configuration against every loss: what is set is read, or refused by name."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest
import torch

from llm_align.data.loader import make_batch
from llm_align.models import optim
from llm_align.offline import dpo, family
from tests.llm_align.offline import small

CHANGES = {
    "score": {"score": "alpha"},
    "per_token": {"per_token": True},
    "reference": {"reference": False},
    "beta": {"beta": 0.3},
    "alpha": {"alpha": 0.25},
    "label_smoothing": {"label_smoothing": 0.2},
    "offset": {"offset": 0.7},
    "margin_coef": {"margin_coef": 0.7},
    "on_policy": {"on_policy": True},
    "surplus": {"surplus": 0.5},
    "sft": {"sft": 0.5},
    "desirable_weight": {"desirable_weight": 2.0},
    "undesirable_weight": {"undesirable_weight": 2.0},
}
LOOP = {  # of `train`, which no single update shows
    "sync": {"sync": 0.5, "sync_every": 1},
    "sync_every": {"sync_every": 2},
    "accumulate": {"accumulate": 2},
    "optim": {"optim": optim.Config(lr=1e-2)},
}
NEITHER = {"name", "cache", "loss"}  # where things are kept, and the choice of the loss itself
NEEDED = {"exo": {"label_smoothing": 0.1}, "odds_ratio": {"per_token": True, "reference": False}}
POINTS = {loss: {"loss": loss} | NEEDED.get(loss, {}) for loss in family.LOSSES}
POINTS |= {"alpha": {"score": "alpha"}}
AXES = frozenset().union(*(loss.reads for loss in family.LOSSES.values()))  # what not every loss reads


def point(name, **changes):
    return dpo.Config(cache="", optim=optim.Config(lr=3e-3), **POINTS[name] | changes)


def items_for(cfg):
    takes = family.LOSSES[cfg.loss].takes
    return small.ratings(8) if takes == "rating" else small.preferences(8, 3 if takes == "ranking" else 2)


def objective(cfg):
    """What one update minimises, for a reference that is not the policy."""
    batch = make_batch(items_for(cfg), range(8))
    other = torch.linspace(-9, -1, batch.mask.numel()).view(batch.mask.shape)
    item = dpo.Scored(
        batch=batch, reference=other, mismatched=batch.responses, mismatched_reference=other.sum(1)
    )
    return dpo.update(dpo.Agent(small.small_policy(), cfg), [item], cfg)["loss"].item()


def test_the_changes_are_of_every_field():
    assert CHANGES.keys() | LOOP.keys() | NEITHER == {item.name for item in fields(dpo.Config)}
    assert AXES - {"sync"} < CHANGES.keys()


@pytest.mark.parametrize("name", POINTS)
def test_what_is_set_is_read_or_refused(name):
    cfg = point(name)
    before = objective(cfg)
    unread = AXES - family.LOSSES[cfg.loss].reads
    for axis, change in CHANGES.items():
        same = all(getattr(cfg, field) == value for field, value in change.items())  # the loss needs it so
        if (axis in unread or (axis == "alpha" and cfg.score != "alpha")) and not same:
            with pytest.raises(ValueError, match=re.escape(f"algo.{axis}={change[axis]!r}: must be ")):
                replace(cfg, **change)
        else:
            assert (objective(replace(cfg, **change)) == before) == same, f"{axis} is ignored"


@pytest.mark.parametrize("axis", LOOP)
def test_what_the_loop_reads(tmp_path, axis):
    cfg = point("sigmoid", **{"sync": 0.5, "sync_every": 1} if axis == "sync_every" else {})

    def learnt(cfg, folder):
        with small.make_run(tmp_path / folder, steps=3) as run:
            data = small.batches(small.preferences())
            return small.weights(dpo.train(cfg, small.small_policy(), data, None, run).policy)

    assert not torch.equal(learnt(cfg, "base"), learnt(replace(cfg, **LOOP[axis]), "changed"))


@pytest.mark.parametrize("axis", sorted(AXES))
def test_a_refusal_names_the_losses_that_read_the_field(axis):
    readers = [loss for loss in family.LOSSES if axis in family.LOSSES[loss].reads]
    stranger = next(loss for loss in ("sigmoid", "aot", "kto") if loss not in readers)
    with pytest.raises(ValueError, match=rf"algo\.{axis}=.*read by {', '.join(readers)}$"):
        point(stranger, **(CHANGES | LOOP)[axis])
