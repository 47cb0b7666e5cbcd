"""Anthropic's HH transcripts: dialogues of `\\n\\nHuman:` and `\\n\\nAssistant:` turns (arXiv:2204.05862)."""

from __future__ import annotations

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"

Message = dict[str, str]


def split_pair(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Prompt, chosen response and rejected response of two dialogues.

    The prompt is everything up to the assistant turn in which they first differ, its `\\n\\nAssistant:`
    included; the responses are what follows and begin with a space. A few pairs go on for several turns after
    that; those stay in the responses. Raises ValueError if they share no prompt, or nothing differs.
    """
    common = 0
    limit = min(len(chosen), len(rejected))
    while common < limit and chosen[common] == rejected[common]:
        common += 1
    cut = chosen.rfind(ASSISTANT, 0, common)
    if cut < 0 or not chosen.startswith(HUMAN):
        raise ValueError("chosen and rejected share no '\\n\\nHuman: ... \\n\\nAssistant:' prompt")
    cut += len(ASSISTANT)
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same text")
    return chosen[:cut], chosen[cut:], rejected[cut:]
