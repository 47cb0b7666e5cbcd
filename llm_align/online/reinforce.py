"""On-policy gradients in one step per rollout: REINFORCE and its baselines, A2C, minimum risk training.

    reinforce      L = -mean_i (R_i - b_i) sum_t log pi(y_it)                     (Williams 1992)
      baseline     none · batch: mean reward · greedy: reward of the greedy response (SCST, arXiv:1612.00563)
                   · leave_one_out: mean of the others in the group (RLOO, arXiv:2402.14740)
                   · value: a critic's, token by token through GAE (A2C, arXiv:1602.01783)
    minimum_risk   L = -mean_p sum_g Q_pg R_pg,  Q_p = softmax_g(alpha log pi(y_pg)) (arXiv:1512.02433, eq. 9)

Departures: SCST and minimum risk training sample with the run's temperature, the papers with 1. With the KL
in the reward SCST's samples pay for it and the greedy response does not: a baseline may be any constant.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from llm_align.models import optim
from llm_align.models.log_probs import log_probs
from llm_align.models.parallel import distribute
from llm_align.models.value_head import ValueModel
from llm_align.online import credit, rollout
from llm_align.online.loop import Experience, Loop, Watching
from llm_align.online.reference import KL
from llm_align.online.rollout import Samples, Task, require_compared
from rl_core import distributed
from rl_core import policy_losses as losses
from rl_core.advantages import group_center, leave_one_out
from rl_core.config import choice, require, require_read
from rl_core.reductions import constant_mean, masked_sum, token_mean, whiten
from rl_core.run import Run
from rl_core.schedules import set_lr, warmup

BASELINES = ("none", "batch", "greedy", "leave_one_out", "value")


def _monte_carlo() -> credit.Config:
    return credit.Config(lam=1.0)


@dataclass(kw_only=True, slots=True)
class Config:
    """REINFORCE with the batch mean as baseline."""

    lr: float = 1e-6
    warmup: int = 0  # steps
    max_grad_norm: float = 1.0
    objective: str = "reinforce"  # reinforce | minimum_risk
    baseline: str = "batch"  # none | batch | greedy | leave_one_out | value
    whiten: bool = False  # advantages to deviation 1 over the rollout
    entropy_coef: float = 0.0
    kl: KL = field(default_factory=KL)
    alpha: float = 5e-3  # minimum_risk: sharpness of Q; the paper's
    critic_lr: float = 1e-5  # value
    value_coef: float = 0.5
    credit: credit.Config = field(default_factory=_monte_carlo)

    def __post_init__(self) -> None:
        """Check words and ranges."""
        choice("algo.objective", self.objective, ["reinforce", "minimum_risk"])
        choice("algo.baseline", self.baseline, BASELINES)
        for name in ("lr", "max_grad_norm", "alpha", "critic_lr"):
            require(getattr(self, name) > 0, f"algo.{name}", getattr(self, name), "> 0")
        for name in ("warmup", "entropy_coef", "value_coef"):
            require(getattr(self, name) >= 0, f"algo.{name}", getattr(self, name), ">= 0")
        require_read(self, "objective", {"reinforce": ("baseline", "whiten"), "minimum_risk": ("alpha",)})
        require_read(self, "baseline", dict.fromkeys(BASELINES, ()) | {"value": ("critic_lr", "value_coef")})
        unread = self.baseline != "value" and self.credit != _monte_carlo()
        require(not unread, "algo.credit", self.credit, "its default: only algo.baseline=value reads it")


class Agent(nn.Module):
    """The policy, a critic where the baseline is one, and their optimizer."""

    def __init__(self, cfg: Config, policy: Any, critic: ValueModel | None = None) -> None:
        super().__init__()
        self.policy = policy.eval()
        self.critic = None if critic is None else critic.eval()
        parts = [(policy, cfg.lr), *([] if self.critic is None else [(self.critic, cfg.critic_lr)])]
        self.optimizer = optim.plain_adamw(*parts)


def charged_reward(experience: Experience, kl: KL) -> Tensor:
    """Reward `[B]` less the price of the response's KL; NaN where nothing judged it."""
    samples = experience.samples
    if not kl.in_reward:
        return samples.reward
    assert experience.ref_log_prob is not None
    price = kl.per_token(samples.log_prob, experience.ref_log_prob)
    return samples.reward - experience.kl_coef * masked_sum(price, samples.responses.loss_mask, dim=-1)


def advantages(experience: Experience, baseline: str, kl: KL, greedy: Tensor | None = None) -> Tensor:
    """Reward minus the baseline, `[B]`; 0 where nothing judged.

    `greedy [P]`: rewards of greedy responses.
    """
    reward = charged_reward(experience, kl)
    if baseline == "leave_one_out":
        return leave_one_out(experience.samples.grouped(reward)).flatten()
    if baseline == "batch":
        return group_center(reward)
    if baseline == "greedy":
        assert greedy is not None
        return (experience.samples.grouped(reward) - greedy[:, None]).flatten().nan_to_num(0.0)
    return reward.nan_to_num(0.0)


def minimum_risk(log_prob: Tensor, reward: Tensor, distinct: Tensor, alpha: float) -> Tensor:
    """Expected negative reward under the candidates' renormalised probabilities, a scalar.

    log_prob, reward [P, G] of whole responses; only candidates in `distinct [P, G]` count (a set has no
    duplicates), and prompts with none at all give 0.
    """
    logits = torch.where(distinct, alpha * log_prob, -math.inf)
    logits = torch.where(distinct.any(-1, keepdim=True), logits, 0.0)
    reward = torch.where(distinct, reward, 0.0)
    return -(logits.softmax(-1) * reward).sum(-1).mean()


def first_of_its_kind(samples: Samples) -> Tensor:
    """True `[B]` where a response is judged and no earlier one of its group has the same tokens."""
    seen: set[tuple[int, ...]] = set()
    rows = zip(
        samples.responses.prompt_index.tolist(),
        samples.responses.response_lists(),
        samples.reward.tolist(),
        strict=True,
    )
    fresh = []
    for prompt, ids, reward in rows:
        key = (prompt, *ids)
        fresh.append(key not in seen and not math.isnan(reward))
        seen.add(key)
    return torch.tensor(fresh, device=samples.reward.device)


def update(
    agent: Agent, experience: Experience, cfg: Config, greedy: Tensor | None = None
) -> dict[str, Tensor]:
    """One gradient step on one rollout; several processes share its groups."""
    samples = experience.samples
    mask, size = samples.responses.loss_mask, samples.group_size
    advantage, returns = token_advantages(agent, experience, cfg, greedy)
    groups, weight = distributed.share(torch.arange(len(samples) // size, device=mask.device))
    rows = (groups[:, None] * size + torch.arange(size, device=mask.device)).flatten()
    part = weight * len(rows) / len(samples)
    responses = samples.responses.select(rows)
    now = log_probs(agent.policy, responses, temperature=experience.temperature, entropy=cfg.entropy_coef > 0)
    own = (slice(None), slice(now.log_prob.shape[1]))
    stats: dict[str, Tensor] = {}
    if cfg.objective == "minimum_risk":
        whole = now.log_prob.sum(-1).view(-1, size)
        reward, fresh = charged_reward(experience, cfg.kl), first_of_its_kind(samples)
        loss = part * minimum_risk(whole, reward[rows].view(-1, size), fresh[rows].view(-1, size), cfg.alpha)
    else:
        elementwise = losses.reinforce(now.log_prob, advantage[rows][own])
        loss = part * constant_mean(elementwise, responses.loss_mask, length=1)
    if agent.critic is not None:
        judged = samples.judged_mask
        error = losses.value_loss(agent.critic(responses), returns[rows][own])
        stats["value_loss"] = weight * token_mean(error, judged[rows][own], judged.sum().clamp_min(1))
        loss = loss + cfg.value_coef * stats["value_loss"]
    if cfg.kl.in_loss:
        assert experience.ref_log_prob is not None
        kl = cfg.kl.per_token(now.log_prob, experience.ref_log_prob[rows][own])
        loss = loss + weight * experience.kl_coef * token_mean(kl, responses.loss_mask, mask.sum())
    if now.entropy is not None:
        loss = loss - weight * cfg.entropy_coef * token_mean(now.entropy, responses.loss_mask, mask.sum())
    agent.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    stats = distributed.combine({"loss": loss.detach(), **stats})
    norm = distributed.clip_and_step(agent.optimizer, cfg.max_grad_norm)
    return stats | {"grad_norm": norm, "advantage_std": advantage[mask].std(correction=0)}


def token_advantages(
    agent: Agent, experience: Experience, cfg: Config, greedy: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Advantages and, of a critic, returns, each `[B, L]`; without a critic both are the advantages."""
    samples = experience.samples
    mask = samples.judged_mask
    if agent.critic is None:
        advantage = advantages(experience, cfg.baseline, cfg.kl, greedy)[:, None].expand(mask.shape)
        returns = advantage
    else:
        args = (experience.kl_coef, experience.ref_log_prob)
        rewards = credit.token_rewards(samples, cfg.credit, cfg.kl, *args)
        _, advantage, returns = credit.estimate(samples, agent.critic, rewards, cfg.credit)
        advantage = advantage * mask
    return whiten(advantage, mask) if cfg.whiten else advantage, returns


def check_baseline(baseline: str, drawn: rollout.Config) -> None:
    """Raise ValueError where a baseline over other responses would find none."""
    if baseline in ("batch", "leave_one_out"):
        require_compared(drawn, f"algo.baseline={baseline}", within=baseline == "leave_one_out")


def train(cfg: Config, task: Task, policy: Any, run: Run, **watching: Unpack[Watching]) -> Agent:
    """Train `policy` for `run.cfg.steps` rollouts on the task's prompts."""
    if cfg.objective == "minimum_risk":
        require_compared(task.config, "algo.objective=minimum_risk", within=True)
    else:
        check_baseline(cfg.baseline, task.config)
    critic = None
    if cfg.baseline == "value":
        critic = distribute(ValueModel(copy.deepcopy(policy)).to(run.device), run.cfg.distributed)
    loop = Loop(task, policy, run, cfg.kl, **watching)
    agent = Agent(cfg, loop.policy, critic)
    step_fn = run.accelerate(update)
    for step in loop.steps(agent):
        set_lr(agent.optimizer, warmup(step, cfg.warmup))
        experience, greedy = loop.draw(), None
        if cfg.baseline == "greedy":
            greedy = task.greedy(loop.policy, experience.prompts, run.rng).reward
        run.log(step, step_fn(agent, experience, cfg, greedy))
    return agent
