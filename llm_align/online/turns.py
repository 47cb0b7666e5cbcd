"""Conversations with an environment: its words stand in the response, and no loss is taken on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llm_align.data.batches import make_responses, pad
from llm_align.data.tokens import Encoded
from llm_align.models.engines import Engine
from llm_align.models.generation import Generated
from llm_align.models.sampling import Sampling

# `environment(prompts, completions, **columns)` returns, per response, the text it says next (with whatever
# marks of a turn the model expects), or None where the conversation is over. `completions` is the policy's
# latest turn.
Environment = Callable[..., Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a conversation may get: turns of the policy's, tokens in all (None: no bound)."""

    turns: int
    context: int | None = None


def converse(
    engine: Engine,
    prompts: Sequence[Encoded],
    sampling: Sampling,
    environment: Environment,
    tokenizer: Any,
    *,
    generator: torch.Generator,
    num_samples: int,
    limits: Limits,
) -> Generated:
    """Alternate turns of the policy and of the environment, at most `limits.turns` of the policy's.

    A turn cut at its length limit ends the conversation as a truncation, and so does a reply after which the
    context has no room for a turn (it is left out). One that the last allowed turn left open does not: the
    environment was not asked. Raises ValueError if the environment returns a wrong number
    of answers.
    """
    asked = [item for item in prompts for _ in range(num_samples)]
    tokens: list[list[int]] = [[] for _ in asked]
    own: list[list[bool]] = [[] for _ in asked]
    scores: list[list[float]] = [[] for _ in asked]
    ended = [False] * len(asked)
    live = list(range(len(asked)))
    for turn in range(limits.turns):
        if turn == 0:  # the group shares its prompt
            contexts, samples = [item.prompt for item in prompts], num_samples
        else:
            contexts, samples = [asked[row].prompt + tokens[row] for row in live], 1
        drawn = engine.generate(contexts, sampling, generator=generator, num_samples=samples)
        said = drawn.responses.response_lists()
        for place, row in enumerate(live):
            tokens[row] += said[place]
            own[row] += [True] * len(said[place])
            scores[row] += drawn.log_prob[place, : len(said[place])].tolist()
            ended[row] = bool(drawn.ended[place])
        spoke = {row: said[place] for place, row in enumerate(live) if ended[row]}
        if turn + 1 == limits.turns or not spoke:
            break
        live = []
        for row, answer in zip(spoke, _ask(environment, tokenizer, asked, spoke), strict=True):
            if answer is None:
                continue
            reply = tokenizer(answer, add_special_tokens=False)["input_ids"]
            used = len(asked[row].prompt) + len(tokens[row]) + len(reply)
            if limits.context is not None and used + sampling.max_new_tokens > limits.context:
                ended[row] = False
                continue
            tokens[row] += reply
            own[row] += [False] * len(reply)
            scores[row] += [0.0] * len(reply)
            live.append(row)
        if not live:
            break
    index = [p for p in range(len(prompts)) for _ in range(num_samples)]
    responses = make_responses([item.prompt for item in prompts], tokens, index, own)
    log_prob = torch.zeros(responses.response_ids.shape)
    log_prob[pad(tokens, 0)[1]] = torch.tensor([value for row in scores for value in row])
    device = drawn.log_prob.device
    return Generated(
        responses=responses.to(device), log_prob=log_prob.to(device), ended=torch.tensor(ended, device=device)
    )


def _ask(
    environment: Environment, tokenizer: Any, asked: Sequence[Encoded], spoke: dict[int, list[int]]
) -> list[str | None]:
    texts = tokenizer.batch_decode(list(spoke.values()), skip_special_tokens=True)
    examples = [asked[row].example for row in spoke]
    names = sorted({name for example in examples for name in example.columns or {}})
    columns = {name: [(example.columns or {}).get(name) for example in examples] for name in names}
    answers = list(
        environment(prompts=[example.prompt for example in examples], completions=texts, **columns)
    )
    if len(answers) != len(texts):
        raise ValueError(f"the environment returned {len(answers)} answers to {len(texts)} turns")
    return answers
