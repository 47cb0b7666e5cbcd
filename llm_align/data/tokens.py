"""Examples to token ids, in batches; what cannot be learnt from is an error with its row.

The prompt and each response are tokenised apart: a sampler starts from the tokens of the prompt alone, so
training on a merge across the boundary would train on what is never seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_align.data.batches import Responses, make_responses
from llm_align.data.chat import render, segments
from llm_align.data.examples import Example
from rl_core.config import choice


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """One example as token ids: responses end with EOS; `loss_masks` say which tokens the policy writes."""

    prompt: list[int]
    responses: list[list[int]]
    loss_masks: list[list[bool]]
    example: Example

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt (once) and of all responses."""
        return len(self.prompt) + sum(len(response) for response in self.responses)


def encode(
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    max_length: int,
    template: str = "own",
    too_long: str = "error",
    loss_on: str = "assistant",
    allow_empty: bool = False,
) -> list[Encoded]:
    """Tokenise examples; `max_length` is the model's context, for a prompt with any one of its responses.

    `too_long`: "error"; "drop" leaves such examples out with a warning that counts them; "keep_end" cuts the
    prompt at its beginning. `loss_on` "all" learns every token of `messages` and `text`, "assistant" only the
    assistant's turns. With `allow_empty` an empty response is its EOS alone (a policy may say nothing).
    Raises ValueError naming the row: empty response, prompt longer than the context.
    """
    choice("too_long", too_long, ["error", "drop", "keep_end"])
    choice("loss_on", loss_on, ["assistant", "all"])
    check_tokenizer(tokenizer)
    texts = [
        _texts(tokenizer, number, example, template, allow_empty) for number, example in enumerate(examples)
    ]
    prompt_ids = ids_of(tokenizer, [text.prompt for text in texts])
    flat = [piece for text in texts for pieces in text.responses for piece, _ in pieces]
    ids = iter(ids_of(tokenizer, flat))
    encoded, long = [], []
    for number, (text, prompt, example) in enumerate(zip(texts, prompt_ids, examples, strict=True)):
        prompt = _with_start(tokenizer, prompt, text.rendered)
        responses, masks = [], []
        for pieces in text.responses:
            turns = [(next(ids), own or loss_on == "all") for _, own in pieces]
            tokens, mask = _join(turns, tokenizer.eos_token_id)
            responses.append(tokens)
            masks.append(mask)
        room = max_length - max((len(response) for response in responses), default=1)
        if len(prompt) > room:
            if too_long == "keep_end" and room > 0:
                prompt = prompt[-room:]
            elif too_long == "error":
                raise ValueError(_too_long(number, prompt, responses, max_length))
            else:
                long.append(number)
                continue
        encoded.append(Encoded(prompt=prompt, responses=responses, loss_masks=masks, example=example))
    if long:
        first = ", ".join(map(str, long[:5]))
        warnings.warn(
            f"{len(long)} of {len(examples)} examples exceed max_length={max_length} and are left out "
            f"(rows {first}{', ...' if len(long) > 5 else ''})",
            stacklevel=2,
        )
    return encoded


def collate(encoded: Sequence[Encoded], pad_id: int = 0) -> Responses:
    """One batch: the first response of every example, then every second one, and so on.

    So a batch of P preferences has its chosen rows at `[:P]` and its rejected ones at `[P:]`, and rankings of
    K reshape to `[K, P]`. Raises ValueError if examples have different numbers of responses.
    """
    counts = {len(item.responses) for item in encoded}
    if len(counts) != 1:
        raise ValueError(f"examples of one batch must have equally many responses, not {sorted(counts)}")
    places = [(k, p) for k in range(counts.pop()) for p in range(len(encoded))]
    return make_responses(
        [item.prompt for item in encoded],
        [encoded[p].responses[k] for k, p in places],
        [p for _, p in places],
        [encoded[p].loss_masks[k] for k, p in places],
        pad_id,
    )


def check_tokenizer(tokenizer: Any) -> None:
    """Raise ValueError for a tokenizer without an end-of-sequence or a padding token."""
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no EOS token: responses could not end; set tokenizer.eos_token")
    if tokenizer.pad_token_id is None:
        raise ValueError(
            "the tokenizer has no pad token: set model.pad_token, or tokenizer.pad_token in code, to EOS "
            "(padding is masked by length here, so that one serves)"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Texts:
    prompt: str
    responses: list[list[tuple[str, bool]]]
    rendered: bool  # by a chat template, which writes its own special tokens


def _texts(tokenizer: Any, number: int, example: Example, template: str, allow_empty: bool) -> _Texts:
    try:
        if isinstance(example.prompt, list):
            return _chat_texts(tokenizer, example, template, allow_empty)
        if example.prompt is None and isinstance(example.responses[0], list):
            first, *rest = segments(tokenizer, example.responses[0], template)
            if first[1]:
                raise ValueError("messages: the first turn must not be the assistant's")
            return _Texts(prompt=first[0], responses=[rest], rendered=True)
        pieces = [[(_text(response, allow_empty), True)] for response in example.responses]
        return _Texts(prompt=example.prompt or "", responses=pieces, rendered=False)
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error


def _chat_texts(tokenizer: Any, example: Example, template: str, allow_empty: bool) -> _Texts:
    assert isinstance(example.prompt, list)
    prompt = render(tokenizer, example.prompt, template=template, open_turn=True)
    responses = []
    for response in example.responses:
        turns = [{"role": "assistant", "content": response}] if isinstance(response, str) else response
        if not turns or not (allow_empty or turns[-1]["content"].strip()):
            raise ValueError("the response is empty")
        pieces = segments(tokenizer, [*example.prompt, *turns], template)
        whole = "".join(text for text, _ in pieces)
        if not whole.startswith(prompt):
            raise ValueError("the chat template writes the prompt differently once it is answered")
        responses.append(_after(pieces, len(prompt)))
    return _Texts(prompt=prompt, responses=responses, rendered=True)


def _after(pieces: list[tuple[str, bool]], start: int) -> list[tuple[str, bool]]:
    """The pieces without the first `start` characters."""
    kept = []
    for text, own in pieces:
        if text[start:]:
            kept.append((text[start:], own))
        start = max(0, start - len(text))
    return kept


def _text(response: Any, allow_empty: bool) -> str:
    if not isinstance(response, str):
        raise ValueError(f"the response is a {type(response).__name__} but its prompt is a text")
    if not (allow_empty or response.strip()):
        raise ValueError("the response is empty")
    return response


def ids_of(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text without special tokens, from one call of the tokenizer."""
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def _join(turns: list[tuple[list[int], bool]], eos: int) -> tuple[list[int], list[bool]]:
    """Tokens and loss mask of a response's turns, EOS at the end.

    What a template writes after a turn's EOS (often a line break) is not the policy's: masked, and left out
    at the end.
    """
    tokens: list[int] = []
    mask: list[bool] = []
    for piece, own in turns:
        end = len(piece) - piece[::-1].index(eos) if own and eos in piece else len(piece)
        tokens += piece
        mask += [own] * end + [False] * (len(piece) - end)
    while mask and not mask[-1]:
        tokens, mask = tokens[:-1], mask[:-1]
    if tokens[-1:] != [eos]:
        tokens, mask = [*tokens, eos], [*mask, True]
    return tokens, mask


def _with_start(tokenizer: Any, prompt: list[int], rendered: bool) -> list[int]:
    """The prompt after the tokenizer's BOS token; a text without a prompt starts from EOS if there is no
    BOS."""
    if tokenizer.bos_token_id is not None and not rendered:
        return [tokenizer.bos_token_id, *prompt]
    return prompt or [tokenizer.eos_token_id]


def _too_long(number: int, prompt: list[int], responses: list[list[int]], max_length: int) -> str:
    longest = max((len(response) for response in responses), default=0)
    return (
        f"row {number}: a prompt of {len(prompt)} tokens with a response of {longest} exceeds "
        f"max_length={max_length}; shorten it, or choose too_long='drop' or 'keep_end'"
    )
