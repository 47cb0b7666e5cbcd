"""The DPO family as points on independent axes: score, loss, sum or mean over tokens, reference, SFT term.

`MEMBERS` lists the points that have a name and a paper; any other is as valid. Losses take pairs, rankings of
K answers (best first), or single rated answers (KTO, BCO); the definitions are `rl_core.preferences`', and
equal TRL's where it has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_align.models import optim
from rl_core import preferences as losses
from rl_core.config import choice, require


@dataclass(kw_only=True, slots=True)
class Config:
    """A point on the axes; the defaults are DPO with the paper's beta."""

    name: str = "dpo"  # of the member, for the run directory
    score: str = "reverse_kl"  # reverse_kl | forward_kl | js | alpha
    loss: str = "sigmoid"  # one of PAIRED, RANKED or RATED
    per_token: bool = False  # scores are means over tokens: no preference for long or short answers
    reference: bool = True  # scores are log ratios; false: log-probabilities of the policy alone
    beta: float = 0.1
    alpha: float = 0.5  # of score=alpha; without a reference 1 minus AlphaPO's
    label_smoothing: float = 0.0  # share of flipped labels: smoothed, robust, exo
    offset: float = 0.0  # gap demanded of every pair by `sigmoid` (SimPO's gamma)
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
        """Check ranges, and that the axes go together."""
        choice("algo.score", self.score, SCORES)
        choice("algo.loss", self.loss, [*PAIRED, *RANKED, *RATED])
        compared = not self.on_policy or not (self.loss in SORTED or self.loss in RATED)
        require(compared, "algo.on_policy", True, f"false with algo.loss={self.loss}")
        self._check_one_sided()
        for name in ("surplus", "sync"):
            require(0 <= getattr(self, name) <= 1, f"algo.{name}", getattr(self, name), "in [0, 1]")
        moves = not self.sync or (self.reference and self.loss != "kto" and self.surplus == 1)
        require(moves, "algo.sync", self.sync, "0 without a reference, for KTO, and with algo.surplus")
        gaps = self.loss != "aot" or (self.reference and not self.per_token and self.score == "reverse_kl")
        require(gaps, "algo.loss", self.loss, "used with a reference, sums over tokens and score=reverse_kl")
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
        odds = self.loss != "odds_ratio" or (self.per_token and not self.reference)
        require(odds, "algo.loss", self.loss, "used with algo.per_token=true algo.reference=false (ORPO)")

    def _check_one_sided(self) -> None:
        """Refuse divergences in losses of one side, and for a single answer what needs two."""
        alone = self.loss in ONE_SIDED and self.score != "reverse_kl"
        only = f"reverse_kl with algo.loss={self.loss}: a divergence defines differences of scores alone"
        require(not alone, "algo.score", self.score, only)
        if self.loss not in RATED:
            return
        whole = self.reference and not self.per_token
        require(whole, "algo.loss", self.loss, "used with a reference and sums over tokens")
        for name, value in (("sft", 0.0), ("surplus", 1.0), ("margin_coef", 0.0)):
            unused = getattr(self, name) == value
            require(unused, f"algo.{name}", getattr(self, name), f"{value} with algo.loss={self.loss}")


Pair = Callable[[Tensor, Tensor, Config, Tensor], Tensor]  # chosen, rejected [P], margin [P] -> [P]
Ranking = Callable[[Tensor, Tensor, Config], Tensor]  # scores and mask [P, K], best first -> [P]

SCORES: dict[str, Callable[[Tensor, Config], Tensor]] = {
    "reverse_kl": lambda ratio, cfg: ratio,
    "forward_kl": lambda ratio, cfg: losses.forward_kl_score(ratio),
    "js": lambda ratio, cfg: losses.js_score(ratio),
    "alpha": lambda ratio, cfg: losses.alpha_score(ratio, alpha=cfg.alpha),
}


def _plain(loss: Callable[..., Tensor]) -> Pair:
    return lambda chosen, rejected, cfg, _: loss(chosen, rejected, beta=cfg.beta)


def _smoothing(loss: Callable[..., Tensor]) -> Pair:
    return lambda chosen, rejected, cfg, _: loss(
        chosen, rejected, beta=cfg.beta, label_smoothing=cfg.label_smoothing
    )


def _sigmoid(chosen: Tensor, rejected: Tensor, cfg: Config, margin: Tensor) -> Tensor:
    offset = cfg.offset + cfg.margin_coef * margin
    return losses.sigmoid_loss(chosen, rejected, beta=cfg.beta, offset=offset)


PAIRED: dict[str, Pair] = {
    "sigmoid": _sigmoid,
    "smoothed": _smoothing(losses.smoothed_loss),
    "robust": _smoothing(losses.robust_loss),
    "exo": _smoothing(losses.exo_loss),
    "hinge": _plain(losses.hinge_loss),
    "ipo": _plain(losses.ipo_loss),
    "nca": _plain(losses.nca_loss),
    "bco_pair": _plain(losses.bco_pair_loss),
    "sppo": _plain(losses.sppo_loss),
    "apo_zero": _plain(losses.apo_zero_loss),
    "apo_down": _plain(losses.apo_down_loss),
    "aot": _smoothing(losses.aot_loss),  # of the policy's gaps and the reference's
    "aot_unpaired": _smoothing(losses.aot_loss),
    "discopop": _plain(losses.discopop_loss),  # no member below: it must not start at its own reference
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
ONE_SIDED = ("nca", "bco_pair", "sppo", "apo_zero", "apo_down", *RATED)  # not of a difference of scores
SORTED = ("aot", "aot_unpaired")  # over the batch: a pair has no loss of its own

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
