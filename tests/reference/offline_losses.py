"""Offline RL losses as CORL and the papers write them: separate networks, one row at a time.

Every function returns losses that can be differentiated; `critics` is a list of functions of (obs, action).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution

Critic = Callable[[Tensor, Tensor], Tensor]


def members(critic) -> list[Critic]:
    """Separate functions that share the stacked parameters of a TwinCritic."""

    def member(index: int) -> Critic:
        def q(obs: Tensor, action: Tensor) -> Tensor:
            x = torch.cat([obs, action])
            for layer, (weight, bias) in enumerate(zip(critic.weights, critic.biases, strict=True)):
                x = nn.functional.linear(x if layer == 0 else x.relu(), weight[index].T, bias[index, 0])
            return x[0]

        return q

    return [member(i) for i in range(len(critic.weights[0]))]


def imitation(actor, kind: str, s: Tensor, a: Tensor) -> Tensor:
    """Distance of one action to the policy: squared error, or negative log density."""
    if kind == "deterministic":
        return sum((x - y) ** 2 for x, y in zip(torch.tanh(actor.net(s)), a, strict=True))
    if kind == "gaussian":
        return -Normal(torch.tanh(actor.net(s)), actor.log_std.clamp(-5, 2).exp()).log_prob(a).sum()
    return -tanh_normal(actor, s).log_prob(a).sum()


def bc(batch, actor, kind: str) -> Tensor:
    """Mean distance of the data's actions."""
    rows = zip(batch.obs, batch.action, strict=True)
    return sum(imitation(actor, kind, s, a) for s, a in rows) / len(batch.obs)


def iql(batch, critics, targets, value, actor, cfg) -> tuple[Tensor, Tensor, Tensor]:
    """Value, critic and actor loss."""
    value_loss = q_loss = actor_loss = torch.zeros(())
    rows = len(batch.reward)
    for i in range(rows):
        s, a = batch.obs[i], batch.action[i]
        target_q = min(q(s, a).item() for q in targets)
        u = target_q - value(s)
        value_loss = value_loss + abs(cfg.expectile - float(u < 0)) * u**2 / rows
        y = batch.reward[i] + batch.discount[i] * value(batch.next_obs[i]).item()
        for q in critics:
            q_loss = q_loss + (q(s, a) - y) ** 2 / rows
        weight = min(math.exp(cfg.temperature * u.item()), cfg.max_weight)
        actor_loss = actor_loss + weight * imitation(actor, cfg.actor, s, a) / rows
    return value_loss, q_loss, actor_loss


def td3_bc_critic(batch, noise, critics, targets, target_actor) -> Tensor:
    """Critic loss with the smoothed target action."""
    loss = torch.zeros(())
    rows = len(batch.reward)
    for i in range(rows):
        next_action = (target_actor(batch.next_obs[i]) + noise[i]).clamp(-1, 1)
        next_q = min(q(batch.next_obs[i], next_action).item() for q in targets)
        y = batch.reward[i] + batch.discount[i] * next_q
        for q in critics:
            loss = loss + (q(batch.obs[i], batch.action[i]) - y) ** 2 / rows
    return loss


def td3_bc_actor(batch, first_critic, actor, alpha) -> Tensor:
    """Actor loss of eq. 3 with lambda of eq. 5."""
    rows, action_dim = batch.action.shape
    actions = [actor(s) for s in batch.obs]
    values = [first_critic(s, a) for s, a in zip(batch.obs, actions, strict=True)]
    scale = alpha / (sum(abs(q.item()) for q in values) / rows)
    imitation = sum(((a - b) ** 2).sum() for a, b in zip(actions, batch.action, strict=True))
    return -scale * sum(values) / rows + imitation / (rows * action_dim)


def tanh_normal(actor, obs: Tensor) -> TransformedDistribution:
    """The policy of SAC and CQL."""
    mean, log_std = actor.net(obs).chunk(2, dim=-1)
    log_std = (actor.log_std_multiplier * log_std + actor.log_std_offset).clamp(-20, 2)
    return TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))


def draw(policy: TransformedDistribution, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The sample that belongs to standard normal `noise`, and its log density."""
    action = torch.tanh(policy.base_dist.mean + policy.base_dist.stddev * noise)
    return action, policy.log_prob(action).sum(-1)


def cql(batch, noise, critics, targets, actor, log_alpha, log_lagrange, cfg) -> dict[str, Tensor]:
    """Losses of SimpleSAC's CQL: alpha, actor, TD, conservative, Lagrange."""
    rows, action_dim = batch.action.shape
    alpha = log_alpha.exp().item()
    zero = torch.zeros(())
    losses = {"alpha": zero, "actor": zero, "td": zero}
    diffs = [zero for _ in critics]
    for i in range(rows):
        s, a, s2 = batch.obs[i], batch.action[i], batch.next_obs[i]
        pi, log_pi = draw(tanh_normal(actor, s), noise.policy[i])
        losses["alpha"] = losses["alpha"] - log_alpha * (log_pi.item() - action_dim) / rows
        losses["actor"] = losses["actor"] + (alpha * log_pi - min(q(s, pi) for q in critics)) / rows
        candidates = []
        for z in noise.target[i]:
            a2, log_pi2 = draw(tanh_normal(actor, s2), z)
            candidates.append((min(q(s2, a2).item() for q in targets), log_pi2.item()))
        next_q, next_log_pi = max(candidates)
        y = batch.reward[i] + batch.discount[i] * (next_q - cfg.backup_entropy * alpha * next_log_pi)
        samples = [(u, torch.tensor(action_dim * math.log(0.5))) for u in noise.uniform[i]]
        for obs, numbers in ((s, noise.current[i]), (s2, noise.next[i])):
            samples += [draw(tanh_normal(actor, obs), z) for z in numbers]
        for k, q in enumerate(critics):
            losses["td"] = losses["td"] + (q(s, a) - y) ** 2 / rows
            if cfg.importance_sampling:
                terms = [q(s, b.detach()) - log_q.item() for b, log_q in samples]
            else:
                terms = [q(s, b.detach()) for b, _ in samples] + [q(s, a)]
            total = sum(torch.exp(term / cfg.cql_temperature) for term in terms)
            diff = cfg.cql_temperature * torch.log(total) - q(s, a)
            diffs[k] = diffs[k] + diff.clamp(cfg.clip_diff_min, cfg.clip_diff_max) / rows
    losses["gap"] = sum(diffs) / len(diffs)
    w = cfg.conservative_weight
    if cfg.target_gap is None:
        losses["conservative"], losses["lagrange"] = w * sum(diffs), zero
    else:
        factor = log_lagrange.exp()
        excess = [w * (diff - cfg.target_gap) for diff in diffs]
        losses["conservative"] = factor.item() * sum(excess)
        losses["lagrange"] = -factor * sum(e.item() for e in excess) / len(excess)
    return losses
