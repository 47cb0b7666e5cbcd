"""Divergence between policies: sample estimators, exact values, controllers of a penalty's coefficient."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


def k1(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """Log ratio, elementwise: unbiased for KL(policy || ref) on the policy's samples, of either sign.

    Put it into the reward; as a loss its gradient is zero in expectation. Names after J. Schulman,
    http://joschu.net/blog/kl-approx.html. All three estimators are 0 where both log-probabilities agree.
    """
    return log_prob - ref_log_prob


def k2(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """Half the squared log ratio, elementwise: biased, low variance; as a loss it has the KL's gradient."""
    return 0.5 * (log_prob - ref_log_prob).square()


def k3(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """`exp(-k1) - 1 + k1`, elementwise: unbiased and never negative; the usual KL term of a GRPO loss."""
    log_ratio = ref_log_prob - log_prob
    return torch.expm1(log_ratio) - log_ratio


def categorical_kl(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """KL(p || q) of normalised log-probabilities, `[..., V] -> [...]`; where p is 0 it adds 0."""
    probs = log_probs.exp()
    return torch.where(probs > 0, probs * (log_probs - ref_log_probs), 0.0).sum(-1)


def gaussian_kl(mean: Tensor, log_std: Tensor, ref_mean: Tensor, ref_log_std: Tensor) -> Tensor:
    """KL(p || q) of diagonal Gaussians, all broadcastable to `[..., A]`, summed to `[...]`."""
    variance_ratio = (2.0 * (log_std - ref_log_std)).exp()
    distance = ((mean - ref_mean) * (-ref_log_std).exp()).square()
    return (0.5 * (variance_ratio + distance - 1.0) + ref_log_std - log_std).sum(-1)


class KLController(Protocol):
    """Holds the coefficient `coef` of a KL penalty; told the KL once per update."""

    coef: float

    def update(self, kl: float, num_samples: int) -> None:
        """Take in the mean KL of `num_samples` samples (steps or responses)."""


class FixedKL:
    """A coefficient that never moves."""

    def __init__(self, coef: float) -> None:
        if coef < 0:
            raise ValueError(f"coef={coef}: must be >= 0")
        self.coef = coef

    def update(self, kl: float, num_samples: int) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, float]:
        """The coefficient."""
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self.coef = state["coef"]


class AdaptiveKL:
    """Proportional controller that steers the KL towards `target` (Ziegler et al. 2019, arXiv:1909.08593).

    One update multiplies the coefficient by `1 + clip(kl / target - 1, -0.2, 0.2) * num_samples / horizon`:
    `horizon` is the number of samples within which it may move by about 20 %.
    """

    def __init__(self, coef: float, *, target: float, horizon: int = 10_000) -> None:
        for name, number in (("coef", coef), ("target", target), ("horizon", horizon)):
            if number <= 0:
                raise ValueError(f"{name}={number}: must be > 0")
        self.coef = coef
        self.target = target
        self.horizon = horizon

    def update(self, kl: float, num_samples: int) -> None:
        """Raise the coefficient where `kl` (nats) exceeds the target, lower it where it falls short."""
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        # the cap is a departure: an update of five horizons would otherwise make the coefficient 0 or
        # negative
        self.coef *= 1.0 + error * min(num_samples / self.horizon, 1.0)

    def state_dict(self) -> dict[str, float]:
        """The coefficient, the only number that moves."""
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self.coef = state["coef"]
