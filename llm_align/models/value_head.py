"""Values and scores: one linear output on a model's hidden states, on its own trunk or on the policy's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from llm_align.data.batches import Responses
from llm_align.data.packing import Packed, pack
from llm_align.models.adapters import unwrap
from llm_align.models.log_probs import LogProbs, head_log_probs, hidden_states, spread


class ValueModel(nn.Module):
    """A trunk with a scalar output: the critic of PPO (`values`) and the body of a reward model (`scores`).

    The output starts at zero, so that an untrained critic predicts 0 and not noise. Give it a trunk of its
    own, or the policy itself for a shared one (then `policy_and_values` costs one forward).
    """

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk
        bare = unwrap(trunk)
        self.output = nn.Linear(bare.config.hidden_size, 1, dtype=bare.dtype, device=bare.device)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, responses: Responses, packed: Packed | None = None) -> Tensor:
        """Values `[B, L]` float32: entry t is the value before response token t is written."""
        packed = packed or pack(responses)
        mask = responses.loss_mask
        return spread(self._read(hidden_states(self.trunk, packed)[packed.states[mask]]), mask)

    def scores(self, responses: Responses, packed: Packed | None = None) -> Tensor:
        """One score per response, `[B]` float32, read at its last token."""
        packed = packed or pack(responses)
        return self._read(hidden_states(self.trunk, packed)[packed.final])

    def policy_and_values(
        self, responses: Responses, *, temperature: float = 1.0, entropy: bool = False
    ) -> tuple[LogProbs, Tensor]:
        """Log-probabilities and values of a shared trunk, from one forward."""
        packed, mask = pack(responses), responses.loss_mask
        hidden = hidden_states(self.trunk, packed)
        states, targets = hidden[packed.states[mask]], responses.response_ids[mask]
        log_prob, spreads = head_log_probs(self.trunk, states, targets, temperature, entropy)
        entropies = None if spreads is None else spread(spreads, mask)
        result = LogProbs(log_prob=spread(log_prob, mask), entropy=entropies)
        return result, spread(self._read(states), mask)

    def _read(self, hidden: Tensor) -> Tensor:
        values: Tensor = self.output(hidden.to(self.output.weight.dtype))
        return values[..., 0].float()
