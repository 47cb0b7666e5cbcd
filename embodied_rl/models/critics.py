"""Value networks: N action-value functions in one pass, a state-value function, Polyak averaging."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from embodied_rl.models.mlp import MLP, StackedMLP

Network = TypeVar("Network", bound=nn.Module)


class TwinCritic(StackedMLP):
    """N functions Q_i(s, a) (two by default) evaluated together.

    With J actions per state the first layer is `W_s s + W_a a + b`: its observation half is computed once per
    state instead of J times, and no `[B * J, D + A]` input is ever built.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        *,
        num: int = 2,
        init: str = "torch",
        out_gain: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            num, obs_dim + action_dim, hidden, 1, init=init, out_gain=out_gain, generator=generator
        )
        self.obs_dim = obs_dim

    def forward(self, obs: Tensor, action: Tensor, *, frozen: bool = False) -> Tensor:
        """Return `[N, B]` float32 for states `[B, D]` and actions `[B, A]`, `[N, B, J]` for `[B, J, A]`.

        `frozen` lets the gradient through to the action but not into the weights: the policy loss of an
        actor-critic.
        """
        weights, biases = self.parameter_lists(frozen=frozen)
        num, per_state = len(weights[0]), action.shape[1:-1]
        if per_state:
            x = self._first_layer(obs, action, weights[0], biases[0])
        else:
            joint = torch.cat([obs, action], dim=-1).expand(num, -1, -1)
            x = torch.baddbmm(biases[0], joint, weights[0])
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            x = torch.baddbmm(bias, torch.relu(x), weight)
        return x.float().view(num, len(obs), *per_state)

    def _first_layer(self, obs: Tensor, action: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Pre-activations `[N, B * J, H]` of observations `[B, D]` with actions `[B, J, A]`."""
        num = len(weight)
        w_obs, w_action = weight.split([self.obs_dim, action.shape[-1]], dim=1)
        of_obs = torch.baddbmm(bias, obs.expand(num, -1, -1), w_obs)  # [N, B, H]
        of_action = torch.bmm(action.flatten(0, 1).expand(num, -1, -1), w_action)  # [N, B * J, H]
        return (of_action.view(num, *action.shape[:2], -1) + of_obs.unsqueeze(2)).flatten(1, 2)


class ValueNet(MLP):
    """The state-value function V(s)."""

    def __init__(
        self,
        obs_dim: int,
        hidden: Sequence[int] = (256, 256),
        *,
        init: str = "torch",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(obs_dim, hidden, 1, init=init, generator=generator)

    def forward(self, obs: Tensor, keep: Sequence[Tensor] = ()) -> Tensor:
        """Return `[...]` float32 for observations `[..., D]`."""
        return super().forward(obs, keep).squeeze(-1)


def target_copy(network: Network) -> Network:
    """A copy that no gradient reaches, to be moved by `polyak`."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def polyak(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move every parameter of `target` by the fraction `tau` towards `source`; tau=1 copies."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
