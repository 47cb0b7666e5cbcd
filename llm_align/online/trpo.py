"""TRPO on responses (Schulman et al. 2015, arXiv:1502.05477): one natural-gradient step per rollout.

    maximise mean_t ratio_t A   subject to   mean_t KL(old(. | s_t) || pi(. | s_t)) <= max_kl

The KL is exact, over the whole vocabulary, and its curvature is taken by double backpropagation: the logits
`[tokens, V]` of a rollout are in memory, which suits small models and vocabularies. The step is
`rl_core.trust_region.trpo_step`.

Several processes share the drawing; each then takes the whole step. Its length is the region's whatever the
gradient's: a policy that circles its goal needs a smaller `max_kl` or more responses.

Departure: the advantage is that of a whole response, by one of `reinforce`'s baselines but the critic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from llm_align.data.packing import pack
from llm_align.models.adapters import unwrap
from llm_align.models.log_probs import hidden_states
from llm_align.online.loop import Experience, Loop, Watching
from llm_align.online.reference import KL
from llm_align.online.reinforce import advantages, check_baseline
from llm_align.online.rollout import Task
from rl_core import trust_region
from rl_core.config import choice, require
from rl_core.kl import categorical_kl
from rl_core.reductions import whiten
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """The paper's trust region around the sampler."""

    trust_region: trust_region.Config = field(default_factory=trust_region.Config)
    baseline: str = "batch"  # none | batch | leave_one_out
    kl: KL = field(default_factory=lambda: KL(place="reward", estimator="k1"))  # from the reference

    def __post_init__(self) -> None:
        """Check words."""
        choice("algo.baseline", self.baseline, ["none", "batch", "leave_one_out"])
        require(not self.kl.in_loss, "algo.kl.place", self.kl.place, "reward: the objective has no KL term")


class Agent(nn.Module):
    """The policy; there is no optimizer."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy.eval()


def update(agent: Agent, experience: Experience, cfg: Config) -> dict[str, Tensor]:
    """One step within the trust region, or none where no step improves."""
    responses = experience.samples.responses
    mask, packed = responses.loss_mask, pack(responses)
    head = unwrap(agent.policy).get_output_embeddings()

    def distributions() -> Tensor:  # [tokens, V]
        hidden = hidden_states(agent.policy, packed)[packed.states[mask]]
        return (head(hidden).float() / experience.temperature).log_softmax(-1)

    advantage = advantages(experience, cfg.baseline, cfg.kl)[:, None].expand(mask.shape)
    advantage = whiten(advantage, experience.samples.judged_mask)[mask]
    targets = responses.response_ids[mask][:, None]
    # fused attention kernels have no second derivative
    with sdpa_kernel(SDPBackend.MATH):
        with torch.no_grad():
            old = distributions()

        def surrogate() -> Tensor:
            ratio = (distributions() - old).gather(-1, targets)[:, 0].exp()
            return (ratio * advantage).mean()

        def divergence() -> Tensor:
            return categorical_kl(old, distributions()).mean()

        params = [p for p in agent.policy.parameters() if p.requires_grad]
        return trust_region.trpo_step(params, surrogate, divergence, cfg.trust_region)


def train(cfg: Config, task: Task, policy: Any, run: Run, **watching: Unpack[Watching]) -> Agent:
    """Train `policy` for `run.cfg.steps` rollouts on the task's prompts."""
    how = run.cfg.distributed
    require(how == "ddp", "run.distributed", how, "ddp: its curvature needs the weights whole")
    check_baseline(cfg.baseline, task.config)
    loop = Loop(task, policy, run, cfg.kl, **watching)
    agent = Agent(loop.policy)
    for step in loop.steps(agent):
        stats = update(agent, loop.draw(), cfg)
        run.log(
            step,
            {"improvement": stats["improvement"], "step_kl": stats["kl"], "step_scale": stats["step_scale"]},
        )
    return agent
