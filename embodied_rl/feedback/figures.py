"""Pictures of learning from preferences, for the report page."""

from __future__ import annotations

import torch

from embodied_rl.eval.figures import Inline, lines, scatter
from embodied_rl.feedback.judgements import Judgements
from embodied_rl.feedback.reward_model import Agent
from embodied_rl.feedback.segments import Segments


@torch.no_grad()
def feedback_figures(agent: Agent, judged: Judgements, pool: Segments) -> list[Inline]:
    """Accuracy on comparisons not seen, their number, and learnt against true returns of segments."""
    steps, counts, accuracy, agreement = (list(column) for column in zip(*judged.history, strict=True))
    learnt = agent(pool.obs, pool.action).sum(-1).tolist()
    curves = {"accuracy, held out": (steps, accuracy), "correlation with true returns": (steps, agreement)}
    return [
        lines("Reward model", curves, labels=("iteration", ""),
              caption=f"last accuracy {accuracy[-1]:.3f}, correlation {agreement[-1]:.3f}"),
        lines("Comparisons", {"comparisons": (steps, counts)}, labels=("iteration", "judged"),
              caption=f"{counts[-1]:.0f} in all"),
        scatter("Learnt against true return", pool.returns().tolist(), learnt, labels=("true", "learnt"),
                caption=f"{len(learnt)} segments of {pool.reward.shape[1]} steps"),
    ]  # fmt: skip
