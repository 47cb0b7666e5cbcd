"""Chat messages to text: the tokenizer's own template where it has one, a plain one where that is asked
for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from llm_align.data.hh import ASSISTANT, HUMAN, Message
from rl_core.config import choice

ROLES = ("system", "user", "assistant", "tool")
PLAIN = {"user": HUMAN + " ", "assistant": ASSISTANT + " ", "system": "", "tool": "\n\nTool: "}


def check_messages(messages: Sequence[Message]) -> None:
    """Raise ValueError unless every message has a known role and a string as content."""
    if not messages:
        raise ValueError("the list of messages is empty")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            found = sorted(message) if isinstance(message, dict) else repr(message)
            raise ValueError(f"message {number}: found {found}; expected a role and a text as content")
        choice(f"message {number}: role", message.get("role", ""), ROLES)


def render(tokenizer: Any, messages: Sequence[Message], *, template: str = "own", open_turn: bool) -> str:
    """Messages as text; with `open_turn`, up to where the assistant begins to answer.

    `template` "own" is the tokenizer's chat template; "plain" is HH's form, `\\n\\nHuman: ...\\n\\nAssistant:
    ...` with a system message before it, for models that have no template. Raises ValueError where "own" is
    asked for and the tokenizer has none, or its template refuses the messages.
    """
    choice("template", template, ["own", "plain"])
    check_messages(messages)
    if template == "plain":
        text = "".join(PLAIN[message["role"]] + message["content"] for message in messages)
        return text + (ASSISTANT if open_turn else "")
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the tokenizer has no chat template: set tokenizer.chat_template, or data.template=plain"
        )
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=open_turn)
    except TemplateError as error:  # templates refuse what their model has not seen
        raise ValueError(f"the tokenizer's chat template refuses the conversation: {error}") from error
    return str(text)


def segments(tokenizer: Any, messages: Sequence[Message], template: str = "own") -> list[tuple[str, bool]]:
    """The conversation's text in pieces `(text, written by the assistant)`, to mask the loss with.

    Raises ValueError for a template that rewrites earlier turns when later ones come (some drop old
    reasoning): its conversations have no stable mask; use prompt+completion for them.
    """
    pieces: list[tuple[str, bool]] = []
    so_far = ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:number], template=template, open_turn=True) if number else ""
        after = render(tokenizer, messages[: number + 1], template=template, open_turn=False)
        if not (before.startswith(so_far) and after.startswith(before)):
            raise ValueError("the chat template rewrites earlier turns: give prompt and completion instead")
        pieces += [(before[len(so_far) :], False), (after[len(before) :], True)]
        so_far = after
    if not pieces:
        raise ValueError("messages: there is no assistant turn to learn from")
    return [piece for piece in pieces if piece[0]]


def text_of(completion: str | Sequence[Message]) -> str:
    """The text of a completion: itself, or what the assistant says in its messages, turn by turn."""
    if isinstance(completion, str):
        return completion
    return "\n".join(message["content"] for message in completion if message["role"] == "assistant")
