"""Multi-layer perceptrons: one network, and N of them as stacked parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

INITS = ("torch", "orthogonal")


def linear(
    in_dim: int, out_dim: int, init: str, gain: float | None, generator: torch.Generator | None
) -> nn.Linear:
    """Build one initialised layer on the generator's device; `gain=None` keeps the default scale of `init`.

    `torch` is the library default (uniform +-1/sqrt(in_dim)), `orthogonal` has gain sqrt(2) and zero bias
    (the IQL and Cal-QL code). A `gain` makes the weight orthogonal or Xavier-uniform with that gain and the
    bias 0. Without a generator the values are left for the caller to load.
    """
    device = None if generator is None else generator.device
    layer = nn.utils.skip_init(nn.Linear, in_dim, out_dim, **({"device": device} if device else {}))
    if generator is None:
        return layer
    if init == "orthogonal":
        nn.init.orthogonal_(layer.weight, math.sqrt(2.0) if gain is None else gain, generator=generator)
        nn.init.zeros_(layer.bias)
    elif gain is not None:
        nn.init.xavier_uniform_(layer.weight, gain, generator=generator)
        nn.init.zeros_(layer.bias)
    else:
        bound = 1.0 / math.sqrt(in_dim)
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        *,
        init: str = "torch",
        out_gain: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = [in_dim, *hidden]
        layers = [linear(a, b, init, None, generator) for a, b in itertools.pairwise(widths)]
        self.layers = nn.ModuleList([*layers, linear(widths[-1], out_dim, init, out_gain, generator)])

    def forward(self, x: Tensor, keep: Sequence[Tensor] = ()) -> Tensor:
        """Map `[..., in]` to `[..., out]` float32.

        `keep` holds one dropout mask `[..., hidden]` per hidden layer, 0 or 1/(1-p) (`dropout_masks`): the
        randomness comes from outside, so that a compiled update and its eager twin drop the same units.
        """
        *inner, last = self.layers
        for i, layer in enumerate(inner):
            x = torch.relu(layer(x))
            if keep:
                x = x * keep[i]
        return last(x).float()


def dropout_masks(
    p: float, batch_size: int, hidden: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Draw inverted-dropout masks `[B, hidden_i]` on the generator's device; empty without dropout."""
    if p == 0.0:
        return ()
    scale = 1.0 / (1.0 - p)
    device = generator.device
    return tuple(
        (torch.rand(batch_size, width, generator=generator, device=device) >= p) * scale for width in hidden
    )


class StackedMLP(nn.Module):
    """N perceptrons of one shape, each layer one batched matrix product over stacked `[N, in, out]` weights.

    Member i starts as an `MLP` built with the same arguments.
    """

    def __init__(
        self,
        num: int,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        *,
        init: str = "torch",
        out_gain: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        members = [
            MLP(in_dim, hidden, out_dim, init=init, out_gain=out_gain, generator=generator)
            for _ in range(num)
        ]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layers in zip(*(member.layers for member in members), strict=True):
            self.weights.append(torch.stack([layer.weight.detach().T for layer in layers]))
            self.biases.append(torch.stack([layer.bias.detach()[None] for layer in layers]))

    def parameter_lists(self, *, frozen: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases; `frozen` detaches them: a gradient reaches the input but not the parameters."""
        weights, biases = list(self.weights), list(self.biases)
        return ([w.detach() for w in weights], [b.detach() for b in biases]) if frozen else (weights, biases)
