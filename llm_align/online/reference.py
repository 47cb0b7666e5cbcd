"""The policy that a run must not drift too far from, and the price of drifting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from llm_align.data.batches import Responses
from llm_align.models.adapters import reference
from llm_align.models.causal_lm import reference_copy
from llm_align.models.log_probs import log_probs
from llm_align.models.parallel import by_rows, distribute
from llm_align.online.rollout import Samples
from rl_core.config import choice, require
from rl_core.kl import AdaptiveKL, FixedKL, k1, k2, k3
from rl_core.reductions import masked_sum

ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


@dataclass(kw_only=True, slots=True)
class KL:
    """A penalty on the KL divergence from the reference, in the reward or in the loss."""

    coef: float = 0.0  # beta; 0: no reference is kept
    estimator: str = "k3"
    place: str = "loss"  # loss | reward
    target: float = 0.0  # nats per response; above 0 the coefficient adapts to it
    horizon: int = 10_000  # responses within which it may change by about 20 %

    def __post_init__(self) -> None:
        """Reject what cannot work: k1 in the loss has a gradient of mean zero."""
        require(self.coef >= 0, "algo.kl.coef", self.coef, ">= 0")
        require(self.target >= 0, "algo.kl.target", self.target, ">= 0 (0: fixed coefficient)")
        require(self.horizon > 0, "algo.kl.horizon", self.horizon, "> 0")
        require(self.target == 0 or self.coef > 0, "algo.kl.coef", self.coef, "> 0, where kl.target starts")
        choice("algo.kl.place", self.place, ["loss", "reward"])
        choice("algo.kl.estimator", self.estimator, ESTIMATORS)
        useless = self.place == "loss" and self.estimator == "k1" and self.coef > 0
        require(not useless, "algo.kl.estimator", "k1", "k2 or k3 in the loss (k1 has no gradient there)")

    @property
    def in_loss(self) -> bool:
        """Whether the loss has a KL term."""
        return self.coef > 0 and self.place == "loss"

    @property
    def in_reward(self) -> bool:
        """Whether the reward has a KL term."""
        return self.coef > 0 and self.place == "reward"

    def controller(self) -> FixedKL | AdaptiveKL:
        """What holds the coefficient during the run; stateful."""
        if self.target > 0:
            return AdaptiveKL(self.coef, target=self.target, horizon=self.horizon)
        return FixedKL(self.coef)

    def per_token(self, log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
        """The estimate at each token, `[B, L]`."""
        return ESTIMATORS[self.estimator](log_prob, ref_log_prob)


class Reference:
    """Log-probabilities under the initial policy: its adapters off, or a frozen copy made now.

    Make it before a checkpoint is restored. It is no part of the checkpoint: a resumed run loads the same
    initial model. `how` several processes hold the copy is `parallel.distribute`'s.
    """

    def __init__(self, policy: Any, how: str = "ddp") -> None:
        self._policy = policy
        self._copy = None if isinstance(policy, PeftModel) else distribute(reference_copy(policy), how)

    @torch.no_grad()
    def log_prob(self, responses: Responses, *, temperature: float = 1.0) -> Tensor:
        """`[B, L]` at the temperature that the responses were sampled at."""
        bare = reference(self._policy) if self._copy is None else nullcontext(self._copy)
        with bare as model:
            return by_rows(lambda part: log_probs(model, part, temperature=temperature).log_prob, responses)


def mean_kl(samples: Samples, ref_log_prob: Tensor) -> Tensor:
    """KL of the sampler from the reference in nats per response, from its own samples; a scalar."""
    return masked_sum(k1(samples.log_prob, ref_log_prob), samples.responses.loss_mask, dim=-1).mean()


def minibatches(prompt_index: Tensor, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Split rows `[B]` into `count` parts in random order, answers to one prompt next to each other."""
    num_prompts = int(prompt_index.max()) + 1
    place = torch.randperm(num_prompts, generator=generator, device=generator.device)
    rows = place.to(prompt_index.device)[prompt_index].argsort(stable=True)
    yield from (part for part in rows.tensor_split(count) if len(part))
