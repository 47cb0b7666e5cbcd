"""Slow, obvious twins of rl_core.scan and rl_core.advantages: one loop over environments, one over time."""

import numpy as np


def scan(x, decay):
    y = np.zeros_like(x)
    for row in np.ndindex(x.shape[:-1]):
        following = 0.0
        for t in reversed(range(x.shape[-1])):
            following = x[row][t] + decay[row][t] * following
            y[row][t] = following
    return y


def gae(rewards, values, next_values, terminated, ended, gamma, lam, mask=None):
    mask = np.ones_like(ended) if mask is None else mask
    advantages, returns = np.zeros_like(rewards), np.zeros_like(rewards)
    for row in np.ndindex(rewards.shape[:-1]):
        trace = 0.0
        for t in reversed(range(rewards.shape[-1])):
            if ended[row][t]:
                trace = 0.0
            if not mask[row][t]:
                continue
            bootstrap = 0.0 if terminated[row][t] else gamma * next_values[row][t]
            trace = rewards[row][t] + bootstrap - values[row][t] + gamma * lam * trace
            advantages[row][t] = trace
            returns[row][t] = trace + values[row][t]
    return advantages, returns


def lambda_returns(rewards, next_values, terminated, ended, gamma, lam):
    returns = np.zeros_like(rewards)
    last = rewards.shape[-1] - 1
    for row in np.ndindex(rewards.shape[:-1]):
        for t in reversed(range(last + 1)):
            following = next_values[row][t]
            if t < last and not ended[row][t]:
                following = (1 - lam) * following + lam * returns[row][t + 1]
            returns[row][t] = rewards[row][t] + (0.0 if terminated[row][t] else gamma * following)
    return returns


def discounted_returns(rewards, ended, gamma):
    return scan(rewards, gamma * (1.0 - ended))


def v_trace(rewards, values, next_values, terminated, ended, gamma, rho, c):
    """Equation 1 of the paper as a double sum, one term per pair of steps."""
    targets, advantages = np.zeros_like(rewards), np.zeros_like(rewards)
    num_steps = rewards.shape[-1]
    for row in np.ndindex(rewards.shape[:-1]):
        successor = np.where(terminated[row], 0.0, next_values[row])
        delta = rho[row] * (rewards[row] + gamma * successor - values[row])
        for s in range(num_steps):
            weight, targets[row][s] = 1.0, values[row][s]
            for t in range(s, num_steps):
                targets[row][s] += weight * delta[t]
                if ended[row][t]:
                    break
                weight *= gamma * c[row][t]
        for s in range(num_steps):
            following = successor[s]
            if s + 1 < num_steps and not ended[row][s]:
                following = successor[s] + targets[row][s + 1] - values[row][s + 1]
            advantages[row][s] = rho[row][s] * (rewards[row][s] + gamma * following - values[row][s])
    return advantages, targets


def group_relative(rewards, baseline, scale, eps=1e-4):
    """`baseline` is "mean" or "others", `scale` is "none", "group" or "batch"; NaN means not judged."""
    result = np.zeros_like(rewards)
    judged = ~np.isnan(rewards)
    for p, row in enumerate(rewards):
        for g, reward in enumerate(row):
            if not judged[p, g]:
                continue
            group = [r for k, r in enumerate(row) if judged[p, k] and (baseline == "mean" or k != g)]
            result[p, g] = reward - np.mean(group) if group else 0.0
            pool = {"none": [], "group": row[judged[p]], "batch": rewards[judged]}[scale]
            if len(pool):
                result[p, g] /= (np.std(pool, ddof=1) if len(pool) > 1 else 0.0) + eps
    return result


def sum_of_zscores(rewards, weights):
    """Rewards `[K, P, G]` as one `[P, G]`, NaN where all of them are."""
    scores = [group_relative(reward, "mean", "group") for reward in rewards]
    total = sum(weight * score for weight, score in zip(weights, scores, strict=True))
    return np.where(np.isnan(rewards).all(0), np.nan, total)
