"""Drawing responses: the prompt is read once per group, finished rows leave the batch, the sampler's log-
probabilities come along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm_align.data.batches import Responses, pad
from llm_align.models import weights
from llm_align.models.adapters import unwrap
from llm_align.models.cuda_graph import GraphedStep
from llm_align.models.decoder import Decoder, FusedDecoder, ModuleDecoder
from llm_align.models.sampling import Sampling, choose


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """Sampled responses: `log_prob [B, L]` float32 (0 where padded) under the tempered policy that drew them.

    `ended [B]` is True where a stop token ended the response, False where the length limit cut it.
    """

    responses: Responses
    log_prob: Tensor
    ended: Tensor


@torch.no_grad()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    generator: torch.Generator,
    num_samples: int = 1,
    limits: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    decoder: Decoder | None = None,
) -> Generated:
    """Draw `num_samples` responses to each of `prompts` (token ids); row `p * num_samples + g` answers p.

    The same generator state draws the same responses, whatever the compaction; dropout is off while it runs.
    `limits [P * num_samples]` are per-row maxima below `sampling.max_new_tokens`. The fused decoder is used
    where `weights.unsupported(model)` is None, else the model's own forward; both give the same tokens.
    `dtype` decodes a float32 model in bfloat16: `log_prob` is then that sampler's, not quite the policy's.
    Raises ValueError for an empty prompt or one that leaves no room in the model's context.
    """
    device = generator.device
    ids, mask = pad(prompts, 0, left=True)
    _check(model, mask, sampling)
    ids, mask = ids.to(device), mask.to(device)
    rows = len(prompts) * num_samples
    caps = torch.full((rows,), sampling.max_new_tokens) if limits is None else torch.tensor(limits)
    if len(caps) != rows or bool((caps < 1).any()):
        raise ValueError(f"limits={limits!r}: must be {rows} lengths of at least 1")
    caps = caps.clamp(max=sampling.max_new_tokens).to(device)
    training = model.training
    model.eval()
    try:
        decoder = decoder or make_decoder(model, ids.shape[1] + int(caps.max()), dtype)
        logits = decoder.prefill(ids, mask)
        prompt_index = torch.arange(len(prompts), device=device).repeat_interleave(num_samples)
        if num_samples > 1:
            decoder.expand(prompt_index)
            logits = logits[prompt_index]
        tokens, log_prob, lengths, ended = _decode(decoder, logits, ids.shape[1], caps, sampling, generator)
    finally:
        model.train(training)
    right_ids, right_mask = pad(prompts, 0)
    response_mask = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
    responses = Responses(
        prompt_ids=right_ids.to(device),
        prompt_mask=right_mask.to(device),
        prompt_index=prompt_index,
        response_ids=tokens,
        response_mask=response_mask,
        loss_mask=response_mask,
    )
    return Generated(responses=responses, log_prob=log_prob, ended=ended)


def make_decoder(model: Any, max_length: int, dtype: torch.dtype | None = None) -> Decoder:
    """The fused decoder where the model's family has one, captured as a CUDA graph on a GPU; else the model's
    own."""
    bare = unwrap(model)
    reason = weights.unsupported(bare)
    if reason is not None:
        if dtype not in (None, bare.dtype):
            raise ValueError(f"dtype={dtype}: must be the model's {bare.dtype}, because {reason}")
        return ModuleDecoder(bare)
    fused = FusedDecoder(weights.read(bare, max_length, dtype), max_length)
    return GraphedStep(fused) if bare.device.type == "cuda" else fused


def _decode(
    decoder: Decoder,
    logits: Tensor,
    column: int,
    caps: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loop: tokens `[B, L]`, log-probabilities `[B, L]`, lengths `[B]`, ended `[B]`."""
    total, limit, device = len(caps), int(caps.max()), caps.device
    tokens = torch.zeros(limit, total, dtype=torch.int64, device=device)
    log_prob = torch.zeros(limit, total, device=device)
    lengths, ended = caps.clone(), torch.zeros(total, dtype=torch.bool, device=device)
    stops = torch.tensor(sampling.stop_ids, dtype=torch.int64, device=device)
    rows, alive = torch.arange(total, device=device), torch.ones(total, dtype=torch.bool, device=device)
    # reading `alive` makes a GPU wait, so it does that less often
    period, dense_enough = (8, 0.5) if device.type == "cuda" else (1, 0.75)
    for step in range(limit):
        # every row draws its number at every step, so that compaction does not move the stream
        uniform = torch.rand(total, generator=generator, device=device)[rows]
        drawn, drawn_log_prob = choose(logits, uniform, sampling)
        tokens[step, rows] = torch.where(alive, drawn, 0)
        log_prob[step, rows] = torch.where(alive, drawn_log_prob, 0.0)
        stopped = torch.isin(drawn, stops) & alive
        ended[rows] |= stopped
        lengths[rows] = torch.where(stopped, step + 1, lengths[rows])
        alive = alive & ~stopped & (caps[rows] > step + 1)
        if step + 1 == limit:
            break
        if (step + 1) % period == 0:
            count = int(alive.sum())
            if count == 0:
                break
            if count <= dense_enough * len(rows):
                kept = alive.nonzero()[:, 0]
                decoder.keep(kept, column + step)
                rows, drawn, alive = rows[kept], drawn[kept], alive[kept]
        logits = decoder.step(drawn, column + step)
    used = int(lengths.max())
    return tokens[:used].t().contiguous(), log_prob[:used].t().contiguous(), lengths, ended


def _check(model: Any, mask: Tensor, sampling: Sampling) -> None:
    lengths = mask.sum(1)
    if len(lengths) == 0 or int(lengths.min()) == 0:
        raise ValueError("prompts: there must be at least one, each with at least one token")
    context = getattr(unwrap(model).config, "max_position_embeddings", None)
    longest = int(lengths.max())
    if context is not None and longest + sampling.max_new_tokens > context:
        raise ValueError(
            f"prompt {int(lengths.argmax())} has {longest} tokens: with max_new_tokens="
            f"{sampling.max_new_tokens} it exceeds the model's context of {context}"
        )
