"""Memory for partially observed tasks: a recurrent cell whose state is zero where an episode begins."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embodied_rl.models.actors import Actor, GaussianActor
from rl_core.config import choice
from rl_core.distributions import DiagonalGaussian

CELLS: dict[str, type[nn.RNNCellBase]] = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}


class Memory(nn.Module):
    """A GRU or LSTM cell; its state `[B, S]` is the output `[B, H]`, and for an LSTM the cell beside it."""

    def __init__(
        self, kind: str, in_dim: int, size: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        choice("memory", kind, CELLS)
        device = None if generator is None else generator.device
        self.size = size
        self.state_dim = 2 * size if kind == "lstm" else size
        self.cell = nn.utils.skip_init(CELLS[kind], in_dim, size, **({"device": device} if device else {}))
        for parameter in self.cell.parameters() if generator else ():
            bound = 1.0 / math.sqrt(size)  # torch's own scale
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Return the state `[B, S]` after `x [B, D]`; its first `size` columns are the output."""
        if isinstance(self.cell, nn.LSTMCell):
            return torch.cat(self.cell(x, tuple(state.split(self.size, dim=-1))), dim=-1)
        after: Tensor = self.cell(x, state)
        return after

    def forward(self, x: Tensor, state: Tensor, first: Tensor) -> Tensor:
        """States `[B, L, S]` after each step of `x [B, L, D]`, from `state [B, S]`.

        `first [B, L]` (bool) marks the steps that begin an episode: they start from a state of zeros.
        """
        states = []
        for t in range(x.shape[1]):
            state = self.step(x[:, t], torch.where(first[:, t, None], 0.0, state))
            states.append(state)
        return torch.stack(states, dim=1)


class RecurrentActor(Actor):
    """A memory under a `GaussianActor`."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        *,
        kind: str = "gru",
        size: int = 128,
        out_gain: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.memory = Memory(kind, obs_dim, size, generator=generator)
        self.head = GaussianActor(
            size, action_dim, hidden, init="orthogonal", out_gain=out_gain, generator=generator
        )
        self.state_dim = self.memory.state_dim
        self.architecture = {
            "obs_dim": obs_dim,
            "action_dim": action_dim,
            "hidden": list(hidden),
            "kind": kind,
            "size": size,
        }

    @property
    def log_std(self) -> nn.Parameter:
        """Of the head, one number per action component."""
        return self.head.log_std

    def forward(self, obs: Tensor, state: Tensor, first: Tensor) -> DiagonalGaussian:
        """Return the distributions `[B, L, A]` for sequences `[B, L, D]`; arguments as for `Memory`."""
        distribution: DiagonalGaussian = self.head(self.memory(obs, state, first)[..., : self.memory.size])
        return distribution

    def step(
        self, obs: Tensor, state: Tensor, deterministic: bool, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return actions `[B, A]` for `obs [B, D]` and the state `[B, S]` after them."""
        state = self.memory.step(obs, state)
        return self.head.act(state[:, : self.memory.size], deterministic, generator), state
