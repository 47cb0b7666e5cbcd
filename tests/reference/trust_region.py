"""Slow, obvious twin of rl_core.trust_region for a linear softmax policy, with matrices written out."""

import math

import numpy as np


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def mean_kl(old, new):
    return sum(math.exp(p) * (p - q) for p, q in zip(old.ravel(), new.ravel(), strict=True)) / len(old)


def fisher(features, log_probs):
    """Mean over states of E_a[g g^T], g the gradient of log pi(a | s) to the weights `[arms, features]`."""
    num_arms, size = log_probs.shape[1], log_probs.shape[1] * features.shape[1]
    total = np.zeros((size, size))
    for x, row in zip(features, np.exp(log_probs), strict=True):
        for arm in range(num_arms):
            gradient = np.outer(np.eye(num_arms)[arm] - row, x).ravel()
            total += row[arm] * np.outer(gradient, gradient)
    return total / len(features)


def trpo_step(weights, features, arms, advantage, config):
    """New weights `[arms, features]` and the accepted share of the full step, 0 where none was."""
    old = log_softmax(features @ weights.T)

    def surrogate(candidate):
        new = log_softmax(features @ candidate.T)
        return np.mean([math.exp(new[i, a] - old[i, a]) * advantage[i] for i, a in enumerate(arms)])

    gradient = np.zeros_like(weights)
    for x, row, arm, gain in zip(features, np.exp(old), arms, advantage, strict=True):
        gradient += gain * np.outer(np.eye(len(row))[arm] - row, x) / len(features)
    matrix = fisher(features, old) + config.damping * np.eye(weights.size)
    direction = np.linalg.solve(matrix, gradient.ravel())
    step = math.sqrt(2 * config.max_kl / (direction @ matrix @ direction)) * direction
    share = 1.0
    for _ in range(config.backtracks + 1):
        candidate = weights + share * step.reshape(weights.shape)
        improvement = surrogate(candidate) - surrogate(weights)
        enough = improvement > config.accept_ratio * share * (gradient.ravel() @ step)
        if enough and mean_kl(old, log_softmax(features @ candidate.T)) <= config.max_kl:
            return candidate, share
        share /= 2
    return weights, 0.0
