"""Conversations with an environment: its words stand in the response, and no loss is taken on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from llm_align.data.batches import make_responses, pad
from llm_align.data.tokens import Encoded
from llm_align.feedback.rewards import named, several
from llm_align.models.engines import Engine
from llm_align.models.generation import Generated
from llm_align.models.sampling import Sampling

# `environment(prompts, completions, **columns)` returns, per response, the text it says next (with whatever
# marks of a turn the model expects), or None where the conversation is over. `completions` is the policy's
# latest turn; a function that names no columns gets none.
Environment = Callable[..., Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a conversation may get: turns of the policy's, tokens in all (None: no bound)."""

    turns: int
    context: int | None = None


@dataclass(slots=True)
class _Talk:
    """One response in the making: `own` and `log_prob` stand beside its tokens."""

    asked: Encoded
    tokens: list[int] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)
    log_prob: list[float] = field(default_factory=list)
    ended: bool = False

    def add(self, tokens: list[int], log_prob: list[float] | None = None) -> None:
        """Append the policy's words, with what it gave them, or (without that) the environment's."""
        self.tokens += tokens
        self.own += [log_prob is not None] * len(tokens)
        self.log_prob += log_prob or [0.0] * len(tokens)


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
    environment was not asked. Raises ValueError unless the environment returns a text or None a turn.
    """
    room = math.inf if limits.context is None else limits.context - sampling.max_new_tokens
    live = talks = [_Talk(item) for item in prompts for _ in range(num_samples)]
    contexts, samples = [item.prompt for item in prompts], num_samples
    for turn in range(limits.turns):
        drawn = engine.generate(contexts, sampling, generator=generator, num_samples=samples)
        spoke = _speak(live, drawn)
        if turn + 1 == limits.turns or not spoke:
            break
        live = _reply(spoke, _ask(environment, tokenizer, spoke), tokenizer, room)
        if not live:
            break
        # only the first turn is drawn from a context that the group shares
        contexts, samples = [talk.asked.prompt + talk.tokens for talk in live], 1
    return _generated(prompts, talks, num_samples, drawn.log_prob.device)


def _speak(live: Sequence[_Talk], drawn: Generated) -> list[tuple[_Talk, list[int]]]:
    """Add the turns drawn; returns the conversations whose turn came to its end, with that turn."""
    said = drawn.responses.response_lists()
    for talk, turn, log_prob, ended in zip(
        live, said, drawn.log_prob.tolist(), drawn.ended.tolist(), strict=True
    ):
        talk.add(turn, log_prob[: len(turn)])
        talk.ended = ended
    return [(talk, turn) for talk, turn in zip(live, said, strict=True) if talk.ended]


def _ask(
    environment: Environment, tokenizer: Any, spoke: Sequence[tuple[_Talk, list[int]]]
) -> list[str | None]:
    texts = tokenizer.batch_decode([turn for _, turn in spoke], skip_special_tokens=True)
    examples = [talk.asked.example for talk, _ in spoke]
    names = sorted({name for example in examples for name in example.columns or {}})
    columns: dict[str, Any] = {n: [(example.columns or {}).get(n) for example in examples] for n in names}
    columns |= {"prompts": [example.prompt for example in examples], "completions": texts}
    said = environment(**named(environment, columns))
    answers = several(said)
    if answers is None or len(answers) != len(texts):
        found = type(said).__name__ if answers is None else f"{len(answers)} answers"
        raise ValueError(f"the environment returned {found} to {len(texts)} turns: must be a list")
    for row, answer in enumerate(answers):
        if answer is not None and not isinstance(answer, str):
            raise ValueError(f"the environment returned {answer!r} to turn {row}: must be a text, or None")
    return answers


def _reply(
    spoke: Sequence[tuple[_Talk, list[int]]], answers: Sequence[str | None], tokenizer: Any, room: float
) -> list[_Talk]:
    """Add the answers; returns the conversations that go on, in at most `room` tokens."""
    live = []
    for (talk, _), answer in zip(spoke, answers, strict=True):
        if answer is None:
            continue
        reply = tokenizer(answer, add_special_tokens=False)["input_ids"]
        if len(talk.asked.prompt) + len(talk.tokens) + len(reply) > room:
            talk.ended = False
            continue
        talk.add(reply)
        live.append(talk)
    return live


def _generated(
    prompts: Sequence[Encoded], talks: Sequence[_Talk], num_samples: int, device: torch.device
) -> Generated:
    index = [p for p in range(len(prompts)) for _ in range(num_samples)]
    tokens, own = [talk.tokens for talk in talks], [talk.own for talk in talks]
    responses = make_responses([item.prompt for item in prompts], tokens, index, own)
    log_prob = torch.zeros(responses.response_ids.shape)
    log_prob[pad(tokens, 0)[1]] = torch.tensor([value for talk in talks for value in talk.log_prob])
    ended = torch.tensor([talk.ended for talk in talks], device=device)
    return Generated(responses=responses.to(device), log_prob=log_prob.to(device), ended=ended)
