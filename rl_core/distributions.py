"""Action distributions: diagonal Gaussian, tanh-squashed Gaussian, masked categorical, uniform bins.

No class draws random numbers: a sample is a function of noise that the caller drew, so that one seeded
generator owns all randomness and `torch.compile`, CUDA graphs and parity tests see identical numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
# Recorded actions may lie on the border of [-1, 1], where atanh is infinite; they are moved inwards this
# much.
ATANH_MARGIN = 1e-6


class DiagonalGaussian:
    """Normal distribution with independent components, `mean` and `log_std` broadcastable to `[..., A]`."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean = mean
        self.log_std = log_std

    @property
    def mode(self) -> Tensor:
        """Most likely action `[..., A]`: the mean."""
        return self.mean

    def rsample(self, noise: Tensor) -> Tensor:
        """Map standard normal `noise [..., A]` to actions `[..., A]`, differentiable in mean and log_std."""
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density `[...]` of `action [..., A]`, summed over the components."""
        z = (action - self.mean) * (-self.log_std).exp()
        return -(0.5 * z.square() + self.log_std + LOG_SQRT_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy `[...]` in nats, `sum(log_std) + A/2 * log(2 pi e)`."""
        log_std = self.log_std + torch.zeros_like(self.mean)  # one shared log_std still gives a row each
        return (log_std + 0.5 + LOG_SQRT_2PI).sum(-1)


class TanhGaussian:
    """`tanh` of a diagonal Gaussian, on (-1, 1) (Haarnoja et al. 2018, arXiv:1812.05905, appendix C).

    `mean` and `log_std` are `[..., A]` before squashing. There is no closed-form entropy: estimate it by
    `-log_prob` of samples.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.normal = DiagonalGaussian(mean, log_std)

    @property
    def mode(self) -> Tensor:
        """Deterministic action `[..., A]`: tanh of the mean (the median of each component)."""
        return self.normal.mean.tanh()

    def rsample(self, noise: Tensor) -> Tensor:
        """Map standard normal `noise [..., A]` to actions `[..., A]` in [-1, 1]."""
        return self.normal.rsample(noise).tanh()

    def rsample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions `[..., A]` and their log density `[...]`, exact also where tanh saturates."""
        latent = self.normal.rsample(noise)
        return latent.tanh(), self.normal.log_prob(latent) - tanh_log_det(latent)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density `[...]` of given actions `[..., A]` in [-1, 1]; see ATANH_MARGIN for the border."""
        latent = safe_atanh(action)
        return self.normal.log_prob(latent) - tanh_log_det(latent)


class MaskedCategorical:
    """Categorical distribution over `logits [..., K]`; where `mask [..., K]` is False the probability is 0.

    At least one entry of each row must be allowed.
    """

    def __init__(self, logits: Tensor, mask: Tensor | None = None) -> None:
        # The smallest finite number instead of -inf: p * log p stays 0 and no gradient turns to NaN.
        floor = torch.finfo(logits.dtype).min
        masked = logits if mask is None else torch.where(mask, logits, floor)
        self.log_probs = masked.log_softmax(-1)

    @property
    def mode(self) -> Tensor:
        """Most likely index `[...]`."""
        return self.log_probs.argmax(-1)

    def sample(self, uniform: Tensor) -> Tensor:
        """Map uniform noise `[..., K]` in [0, 1) to indices `[...]` (Gumbel-max trick)."""
        tiny = torch.finfo(uniform.dtype).tiny
        return (self.log_probs - (-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()).argmax(-1)

    def log_prob(self, index: Tensor) -> Tensor:
        """Log probability `[...]` of `index [...]` (int64)."""
        return self.log_probs.gather(-1, index.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Entropy `[...]` in nats; masked entries contribute 0."""
        probs = self.log_probs.exp()
        return -torch.where(probs > 0, probs * self.log_probs, 0.0).sum(-1)


def tanh_log_det(latent: Tensor) -> Tensor:
    """Sum over the last axis of `log(1 - tanh(x)^2)`, `[..., A] -> [...]`.

    `2 (log 2 - x - softplus(-2x))` is exact for every x; `log(1 - tanh(x)^2 + eps)` is off by tens of nats
    near +-1.
    """
    return (2.0 * (math.log(2.0) - latent - F.softplus(-2.0 * latent))).sum(-1)


def safe_atanh(action: Tensor) -> Tensor:
    """Inverse of tanh, elementwise, with `action` moved into [-1 + ATANH_MARGIN, 1 - ATANH_MARGIN] first."""
    limit = 1.0 - ATANH_MARGIN
    return action.clamp(-limit, limit).atanh()


def to_bins(action: Tensor, num_bins: int) -> Tensor:
    """Index `[..., A]` (int64, 0 to num_bins - 1) of the uniform bin of [-1, 1] that holds each component.

    RT-1 (Brohan et al. 2022, arXiv:2212.06817, section 5) uses 256. Values outside fall into the outermost
    bins; +1 belongs to the last one.
    """
    return ((action + 1.0) * (0.5 * num_bins)).floor().clamp(0, num_bins - 1).long()


def from_bins(index: Tensor, num_bins: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Centre of each bin, `[..., A]`, at most `1 / num_bins` off what `to_bins` was given."""
    return (index.to(dtype) + 0.5) * (2.0 / num_bins) - 1.0
