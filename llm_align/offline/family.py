"""The DPO family as points on independent axes: score, loss, sum or mean over tokens, reference, SFT term.

`LOSSES` declares each loss once: what it judges (pairs, rankings of K answers with the best first, or single
rated answers), its function, and the axes that it reads; a setting that the loss would ignore is refused.
`MEMBERS` lists the points that have a name and a paper; any other is as valid. The definitions are
`rl_core.preferences`', and equal TRL's where it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_align.models import optim
from rl_core import preferences as losses
from rl_core.config import choice, require, require_default, require_read


@dataclass(kw_only=True, slots=True)
class Config:
    """A point on the axes; the defaults are DPO with the paper's beta."""

    name: str = "dpo"  # of the member, for the run directory
    score: str = "reverse_kl"  # reverse_kl | forward_kl | js | alpha
    loss: str = "sigmoid"  # one of LOSSES
    per_token: bool = False  # scores are means over tokens: no preference for long or short answers
    reference: bool = True  # scores are log ratios; false: log-probabilities of the policy alone
    beta: float = 0.1
    alpha: float = 0.5  # of score=alpha; without a reference 1 minus AlphaPO's
    label_smoothing: float = 0.0  # share of flipped labels
    offset: float = 0.0  # gap demanded of every pair (SimPO's gamma)
    margin_coef: float = 0.0  # times the column `margin`, added to the offset (ODPO)
    on_policy: bool = False  # losses times the likelihood per token of the answers (WPO)
    surplus: float = 1.0  # weight of an answer's tokens beyond the length of its shortest rival (LD-DPO)
    sync: float = 0.0  # share of the policy that the reference takes over every `sync_every` (TR-DPO)
    sync_every: int = 512  # updates
    sft: float = 0.0  # weight of the chosen's negative log-likelihood, a mean over tokens
    desirable_weight: float = 1.0  # of the rated losses
    undesirable_weight: float = 1.0
    accumulate: int = 1  # batches to an update
    cache: str = "~/.cache/embodied-align/reference"  # of reference log-probabilities; empty: none on disk
    optim: optim.Config = field(default_factory=lambda: optim.Config(lr=1e-6, warmup=10))

    def __post_init__(self) -> None:
        """Check ranges, and that every setting is read: by the loss, or by another axis."""
        choice("algo.score", self.score, SCORES)
        choice("algo.loss", self.loss, LOSSES)
        reads = {name: loss.reads for name, loss in LOSSES.items()}
        require_read(self, "loss", reads, LOSSES[self.loss].needs)
        if self.score != "alpha":
            require_default(self, ["alpha"], "algo.score=alpha")
        if not self.sync:
            require_default(self, ["sync_every"], "algo.sync above 0")
        for name in ("surplus", "sync"):
            require(0 <= getattr(self, name) <= 1, f"algo.{name}", getattr(self, name), "in [0, 1]")
        moves = not self.sync or (self.reference and self.surplus == 1)
        require(moves, "algo.sync", self.sync, "0 without a reference, and with algo.surplus")
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            require(getattr(self, name) > 0, f"algo.{name}", getattr(self, name), "> 0")
        for name in ("accumulate", "sync_every"):
            require(getattr(self, name) >= 1, f"algo.{name}", getattr(self, name), "at least 1")
        require(self.sft >= 0, "algo.sft", self.sft, "at least 0")
        require(self.alpha != 1, "algo.alpha", self.alpha, "not 1, where it is score=reverse_kl")
        require(0 <= self.label_smoothing < 0.5, "algo.label_smoothing", self.label_smoothing, "in [0, 0.5)")
        smoothing = self.loss != "exo" or self.label_smoothing > 0
        require(smoothing, "algo.label_smoothing", self.label_smoothing, "> 0 for algo.loss=exo")
        divergence = self.reference or self.score in ("reverse_kl", "alpha")
        only = "reverse_kl, or alpha (AlphaPO), without a reference: there is no divergence"
        require(divergence, "algo.score", self.score, only)


SCORES: dict[str, Callable[[Tensor, Config], Tensor]] = {
    "reverse_kl": lambda ratio, cfg: ratio,
    "forward_kl": lambda ratio, cfg: losses.forward_kl_score(ratio),
    "js": lambda ratio, cfg: losses.js_score(ratio),
    "alpha": lambda ratio, cfg: losses.alpha_score(ratio, alpha=cfg.alpha),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What a loss may read beside the scores of P examples with K answers."""

    mask: Tensor  # [P, K] bool: the answers that exist
    margin: Tensor  # [P], from the column
    desirable: Tensor  # [P] bool, of rated answers
    shared: Tensor  # of the whole update, see `dpo.SHARED`; without meaning where the loss has no such number


Function = Callable[[Tensor, Given, Config], Tensor]  # scores [P, K] -> [P]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """A loss and the axes that it reads: of any other, a configuration has `needs` or else the default."""

    function: Function
    takes: str = "pair"  # pair | ranking | rating
    reads: frozenset[str]
    needs: Mapping[str, object] = field(default_factory=dict)


def _pair(loss: Callable[..., Tensor]) -> Function:
    return lambda score, given, cfg: loss(score[:, 0], score[:, 1], beta=cfg.beta)


def _smoothing(loss: Callable[..., Tensor]) -> Function:
    return lambda score, given, cfg: loss(
        score[:, 0], score[:, 1], beta=cfg.beta, label_smoothing=cfg.label_smoothing
    )


def sigmoid(score: Tensor, given: Given, cfg: Config) -> Tensor:
    """DPO with a demanded gap: SimPO's for all pairs, ODPO's for each."""
    offset = cfg.offset + cfg.margin_coef * given.margin
    return losses.sigmoid_loss(score[:, 0], score[:, 1], beta=cfg.beta, offset=offset)


def aot(score: Tensor, given: Given, cfg: Config) -> Tensor:
    """Each side against its rival of the same rank in the whole update, `given.shared [P, 2]`."""
    options = {"beta": cfg.beta, "label_smoothing": cfg.label_smoothing}
    return losses.aot_loss(score[:, 0], score[:, 1], rivals=given.shared, **options)


def odds_ratio(score: Tensor, given: Given, cfg: Config) -> Tensor:
    """ORPO's term beside the likelihood; `beta` is its lambda."""
    return cfg.beta * losses.odds_ratio_loss(score[:, 0], score[:, 1])


def kto(score: Tensor, given: Given, cfg: Config) -> Tensor:
    """Gains over a reference point, `given.shared`: of all answers of the update, or 0 for APO-zero."""
    return losses.kto_loss(
        score[:, 0],
        given.desirable,
        beta=cfg.beta,
        reference_point=given.shared,
        desirable_weight=cfg.desirable_weight,
        undesirable_weight=cfg.undesirable_weight,
    )


def bco(score: Tensor, given: Given, cfg: Config) -> Tensor:
    """A classifier of rewards over their running mean, `given.shared`."""
    weight = torch.where(given.desirable, cfg.desirable_weight, cfg.undesirable_weight)
    return weight * losses.bco_loss(score[:, 0], given.desirable, beta=cfg.beta, shift=given.shared)


def plackett_luce(score: Tensor, given: Given, cfg: Config) -> Tensor:
    """DPO on whole rankings (arXiv:2305.18290, app. A.3); with two answers it is `sigmoid`."""
    rank = torch.arange(score.shape[1], device=score.device).expand_as(score)
    return losses.plackett_luce_loss(cfg.beta * score, rank, given.mask)


def info_nce(score: Tensor, given: Given, cfg: Config) -> Tensor:
    """Contrast the best answer with all others, `-log softmax(beta score)[0]`; with two it is `sigmoid`."""
    return -(cfg.beta * score).masked_fill(~given.mask, -torch.inf).log_softmax(1)[:, 0]


def pairwise_ranking(score: Tensor, given: Given, cfg: Config) -> Tensor:
    """Mean hinge over all ordered pairs of a ranking (RRHF, arXiv:2304.05302, with a margin of 1 / beta)."""
    gap = cfg.beta * (score[:, :, None] - score[:, None, :])
    ordered = (given.mask[:, :, None] & given.mask[:, None, :]).triu(1)
    return torch.where(ordered, F.relu(1.0 - gap), 0.0).sum((1, 2)) / ordered.sum((1, 2)).clamp_min(1)


# of one side each, where a divergence, which defines differences of scores alone, says nothing
ONE_SIDED = frozenset({"per_token", "reference", "on_policy", "surplus", "sync", "sft"})
TWO_SIDED = ONE_SIDED | {"score"}
SMOOTHED = TWO_SIDED | {"label_smoothing"}
WEIGHTS = frozenset({"desirable_weight", "undesirable_weight"})

LOSSES: dict[str, Loss] = {
    "sigmoid": Loss(function=sigmoid, reads=TWO_SIDED | {"offset", "margin_coef"}),
    "smoothed": Loss(function=_smoothing(losses.smoothed_loss), reads=SMOOTHED),
    "robust": Loss(function=_smoothing(losses.robust_loss), reads=SMOOTHED),
    "exo": Loss(function=_smoothing(losses.exo_loss), reads=SMOOTHED),
    "hinge": Loss(function=_pair(losses.hinge_loss), reads=TWO_SIDED),
    "ipo": Loss(function=_pair(losses.ipo_loss), reads=TWO_SIDED),
    "nca": Loss(function=_pair(losses.nca_loss), reads=ONE_SIDED),
    "bco_pair": Loss(function=_pair(losses.bco_pair_loss), reads=ONE_SIDED),
    "sppo": Loss(function=_pair(losses.sppo_loss), reads=ONE_SIDED),
    "apo_zero": Loss(function=_pair(losses.apo_zero_loss), reads=ONE_SIDED),
    "apo_down": Loss(function=_pair(losses.apo_down_loss), reads=ONE_SIDED),
    # sorted: a pair has no loss of its own that a weight could multiply, and paired gaps are sums
    "aot": Loss(function=aot, reads=frozenset({"label_smoothing", "surplus", "sync", "sft"})),
    "aot_unpaired": Loss(function=aot, reads=SMOOTHED - {"on_policy"}),
    # no member below: it must not start at its own reference
    "discopop": Loss(function=_pair(losses.discopop_loss), reads=TWO_SIDED),
    # odds are of probabilities: means of log-probabilities, of the policy alone
    "odds_ratio": Loss(
        function=odds_ratio,
        reads=frozenset({"on_policy", "surplus", "sft"}),
        needs={"per_token": True, "reference": False},
    ),
    "plackett_luce": Loss(function=plackett_luce, takes="ranking", reads=TWO_SIDED),
    "info_nce": Loss(function=info_nce, takes="ranking", reads=TWO_SIDED),
    "ranking": Loss(function=pairwise_ranking, takes="ranking", reads=TWO_SIDED),
    "kto": Loss(function=kto, takes="rating", reads=WEIGHTS),  # its mismatched answers have a fixed reference
    "bco": Loss(function=bco, takes="rating", reads=WEIGHTS | {"sync"}),
    "apo_zero_unpaired": Loss(function=kto, takes="rating", reads=WEIGHTS | {"sync"}),
}

MEMBERS: dict[str, Config] = {
    "dpo": Config(),
    "dpo_norm": Config(name="dpo_norm", per_token=True, beta=5.0),
    "ld_dpo": Config(name="ld_dpo", surplus=0.5),
    "tr_dpo": Config(name="tr_dpo", sync=0.6),
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
    "aot": Config(name="aot", loss="aot"),
    "aot_unpaired": Config(name="aot_unpaired", loss="aot_unpaired"),
    "wpo": Config(name="wpo", on_policy=True),
    "cpo": Config(name="cpo", loss="smoothed", reference=False, sft=1.0),
    "simpo": Config(name="simpo", per_token=True, reference=False, beta=2.0, offset=1.0),
    "alpha_po": Config(
        name="alpha_po", score="alpha", alpha=0.75, per_token=True, reference=False, beta=2.0, offset=1.0
    ),
    "orpo": Config(name="orpo", loss="odds_ratio", per_token=True, reference=False, sft=1.0),
    "kto": Config(name="kto", loss="kto"),
    "bco": Config(name="bco", loss="bco"),
    "apo_zero_unpaired": Config(name="apo_zero_unpaired", loss="apo_zero_unpaired"),
    "plackett_luce": Config(name="plackett_luce", loss="plackett_luce"),
    "info_nce": Config(name="info_nce", loss="info_nce"),
    "ranking": Config(name="ranking", loss="ranking", per_token=True, reference=False, beta=1.0, sft=1.0),
}
