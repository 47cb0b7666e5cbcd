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
        num, rows = len(weights[0]), len(obs)
        if action.dim() == 2:
            joint = torch.cat([obs, action], dim=-1).expand(num, -1, -1)
            first = torch.relu_(torch.baddbmm(biases[0], joint, weights[0]))
            return _upper_layers(first, weights, biases)
        w_obs, w_action = weights[0].split([self.obs_dim, action.shape[-1]], dim=1)
        of_obs = torch.baddbmm(biases[0], obs.expand(num, -1, -1), w_obs).unsqueeze(2)  # [N, B, 1, H]
        values = []
        for part in action.split(_actions_per_pass(obs), dim=1):
            of_action = torch.bmm(part.flatten(0, 1).expand(num, -1, -1), w_action)  # [N, B * j, H]
            # Nothing in place on a view: autograd would copy the whole gradient once more for each.
            first = torch.relu_(of_action.view(num, rows, part.shape[1], -1) + of_obs)
            values.append(_upper_layers(first.flatten(1, 2), weights, biases).view(num, rows, -1))
        return torch.cat(values, dim=-1)


def _upper_layers(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """All layers above the first, from its activations `[N, R, H]` to `[N, R]` float32."""
    for weight, bias in zip(weights[1:-1], biases[1:-1], strict=True):
        x = torch.relu_(torch.baddbmm(bias, x, weight))
    return torch.baddbmm(biases[-1], x, weights[-1]).float().squeeze(-1)


def _actions_per_pass(obs: Tensor) -> int:
    """How many actions per state one pass takes: all on a GPU; on a CPU as many as fit its cache.

    Measured with two critics of width 256, one core: 160 GFLOP/s at 1024 rows a pass, 70 at 8000.
    """
    return max(1, 1024 // len(obs)) if obs.device.type == "cpu" else 1 << 30


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
