"""PPO with four models: policy, critic, reference, rewards (Stiennon et al. 2020, Ouyang et al. 2022).

    r_t = score at the last token - beta k1(pi, ref)_t        (arXiv:1909.08593, eq. 2; `kl.place=reward`)
    A = GAE(r, V),  L = clipped surrogate + value_coef clipped value loss - ptx_coef log pi(demonstration)

The update is `rl_core.ppo.ppo_update`, the same as robots'. `ppo.clip_low=ppo.clip_high=inf` with
`old_kl_coef` is the KL-penalty form (arXiv:1707.06347, eq. 8).

Departures: the critic starts from the policy's weights with a zero output, or from the model passed to
`train`, or shares the policy's trunk (`critic=shared`). The pretraining gradient is a mean over tokens. The
pretraining coefficient of InstructGPT's paper, 27.8, is on sums that it does not define.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_align.data.batches import Responses
from llm_align.data.packing import pack
from llm_align.data.sampler import TokenBudget
from llm_align.data.tokens import Encoded, collate
from llm_align.models import optim
from llm_align.models.log_probs import log_probs
from llm_align.models.parallel import distribute
from llm_align.models.value_head import ValueModel
from llm_align.online import credit
from llm_align.online.loop import Experience, Loop, Watching
from llm_align.online.reference import KL
from llm_align.online.rollout import Task
from rl_core import ppo
from rl_core.config import choice, require
from rl_core.kl import k3
from rl_core.reductions import token_mean
from rl_core.run import Run
from rl_core.schedules import set_lr, warmup


def _update_defaults() -> ppo.Config:
    return ppo.Config(epochs=4, minibatch_size=16, value_clip=0.2, value_coef=0.1, max_grad_norm=1.0)


@dataclass(kw_only=True, slots=True)
class Config:
    """Defaults close to Stiennon et al.'s."""

    lr: float = 1e-6
    critic_lr: float = 1e-5
    warmup: int = 0  # steps
    ppo: ppo.Config = field(default_factory=_update_defaults)
    credit: credit.Config = field(default_factory=credit.Config)
    kl: KL = field(default_factory=lambda: KL(coef=0.05, estimator="k1", place="reward"))
    old_kl_coef: float = 0.0  # price on the KL from the sampler
    critic: str = "copy"  # copy: a trunk of its own, from the policy | shared: the policy's
    ptx_coef: float = 0.0  # PPO-ptx; needs demonstrations
    ptx_batch_size: int = 16

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("lr", "critic_lr", "ptx_batch_size"):
            require(getattr(self, name) > 0, f"algo.{name}", getattr(self, name), "> 0")
        for name in ("warmup", "old_kl_coef", "ptx_coef"):
            require(getattr(self, name) >= 0, f"algo.{name}", getattr(self, name), ">= 0")
        choice("algo.critic", self.critic, ["copy", "shared"])


def new_critic(cfg: Config, policy: Any) -> ValueModel:
    """A critic on the policy's own trunk, or on a copy of it."""
    return ValueModel(policy if cfg.critic == "shared" else copy.deepcopy(policy))


class Agent(nn.Module):
    """Policy, critic and their optimizer; both stay in evaluation mode, as dropout would move the ratio."""

    def __init__(self, cfg: Config, policy: Any, critic: ValueModel | None = None) -> None:
        super().__init__()
        self.policy = policy.eval()
        self.shared = cfg.critic == "shared"
        critic = critic or new_critic(cfg, policy)
        self.critic = critic.eval()
        valued = critic.output if self.shared else critic
        self.optimizer = optim.plain_adamw((policy, cfg.lr), (valued, cfg.critic_lr))


def update(
    agent: Agent,
    experience: Experience,
    cfg: Config,
    demonstrations: Callable[[], Responses] | None,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Credit, then `ppo_update` on whole responses; `demonstrations()` draws a batch of them for PPO-ptx."""
    samples, ref = experience.samples, experience.ref_log_prob
    responses, mask = samples.responses, samples.responses.loss_mask
    rewards = credit.token_rewards(samples, cfg.credit, cfg.kl, experience.kl_coef, ref)
    values, advantage, returns = credit.estimate(samples, agent.critic, rewards, cfg.credit)
    width = mask.shape[1]

    def evaluate(rows: ppo.Rollout) -> ppo.Evaluation:
        assert rows.mask is not None
        index = rows.inputs["row"]
        log_prob, entropy, value = _forward(agent, responses.select(index), cfg, experience.temperature)
        log_prob, entropy, value = (F.pad(x, (0, width - x.shape[1])) for x in (log_prob, entropy, value))
        penalties = []
        if cfg.kl.in_loss:
            assert ref is not None
            kl = token_mean(cfg.kl.per_token(log_prob, ref[index]), rows.mask)
            penalties.append(experience.kl_coef * kl)
        if cfg.old_kl_coef:
            penalties.append(cfg.old_kl_coef * token_mean(k3(rows.log_prob, log_prob), rows.mask))
        if cfg.ptx_coef and demonstrations is not None:
            shown = demonstrations()
            penalties.append(
                -cfg.ptx_coef * token_mean(log_probs(agent.policy, shown).log_prob, shown.loss_mask)
            )
        penalty = torch.stack(penalties).sum() if penalties else None
        return ppo.Evaluation(log_prob=log_prob, entropy=entropy, value=value, penalty=penalty)

    rollout = ppo.Rollout(
        inputs={"row": torch.arange(len(samples), device=mask.device)},
        log_prob=samples.log_prob,
        value=values,
        advantage=advantage,
        returns=returns,
        mask=mask,
    )
    return ppo.ppo_update(evaluate, agent.optimizer, rollout, cfg.ppo, generator)


def _forward(
    agent: Agent, responses: Responses, cfg: Config, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and values, each `[b, L]`."""
    options: dict[str, Any] = {"temperature": temperature, "entropy": cfg.ppo.entropy_coef > 0}
    if agent.shared:
        now, value = agent.critic.policy_and_values(responses, **options)
    else:
        packed = pack(responses)
        now = log_probs(agent.policy, responses, packed=packed, **options)
        value = agent.critic(responses, packed)
    # without a bonus the entropy is only logged, and the tokens' own log-probabilities estimate it
    entropy = -now.log_prob.detach() if now.entropy is None else now.entropy
    return now.log_prob, entropy, value


class Demonstrations:
    """Batches of demonstrations for the pretraining gradient, resumable."""

    def __init__(self, encoded: Sequence[Encoded], batch_size: int, run: Run) -> None:
        self._encoded, self._device = encoded, run.device
        self._order = TokenBudget([1] * len(encoded), len(encoded), run.cfg.seed, max_rows=batch_size)

    def __call__(self) -> Responses:
        """The next batch."""
        return collate([self._encoded[row] for row in self._order.next()]).to(self._device)

    def state_dict(self) -> dict[str, Any]:
        """The position in the demonstrations."""
        return self._order.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._order.load_state_dict(state_dict)


def train(
    cfg: Config,
    task: Task,
    policy: Any,
    run: Run,
    *,
    critic: ValueModel | None = None,
    demonstrations: Sequence[Encoded] = (),
    **watching: Unpack[Watching],
) -> Agent:
    """Train `policy` for `run.cfg.steps` rollouts on the task's prompts, with `critic` if one is passed."""
    needs = cfg.ptx_coef == 0 or len(demonstrations) > 0
    require(needs, "algo.ptx_coef", cfg.ptx_coef, "0 without data.demonstrations")
    how = run.cfg.distributed
    require(
        how == "ddp" or cfg.critic == "copy", "algo.critic", cfg.critic, "copy with run.distributed=fsdp2"
    )
    critic = distribute((critic or new_critic(cfg, policy)).to(run.device), how)
    loop = Loop(task, policy, run, cfg.kl, **watching)
    agent = Agent(cfg, loop.policy, critic)
    shown = Demonstrations(demonstrations, cfg.ptx_batch_size, run) if cfg.ptx_coef else None
    stateful = {"demonstrations": shown} if shown is not None else {}
    step_fn = run.accelerate(update)
    for step in loop.steps(agent, **stateful):
        set_lr(agent.optimizer, warmup(step, cfg.warmup))
        judged = loop.draw().judged()
        if judged is not None:
            run.log(step, step_fn(agent, judged, cfg, shown, run.rng))
    return agent
