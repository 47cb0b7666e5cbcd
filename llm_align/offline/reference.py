"""Log-probabilities of the reference policy, computed once per dataset and kept on disk by content.

An entry is found by a hash of what decides it: the reference's weights and the arithmetic they ran in (the
file), the prompt, the response and which of its tokens count (the key). So another split, order or run of the
same data asks the reference nothing, and changed weights or texts never get an old number.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llm_align.data.batches import Responses
from llm_align.data.loader import Batch, make_batch
from llm_align.data.tokens import Encoded
from llm_align.models import adapters
from llm_align.models.adapters import unwrap
from llm_align.models.causal_lm import reference_copy
from llm_align.models.log_probs import log_probs
from rl_core import distributed
from rl_core.config import require
from rl_core.progress import bar

KEY_BYTES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A batch with what the reference says: `reference [P, K]`; for KTO another answer to each prompt."""

    batch: Batch
    reference: Tensor
    mismatched: Responses | None = None
    mismatched_reference: Tensor | None = None  # [P]


class References:
    """Puts the reference's log-probabilities beside batches of one dataset.

    `model` is the reference policy; the adapters of a LoRA policy are switched off; None: zeros. With
    `mismatched`, every prompt also gets another prompt's answer (KTO). `surplus` is the weight of tokens
    that are not `shared_tokens`.
    """

    def __init__(
        self,
        model: Any,
        encoded: Sequence[Encoded],
        *,
        mismatched: bool,
        folder: Path | None,
        precision: str,
        device: torch.device,
        surplus: float = 1.0,
    ) -> None:
        def ask(items: Sequence[Encoded]) -> Tensor:
            if model is None:
                return torch.zeros(len(items), max(len(item.responses) for item in items))
            bare = adapters.reference(model) if isinstance(model, PeftModel) else nullcontext(model)
            with bare as reference:
                return reference_log_probs(
                    reference, items, batch_tokens=16_384, folder=folder, precision=precision
                )

        self._device = device
        self.table = ask(encoded)
        if surplus != 1:
            self.table = ask([_shared_part(item) for item in encoded]).lerp(self.table, surplus)
        self._other = mismatch(encoded) if mismatched else []
        self._other_table = ask(self._other) if mismatched else self.table

    def __call__(self, batch: Batch) -> Scored:
        """The batch with its reference log-probabilities."""
        table = self.table[batch.rows, : batch.mask.shape[1]].to(self._device)
        if not self._other:
            return Scored(batch=batch, reference=table)
        return Scored(
            batch=batch,
            reference=table,
            mismatched=make_batch(self._other, batch.rows).responses.to(self._device),
            mismatched_reference=self._other_table[batch.rows, 0].to(self._device),
        )


class MovingReference(nn.Module):
    """A reference of its own weights, which follow the policy's (TR-DPO, arXiv:2404.09656): asked for every
    batch.

    Raises ValueError for a model with adapters: their products do not mix as weights do.
    """

    def __init__(self, model: Any, precision: str) -> None:
        super().__init__()
        adapted = isinstance(model, PeftModel)
        require(not adapted, "algo.sync", "above 0", "0 with adapters (model.lora_rank > 0)")
        self.model = reference_copy(model)
        self._autocast = precision == "bfloat16"

    @torch.no_grad()
    def forward(self, batch: Batch) -> Scored:
        """The batch with the log-probabilities of the reference as it stands."""
        with torch.autocast(batch.mask.device.type, torch.bfloat16, enabled=self._autocast):
            log_prob = log_probs(self.model, batch.responses).log_prob
        return Scored(batch=batch, reference=batch.grid(log_prob.sum(1)))

    def train(self, mode: bool = True) -> MovingReference:
        """Stay in evaluation mode: a reference has no dropout."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, policy: nn.Module, share: float) -> None:
        """Become `share` of the policy's weights and `1 - share` of one's own; 1 is a copy."""
        torch._foreach_lerp_(list(self.model.parameters()), list(policy.parameters()), share)


def shared_tokens(batch: Batch) -> Tensor:
    """`[B, L]`: those of the response's tokens that its shortest rival for the prompt is long enough for."""
    mask = batch.responses.loss_mask
    count = batch.grid(mask.sum(1)).masked_fill(~batch.mask, mask.shape[1])
    shortest = count.amin(1, keepdim=True).expand_as(count)[batch.mask]
    return mask & (mask.cumsum(1) <= shortest[:, None])


def _shared_part(item: Encoded) -> Encoded:
    """The example with a loss on `shared_tokens` alone."""
    shortest = min(map(sum, item.loss_masks))
    masks = [
        [own and n < shortest for own, n in zip(m, accumulate(m, initial=0), strict=False)]
        for m in item.loss_masks
    ]
    return replace(item, loss_masks=masks)


def mismatch(encoded: Sequence[Encoded]) -> list[Encoded]:
    """Each prompt with the answer of the next example that has another prompt.

    Raises ValueError if there is none.
    """
    mismatched = []
    for number, item in enumerate(encoded):
        others = (encoded[(number + step) % len(encoded)] for step in range(1, len(encoded)))
        other = next((other for other in others if other.prompt != item.prompt), None)
        if other is None:
            raise ValueError(
                "algo.loss='kto': all prompts are equal; its reference point needs different ones"
            )
        mismatched.append(replace(item, responses=other.responses, loss_masks=other.loss_masks))
    return mismatched


def reference_log_probs(
    model: Any, encoded: Sequence[Encoded], *, batch_tokens: int, folder: Path | None, precision: str
) -> Tensor:
    """Summed log-probability of every response under `model`, `[N, K]` float32, 0 where there is none.

    Looked up in `folder` (None: nowhere) and computed for what is missing, `batch_tokens` tokens at a time.
    `precision` is the run's ("float32" or "bfloat16" autocast), so that policy and reference round alike.
    """
    keys = [_keys(item) for item in encoded]
    file = None if folder is None else folder / f"{fingerprint(model)}-{precision}.safetensors"
    known = {} if file is None else _read(file)
    missing = [row for row, own in enumerate(keys) if any(key not in known for key in own)]
    missing = distributed.gather(missing)[0]  # another process may have read the file later
    if missing:
        own, weight = distributed.share(missing)
        found = _compute(model, encoded, keys, own, batch_tokens, precision) if weight else {}
        for part in distributed.gather(found):
            known.update(part)
        if file is not None and distributed.rank() == 0:
            _write(file, known)
    result = torch.zeros(len(keys), max(len(own) for own in keys))
    for row, own in enumerate(keys):
        result[row, : len(own)] = torch.tensor([known[key] for key in own])
    return result


def fingerprint(model: Any) -> str:
    """A hash of the model's weights without their LoRA adapters: equal for a model before and after peft."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for name, value in sorted(_base_state(model).items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _base_state(model: Any) -> dict[str, Tensor]:
    state = unwrap(model).state_dict()
    return {name.replace(".base_layer.", "."): value for name, value in state.items() if "lora_" not in name}


def _keys(item: Encoded) -> list[bytes]:
    return [
        hashlib.blake2b(repr((item.prompt, response, mask)).encode(), digest_size=KEY_BYTES).digest()
        for response, mask in zip(item.responses, item.loss_masks, strict=True)
    ]


@torch.no_grad()
def _compute(
    model: Any,
    encoded: Sequence[Encoded],
    keys: list[list[bytes]],
    missing: list[int],
    batch_tokens: int,
    precision: str,
) -> dict[bytes, float]:
    known: dict[bytes, float] = {}
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with bar() as progress, torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        task = progress.add_task("reference log-probabilities", total=len(missing), note="")
        for rows in _chunks(encoded, missing, batch_tokens):
            batch = make_batch(encoded, rows)
            sums = log_probs(model, batch.responses.to(device)).log_prob.sum(1)
            known.update(zip((key for row in rows for key in keys[row]), sums.tolist(), strict=True))
            progress.advance(task, len(rows))
    model.train(training)
    return known


def _chunks(encoded: Sequence[Encoded], missing: list[int], batch_tokens: int) -> list[list[int]]:
    """Rows of similar lengths, `batch_tokens` tokens at a time."""
    chunks: list[list[int]] = [[]]
    for row in sorted(missing, key=lambda row: encoded[row].num_tokens):
        if chunks[-1] and (len(chunks[-1]) + 1) * encoded[row].num_tokens > batch_tokens:
            chunks.append([])
        chunks[-1].append(row)
    return chunks


def _read(file: Path) -> dict[bytes, float]:
    if not file.exists():
        return {}
    try:
        stored = load_file(file)
    except SafetensorError as error:
        warnings.warn(
            f"{file} is damaged ({error}): reference log-probabilities are computed again", stacklevel=3
        )
        return {}
    keys = [bytes(key) for key in stored["keys"].tolist()]
    return dict(zip(keys, stored["log_prob"].tolist(), strict=True))


def _write(file: Path, known: dict[bytes, float]) -> None:
    """All entries under a temporary name, then renamed: a reader never sees half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    keys = torch.tensor([list(key) for key in known], dtype=torch.uint8)
    save_file({"keys": keys, "log_prob": torch.tensor(list(known.values()))}, temporary)
    temporary.replace(file)
