"""One policy against another on the same prompts: who wins, at which distance, at which length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from llm_align.eval.held_out import draw, summary
from llm_align.eval.win_rate import Judge, from_rewards, win_rate
from llm_align.models.log_probs import log_probs
from llm_align.online.rollout import Samples, Task
from rl_core.kl import k1
from rl_core.reductions import masked_sum


def compare(
    task: Task, policy: Any, other: Any, judge: Judge | None, *, seed: int, ks: Sequence[int] = ()
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Numbers of `policy` against `other` on the task's prompts, and the answers compared, a row each.

    `win_rate` (ties count half, with its interval) compares the first response of each to every prompt, by
    `judge` in both orders or, without one, by the task's rewards. `kl` is that of `policy` from `other` in
    nats per response, from the policy's own samples, with its interval; `other_*` are the other's numbers.
    """
    device = next(policy.parameters()).device
    ours, theirs = (draw(task, model, seed, device) for model in (policy, other))
    step = task.config.group_size
    a, b = ours.texts[::step], theirs.texts[::step]
    prompts = [item.example.prompt for item in task.prompts]
    if judge is None:
        wins = from_rewards(ours.reward[::step].tolist(), theirs.reward[::step].tolist())
    else:
        wins = win_rate(judge, prompts, a, b)
    named = {("win_rate" if name == "rate" else f"win_{name}"): v for name, v in asdict(wins).items()}
    others = {f"other_{name}": value for name, value in summary(theirs, ks).items()}
    numbers = summary(ours, ks) | named | divergence(ours, other, task) | others
    columns = zip(prompts, a, b, ours.reward[::step].tolist(), theirs.reward[::step].tolist(), strict=True)
    names = ("prompt", "completion", "other", "reward", "other_reward")
    return numbers, [dict(zip(names, row, strict=True)) for row in columns]


@torch.no_grad()
def divergence(samples: Samples, other: Any, task: Task) -> dict[str, float]:
    """KL of the samples' policy from `other` in nats per response: its mean with a 95 % interval."""
    size, total = task.config.prompts * task.config.group_size, len(samples)
    parts = []
    for start in range(0, total, size):
        part = samples.select(torch.arange(start, min(start + size, total)))
        ref = log_probs(other, part.responses, temperature=task.config.temperature).log_prob
        parts.append(masked_sum(k1(part.log_prob, ref), part.responses.loss_mask, dim=-1))
    each = torch.cat(parts).double()
    mean, half = float(each.mean()), 1.96 * float(each.std()) / math.sqrt(total)
    return {"kl": mean, "kl_low": mean - half, "kl_high": mean + half}
