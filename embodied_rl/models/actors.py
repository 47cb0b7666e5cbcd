"""Actors: networks from observations `[B, D]` to actions `[B, A]` in [-1, 1] or to a distribution over them.

Each keeps the arguments that rebuild it in `architecture`, which is what a saved policy records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embodied_rl.models.mlp import MLP
from rl_core.distributions import DiagonalGaussian, TanhGaussian


class Actor(nn.Module):
    """What all actors offer; `obs` is normalised."""

    architecture: dict[str, Any]
    state_dim = 0  # numbers per environment that are remembered from step to step

    def imitation_loss(self, obs: Tensor, action: Tensor, keep: Sequence[Tensor] = ()) -> Tensor:
        """Distance `[B]` of the policy to the data's `action [B, A]`; `keep` are dropout masks."""
        raise NotImplementedError

    def act(self, obs: Tensor, deterministic: bool, generator: torch.Generator | None = None) -> Tensor:
        """Return the mode of the action distribution `[B, A]`, or a sample drawn with `generator`."""
        raise NotImplementedError

    def step(
        self, obs: Tensor, state: Tensor, deterministic: bool, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Act with a memory: actions, and the state `[B, state_dim]` after; zeros where an episode begins."""
        return self.act(obs, deterministic, generator), state


class DeterministicActor(Actor):
    """`tanh(net(obs))`: the actor of TD3, and the mode of the others."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        *,
        init: str = "torch",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.architecture = {
            "obs_dim": obs_dim,
            "action_dim": action_dim,
            "hidden": list(hidden),
        }
        self.net = MLP(obs_dim, hidden, action_dim, init=init, generator=generator)

    def forward(self, obs: Tensor, keep: Sequence[Tensor] = ()) -> Tensor:
        """Return actions `[B, A]`; `keep` are dropout masks (`models.mlp.dropout_masks`)."""
        return torch.tanh(self.net(obs, keep))

    def imitation_loss(self, obs: Tensor, action: Tensor, keep: Sequence[Tensor] = ()) -> Tensor:
        """Squared error `[B]` to the data's `action [B, A]`, summed over the components."""
        return (self(obs, keep) - action).square().sum(-1)

    def act(self, obs: Tensor, deterministic: bool, generator: torch.Generator | None = None) -> Tensor:
        """Return actions `[B, A]`, the same with either flag: there is no distribution to sample."""
        del deterministic, generator
        return self(obs)


class GaussianActor(Actor):
    """Normal(tanh(net(obs)), exp(log_std)) with one learned log_std per action component (IQL)."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        *,
        log_std_min: float = -5.0,
        log_std_max: float = 2.0,
        init: str = "torch",
        out_gain: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.architecture = {
            "obs_dim": obs_dim,
            "action_dim": action_dim,
            "hidden": list(hidden),
            "log_std_min": log_std_min,
            "log_std_max": log_std_max,
        }
        self.log_std_min, self.log_std_max = log_std_min, log_std_max
        self.net = MLP(obs_dim, hidden, action_dim, init=init, out_gain=out_gain, generator=generator)
        self.log_std = nn.Parameter(
            torch.zeros(action_dim, device=None if generator is None else generator.device)
        )

    def forward(self, obs: Tensor, keep: Sequence[Tensor] = ()) -> DiagonalGaussian:
        """Return the action distribution; its samples are not bounded, `act` clips them."""
        mean = torch.tanh(self.net(obs, keep))
        return DiagonalGaussian(mean, self.log_std.clamp(self.log_std_min, self.log_std_max))

    def imitation_loss(self, obs: Tensor, action: Tensor, keep: Sequence[Tensor] = ()) -> Tensor:
        """Negative log-likelihood `[B]` of the data's `action [B, A]`."""
        return -self(obs, keep).log_prob(action)

    def act(self, obs: Tensor, deterministic: bool, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean `[B, A]`, or a sample clipped to [-1, 1]."""
        distribution = self(obs)
        if deterministic:
            return distribution.mode
        return distribution.rsample(_noise_like(distribution.mean, generator)).clamp(-1.0, 1.0)


class SquashedGaussianActor(Actor):
    """tanh of a Gaussian whose mean and log_std both depend on the observation (SAC, CQL).

    `log_std = clamp(multiplier * net + offset, -20, 2)`, both scalars learned, as in SimpleSAC, unless the
    caller freezes them.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        *,
        log_std_multiplier: float = 1.0,
        log_std_offset: float = -1.0,
        init: str = "torch",
        out_gain: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.architecture = {
            "obs_dim": obs_dim,
            "action_dim": action_dim,
            "hidden": list(hidden),
        }
        device = None if generator is None else generator.device
        self.net = MLP(obs_dim, hidden, 2 * action_dim, init=init, out_gain=out_gain, generator=generator)
        self.log_std_multiplier = nn.Parameter(torch.tensor(log_std_multiplier, device=device))
        self.log_std_offset = nn.Parameter(torch.tensor(log_std_offset, device=device))

    def forward(self, obs: Tensor, keep: Sequence[Tensor] = ()) -> TanhGaussian:
        """Return the action distribution, on (-1, 1); `keep` are dropout masks."""
        mean, log_std = self.net(obs, keep).chunk(2, dim=-1)
        log_std = self.log_std_multiplier * log_std + self.log_std_offset
        return TanhGaussian(mean, log_std.clamp(-20.0, 2.0))

    def imitation_loss(self, obs: Tensor, action: Tensor, keep: Sequence[Tensor] = ()) -> Tensor:
        """Negative log-likelihood `[B]` of the data's `action [B, A]`, which may lie on the border."""
        return -self(obs, keep).log_prob(action)

    def act(self, obs: Tensor, deterministic: bool, generator: torch.Generator | None = None) -> Tensor:
        """Return tanh of the mean `[B, A]`, or a sample."""
        distribution = self(obs)
        if deterministic:
            return distribution.mode
        return distribution.rsample(_noise_like(distribution.normal.mean, generator))


# What `algo.actor` chooses from, and what a saved policy can be.
ACTORS: dict[str, type[Actor]] = {
    "deterministic": DeterministicActor,
    "gaussian": GaussianActor,
    "squashed": SquashedGaussianActor,
}


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device)
