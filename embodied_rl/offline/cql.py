"""Conservative Q-learning with SAC (Kumar et al. 2020, arXiv:2006.04779).

Per critic i, with K actions each from the uniform distribution, pi(. | s) and pi(. | s'), all scored at s:

    L_i  = (Q_i(s, a) - y)^2 + w [ T log sum_j exp((Q_i(s, a_j) - log q(a_j)) / T) - Q_i(s, a) ]     (eq. 4)
    y    = r + gamma min_i Qt_i(s', a'),  a' ~ pi(. | s')
    L_pi = alpha log pi(a | s) - min_i Q_i(s, a),  a ~ pi(. | s);  alpha by dual descent on the entropy -A

With `target_gap` the weight is multiplied by a Lagrange variable that holds the bracket at the gap (eq. 30).

Departures: 1) every loss is taken at the parameters before the step, in one backward pass, as SimpleSAC and
CORL do. 2) Max-backup and the Lagrange variable have SimpleSAC's form: the best of K of the smaller of both
critics (the authors: the smaller of each critic's own best), and `w (bracket - gap)` as the constraint (the
authors: `w bracket - gap`). 3) The Lagrange variable's loss sees the detached bracket, the policy's loss
frozen critics. 4) No warm start by cloning.

Reference results (D4RL -v2, CORL, weight 10): halfcheetah-medium 47.0, hopper-medium 59.1, walker2d-medium
80.8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embodied_rl.data.types import Batch, Spec
from embodied_rl.models.actors import SquashedGaussianActor
from embodied_rl.models.critics import TwinCritic, polyak, target_copy
from embodied_rl.models.mlp import INITS
from embodied_rl.models.optim import adam
from embodied_rl.offline.interfaces import Data, Evaluate
from rl_core.config import choice, require, require_widths
from rl_core.distributions import TanhGaussian
from rl_core.run import Run


@dataclass(kw_only=True, slots=True)
class Config:
    """The values of the authors' code (d67dbe9) for locomotion."""

    batch_size: int = 256
    policy_lr: float = 1e-4  # of the actor and of alpha
    critic_lr: float = 3e-4  # of the critics and of the Lagrange variable
    tau: float = 0.005
    conservative_weight: float = 5.0  # w; 0 is SAC without entropy in the backup
    num_actions: int = 10  # K
    cql_temperature: float = 1.0  # T
    importance_sampling: bool = True  # without: no log q, and the data's action joins the sum
    target_action: str = "sample"  # a' in y: sample | mode (d3rlpy)
    max_backup: bool = False  # y from the best of K sampled actions a'
    target_gap: float | None = None  # of the Lagrange variable; none: fixed weight
    log_lagrange_init: float = 0.0
    clip_diff_min: float = -math.inf  # bounds on the bracket, per transition
    clip_diff_max: float = math.inf
    backup_entropy: bool = False  # subtract alpha log pi(a' | s') in y
    log_std_multiplier: float = 1.0
    log_std_offset: float = 0.0
    learn_log_std: bool = False  # learn the two above (SimpleSAC, CORL)
    hidden: tuple[int, ...] = (256, 256, 256)
    critic_hidden: tuple[int, ...] = ()  # empty: as `hidden`
    actor_init: str = "torch"  # torch | orthogonal
    critic_init: str = "torch"  # torch | orthogonal
    out_gain: float | None = None  # of both networks' last layer

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("batch_size", "num_actions"):
            require(getattr(self, name) >= 1, f"algo.{name}", getattr(self, name), "at least 1")
        for name in ("policy_lr", "critic_lr", "cql_temperature"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"algo.{name}", value, "finite and > 0")
        for name in ("log_lagrange_init", "log_std_multiplier", "log_std_offset", "target_gap"):
            value = getattr(self, name)
            require(value is None or math.isfinite(value), f"algo.{name}", value, "finite")
        require(0 < self.tau <= 1, "algo.tau", self.tau, "in (0, 1]")
        weight, gain = self.conservative_weight, self.out_gain
        require(0 <= weight < math.inf, "algo.conservative_weight", weight, "finite and >= 0")
        require(gain is None or 0 < gain < math.inf, "algo.out_gain", gain, "finite and > 0")
        require(
            self.clip_diff_min < self.clip_diff_max,
            "algo.clip_diff_min",
            self.clip_diff_min,
            "< clip_diff_max",
        )
        require_widths("algo.hidden", self.hidden)
        if self.critic_hidden:
            require_widths("algo.critic_hidden", self.critic_hidden)
        for name in ("actor_init", "critic_init"):
            choice(f"algo.{name}", getattr(self, name), INITS)
        choice("algo.target_action", self.target_action, ["sample", "mode"])
        for name in ("max_backup", "backup_entropy"):
            allowed = self.target_action == "sample" or not getattr(self, name)
            require(allowed, f"algo.{name}", getattr(self, name), "false where algo.target_action=mode")


class Agent(nn.Module):
    """Actor, twin critics with their target, log alpha, the Lagrange variable, one optimizer for all."""

    def __init__(self, cfg: Config, spec: Spec, generator: torch.Generator) -> None:
        super().__init__()
        dims, device = (spec.obs_dim, spec.action_dim), generator.device
        self.actor = SquashedGaussianActor(
            *dims,
            cfg.hidden,
            log_std_multiplier=cfg.log_std_multiplier,
            log_std_offset=cfg.log_std_offset,
            init=cfg.actor_init,
            out_gain=cfg.out_gain,
            generator=generator,
        )
        for scalar in (self.actor.log_std_multiplier, self.actor.log_std_offset):
            scalar.requires_grad_(cfg.learn_log_std)
        self.critic = TwinCritic(
            *dims,
            cfg.critic_hidden or cfg.hidden,
            init=cfg.critic_init,
            out_gain=cfg.out_gain,
            generator=generator,
        )
        self.target_critic = target_copy(self.critic)
        self.log_alpha = nn.Parameter(torch.zeros((), device=device))
        self.log_lagrange = nn.Parameter(torch.tensor(cfg.log_lagrange_init, device=device))
        self.optimizer = adam(
            ([*self.actor.parameters(), self.log_alpha], cfg.policy_lr),
            ([*self.critic.parameters(), self.log_lagrange], cfg.critic_lr),
        )


@dataclass(kw_only=True, slots=True)
class Noise:
    """Standard normal numbers for the actor's samples, and uniform actions."""

    policy: Tensor  # [B, A], the action of the policy loss
    target: Tensor  # [B, M, A], the actions a' of y: M = K with max-backup, else 1; 0 gives the mode
    current: Tensor  # [B, K, A], actions from pi(. | s)
    next: Tensor  # [B, K, A], actions from pi(. | s')
    uniform: Tensor  # [B, K, A] in [-1, 1]


def draw_noise(cfg: Config, batch: Batch, generator: torch.Generator) -> Noise:
    """Draw the random numbers of one update."""
    rows, action_dim = batch.action.shape
    k, m = cfg.num_actions, cfg.num_actions if cfg.max_backup else 1
    normal = torch.randn(rows, 1 + m + 2 * k, action_dim, generator=generator, device=generator.device)
    policy, target, current, next_ = normal.split([1, m, k, k], dim=1)
    if cfg.target_action == "mode":
        target = torch.zeros_like(target)
    uniform = torch.rand(rows, k, action_dim, generator=generator, device=generator.device)
    return Noise(
        policy=policy.squeeze(1), target=target, current=current, next=next_, uniform=uniform * 2.0 - 1.0
    )


def update(agent: Agent, batch: Batch, noise: Noise, cfg: Config) -> dict[str, Tensor]:
    """One step of every network and of the target; returns the losses and means before the step."""
    policy = agent.actor(batch.obs)
    action, log_prob = policy.rsample_with_log_prob(noise.policy)
    alpha = agent.log_alpha.detach().exp()
    target_entropy = -batch.action.shape[1]
    alpha_loss = -(agent.log_alpha * (log_prob.detach() + target_entropy)).mean()
    policy_q = agent.critic(batch.obs, action, frozen=True).amin(0)
    actor_loss = (alpha * log_prob - policy_q).mean()

    with torch.no_grad():
        next_policy = agent.actor(batch.next_obs)
        target = _target(agent, batch, noise, next_policy, alpha, cfg)
        samples, log_q = _sampled_actions(policy, next_policy, noise)
    # the data's action and all samples in one pass of both critics: [2, B, 1 + 3K]
    q_all = agent.critic(batch.obs, torch.cat([batch.action.unsqueeze(1), samples], dim=1))
    q_data = q_all[..., 0]
    td_loss = (q_data - target).square().mean(1).sum()
    diff = conservative_gap(q_all, log_q, cfg)  # [2]
    conservative_loss, lagrange_loss = _weighted(diff, agent.log_lagrange, cfg)

    agent.zero_grad()
    (td_loss + conservative_loss + actor_loss + alpha_loss + lagrange_loss).backward()
    agent.optimizer.step()
    polyak(agent.target_critic, agent.critic, cfg.tau)
    return {
        "td_loss": td_loss.detach(),
        "conservative_gap": diff.detach().mean(),
        "actor_loss": actor_loss.detach(),
        "q": q_data.detach().mean(),
        "policy_q": policy_q.detach().mean(),
        "entropy": -log_prob.detach().mean(),
        "alpha": alpha,
        "lagrange": agent.log_lagrange.detach().exp(),
    }


def conservative_gap(q_all: Tensor, log_q: Tensor, cfg: Config) -> Tensor:
    """The bracket of eq. 4, `[2]`, of values `[2, B, 1 + 3K]` (data's action first) and log q `[B, 3K]`."""
    logits = q_all[..., 1:] - log_q if cfg.importance_sampling else q_all
    soft_max = cfg.cql_temperature * torch.logsumexp(logits / cfg.cql_temperature, dim=-1)
    return (soft_max - q_all[..., 0]).clamp(cfg.clip_diff_min, cfg.clip_diff_max).mean(1)


def _weighted(diff: Tensor, log_lagrange: Tensor, cfg: Config) -> tuple[Tensor, Tensor]:
    """The critics' conservative loss, and the loss that moves the Lagrange variable; both of `diff [2]`."""
    if cfg.target_gap is None:
        return cfg.conservative_weight * diff.sum(), torch.zeros((), device=diff.device)
    excess = cfg.conservative_weight * (diff - cfg.target_gap)
    lagrange = log_lagrange.exp().clamp(max=1e6)
    return lagrange.detach() * excess.sum(), -lagrange * excess.detach().mean()


def _target(
    agent: Agent, batch: Batch, noise: Noise, next_policy: TanhGaussian, alpha: Tensor, cfg: Config
) -> Tensor:
    """The regression target y `[B]`."""
    action, log_prob = _several(next_policy).rsample_with_log_prob(noise.target)
    next_q, best = agent.target_critic(batch.next_obs, action).amin(0).max(dim=1)
    if cfg.backup_entropy:
        next_q = next_q - alpha * log_prob.gather(1, best.unsqueeze(1)).squeeze(1)
    return batch.reward + batch.discount * next_q


def _sampled_actions(policy: TanhGaussian, next_policy: TanhGaussian, noise: Noise) -> tuple[Tensor, Tensor]:
    """Actions `[B, 3K, A]` (uniform, pi(. | s), pi(. | s')) and their log densities `[B, 3K]`."""
    current, current_log_prob = _several(policy).rsample_with_log_prob(noise.current)
    following, following_log_prob = _several(next_policy).rsample_with_log_prob(noise.next)
    uniform_log_prob = torch.full_like(current_log_prob, -noise.uniform.shape[-1] * math.log(2.0))
    actions = torch.cat([noise.uniform, current, following], dim=1)
    return actions, torch.cat([uniform_log_prob, current_log_prob, following_log_prob], dim=1)


def _several(policy: TanhGaussian) -> TanhGaussian:
    """The same distribution with an axis for several samples per state; no second pass of the network."""
    return TanhGaussian(policy.normal.mean.unsqueeze(1), policy.normal.log_std.unsqueeze(1))


def train(cfg: Config, data: Data, run: Run, evaluate: Evaluate) -> Agent:
    """Train for `run.cfg.steps` updates on normalised batches of `data`."""
    agent = Agent(cfg, data.spec, run.rng)
    step_fn = run.accelerate(update)
    for step in run.steps(agent):
        batch = data.sample(run.rng, cfg.batch_size)
        run.log(step, step_fn(agent, batch, draw_noise(cfg, batch, run.rng), cfg))
        if run.should_eval(step):
            run.log(step, evaluate(agent), group="eval")
    return agent
