"""Slow, obvious twins of rl_core.distributions and rl_core.normalizers, in float64."""

import math

import numpy as np


def normal_log_prob(action, mean, log_std):
    total = 0.0
    for x, m, s in zip(action, mean, np.exp(log_std), strict=True):
        total += math.log(math.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi)))
    return total


def tanh_normal_log_prob(latent, mean, log_std):
    """Density of tanh(latent) by change of variables, with 1 - tanh^2 = 1 / cosh^2."""
    return normal_log_prob(latent, mean, log_std) + sum(2 * math.log(math.cosh(x)) for x in latent)


def normal_entropy(log_std):
    return sum(0.5 * math.log(2 * math.pi * math.e * math.exp(s) ** 2) for s in log_std)


def masked_probs(logits, mask):
    weights = [math.exp(x) if m else 0.0 for x, m in zip(logits, mask, strict=True)]
    return [w / sum(weights) for w in weights]


def discounted_return_std(rewards, ended, gamma):
    """Standard deviation of all running returns of `rewards [T, N]`, each environment by itself."""
    seen = []
    for n in range(rewards.shape[1]):
        running = 0.0
        for t in range(rewards.shape[0]):
            running = rewards[t, n] + gamma * running
            seen.append(running)
            running = 0.0 if ended[t, n] else running
    return np.std(seen)
