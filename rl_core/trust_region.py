"""Trust-region policy optimisation (Schulman et al. 2015, arXiv:1502.05477): natural gradient, line search.

Departure: the line search asks for an improvement of at least `accept_ratio` of the linear prediction, where
the paper only asks for some improvement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from rl_core.config import require

TINY = 1e-12


@dataclass(kw_only=True, slots=True)
class Config:
    """Numbers of one step; `max_kl` and `cg_iterations` default to the paper's."""

    max_kl: float = 0.01  # nats, mean over the states
    cg_iterations: int = 10
    damping: float = 0.1  # added to the Fisher matrix's diagonal
    backtracks: int = 10  # the step is halved at most this often
    accept_ratio: float = 0.1

    def __post_init__(self) -> None:
        """Reject what cannot train, by name."""
        for name in ("max_kl", "cg_iterations"):
            require(getattr(self, name) > 0, f"trust_region.{name}", getattr(self, name), "> 0")
        for name in ("damping", "backtracks", "accept_ratio"):
            require(getattr(self, name) >= 0, f"trust_region.{name}", getattr(self, name), ">= 0")


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, *, iterations: int, tolerance: float = 1e-10
) -> Tensor:
    """Solve `M x = target` for `x [P]`, M symmetric positive definite, given only `product(v) = M v`.

    Exact after P iterations up to rounding; stops early once the squared residual falls below `tolerance`.
    """
    x = torch.zeros_like(target)
    residual, direction = target.clone(), target.clone()
    squared = residual @ residual
    for _ in range(iterations):
        if squared <= tolerance:
            break
        image = product(direction)
        length = squared / (direction @ image)
        x = x + length * direction
        residual = residual - length * image
        squared, previous = residual @ residual, squared
        direction = residual + (squared / previous) * direction
    return x


def fisher_vector_product(
    kl: Tensor, params: Sequence[Tensor], damping: float = 0.0
) -> Callable[[Tensor], Tensor]:
    """Return `v [P] -> (H + damping I) v [P]`, H the Hessian of the scalar `kl`, by double backprop.

    At the parameters that collected the data the Hessian of the mean KL is the Fisher matrix.
    """
    gradient = _flat_grad(kl, params, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        return _flat_grad(gradient @ vector, params) + damping * vector

    return product


def trpo_step(
    params: Sequence[Tensor], surrogate: Callable[[], Tensor], kl: Callable[[], Tensor], config: Config
) -> dict[str, Tensor]:
    """Move `params` in place to raise `surrogate` while the mean KL stays within `config.max_kl`.

    Both callables evaluate the present parameters and return a scalar: `surrogate` the mean of ratio x
    advantage, `kl` the mean KL(old || present) with the old policy detached. If no tried step qualifies,
    the parameters stay as they were. Returns scalars: `improvement`, `kl`, `step_scale` (1, 1/2, 1/4 ..., 0
    if rejected).
    """
    before = surrogate()
    gradient = _flat_grad(before, params)
    product = fisher_vector_product(kl(), params, config.damping)
    direction = conjugate_gradient(product, gradient, iterations=config.cg_iterations)
    length = torch.sqrt(2.0 * config.max_kl / (direction @ product(direction)).clamp_min(TINY))
    return _line_search(params, surrogate, kl, direction * length, (before.detach(), gradient), config)


@torch.no_grad()
def _line_search(
    params: Sequence[Tensor],
    surrogate: Callable[[], Tensor],
    kl: Callable[[], Tensor],
    step: Tensor,
    start: tuple[Tensor, Tensor],
    config: Config,
) -> dict[str, Tensor]:
    before, gradient = start
    origin = parameters_to_vector(params).clone()
    for backtrack in range(config.backtracks + 1):
        scale = 0.5**backtrack
        vector_to_parameters(origin + scale * step, params)
        improvement, divergence = surrogate() - before, kl()
        expected = scale * (gradient @ step)
        # NaN fails both comparisons, hence a step into NaN is rejected too
        if divergence <= config.max_kl and improvement > config.accept_ratio * expected:
            return {"improvement": improvement, "kl": divergence, "step_scale": before.new_tensor(scale)}
    vector_to_parameters(origin, params)
    zero = torch.zeros_like(before)
    return {"improvement": zero, "kl": zero, "step_scale": zero}


def _flat_grad(scalar: Tensor, params: Sequence[Tensor], *, create_graph: bool = False) -> Tensor:
    grads = torch.autograd.grad(scalar, params, retain_graph=True, create_graph=create_graph)
    return torch.cat([g.reshape(-1) for g in grads])
