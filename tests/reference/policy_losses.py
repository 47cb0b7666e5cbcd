"""Slow, obvious twins of rl_core.policy_losses, reductions and kl: token by token."""

import math

import numpy as np


def ratios(log_prob, old_log_prob, mask, level):
    """`level` is "token", "sequence" (product over the row) or "geometric" (its geometric mean)."""
    result = np.ones_like(log_prob)
    for b in range(len(log_prob)):
        row = [log_prob[b, t] - old_log_prob[b, t] for t in range(log_prob.shape[1]) if mask[b, t]]
        for t in range(log_prob.shape[1]):
            if level == "token":
                result[b, t] = math.exp(log_prob[b, t] - old_log_prob[b, t]) if mask[b, t] else 1.0
            else:
                total = sum(row) if level == "sequence" else sum(row) / max(len(row), 1)
                result[b, t] = math.exp(total)
    return result


def clipped_geometric_ratio(log_prob, old_log_prob, advantage, mask, clip_low, clip_high):
    result = np.ones_like(log_prob)
    for b in range(len(log_prob)):
        row = []
        for t in range(log_prob.shape[1]):
            if mask[b, t]:
                step = log_prob[b, t] - old_log_prob[b, t]
                row.append(min(step, clip_high) if advantage[b, t] >= 0 else max(step, -clip_low))
        result[b] = math.exp(sum(row) / max(len(row), 1))
    return result


def clipped_surrogate(ratio, advantage, low, high, dual=math.inf):
    """PPO's clip by cases; `dual` caps the ratio from above where the advantage is negative."""
    loss = np.zeros_like(ratio)
    for i in np.ndindex(ratio.shape):
        if advantage[i] >= 0:
            loss[i] = -advantage[i] * min(ratio[i], 1 + high)
        else:
            loss[i] = -advantage[i] * min(max(ratio[i], 1 - low), dual)
    return loss


def cispo(ratio, log_prob, advantage, low, high):
    return np.vectorize(lambda r, lp, a: -min(max(r, low), high) * a * lp)(ratio, log_prob, advantage)


def sapo(ratio, advantage, tau_up=1.0, tau_down=1.05):
    loss = np.zeros_like(ratio)
    for i in np.ndindex(ratio.shape):
        tau = tau_up if advantage[i] > 0 else tau_down
        loss[i] = -advantage[i] * 4 / tau / (1 + math.exp(-tau * (ratio[i] - 1)))
    return loss


def vespo(log_prob, old_log_prob, advantage, mask):
    loss = np.zeros_like(log_prob)
    for b, t in np.ndindex(log_prob.shape):
        w = math.exp(sum(x - y for x, y, m in zip(log_prob[b], old_log_prob[b], mask[b], strict=True) if m))
        k, lam = (2, 3) if advantage[b, t] >= 0 else (3, 2)
        loss[b, t] = -math.exp(lam) * w**k * math.exp(-lam * w) * advantage[b, t] * log_prob[b, t]
    return loss


def clipped_value_loss(value, old_value, returns, clip_range):
    loss = np.zeros_like(value)
    for i in np.ndindex(value.shape):
        near = min(max(value[i], old_value[i] - clip_range), old_value[i] + clip_range)
        loss[i] = max(0.5 * (value[i] - returns[i]) ** 2, 0.5 * (near - returns[i]) ** 2)
    return loss


def reduce(loss, mask, how, length=1.0):
    """`how` is "token", "sequence" or "constant"."""
    rows = [[x for x, m in zip(r, k, strict=True) if m] for r, k in zip(loss, mask, strict=True)]
    if how == "token":
        return sum(map(sum, rows)) / max(sum(map(len, rows)), 1)
    if how == "sequence":
        return sum(sum(row) / max(len(row), 1) for row in rows) / len(rows)
    return sum(map(sum, rows)) / (len(rows) * length)


def whiten(x, mask, shift_mean=True):
    kept = x[mask]
    mean, var = kept.mean(), kept.var(ddof=1)
    return np.where(mask, (x - mean) / np.sqrt(var + 1e-8) + (0.0 if shift_mean else mean), 0.0)


def kl_estimates(log_prob, ref_log_prob):
    """k1, k2, k3 as written in the blog post, with r = q / p."""
    r = np.exp(ref_log_prob - log_prob)
    return -np.log(r), np.log(r) ** 2 / 2, (r - 1) - np.log(r)


def categorical_kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
