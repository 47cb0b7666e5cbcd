"""Slow, obvious twin of rl_core.ppo.ppo_loss: step by step, on NumPy arrays `[b, L]`."""

import math

import numpy as np


def ppo_loss(log_prob, entropy, value, old_log_prob, old_value, advantage, returns, mask, config):
    """The loss and the scalars to log, as Python floats."""
    policy, values, entropies, kls, clipped, ratios = [], [], [], [], [], [1.0]
    for i in np.ndindex(mask.shape):
        if not mask[i]:
            continue
        ratio = math.exp(log_prob[i] - old_log_prob[i])
        near = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
        policy.append(-min(ratio * advantage[i], near * advantage[i]))
        moved = min(max(value[i] - old_value[i], -config.value_clip), config.value_clip)
        values.append(max((value[i] - returns[i]) ** 2, (old_value[i] + moved - returns[i]) ** 2) / 2)
        entropies.append(entropy[i])
        kls.append(ratio - 1 - math.log(ratio))
        clipped.append(float(ratio != near))
        ratios.append(ratio)
    stats = {
        "policy_loss": np.mean(policy),
        "value_loss": np.mean(values),
        "entropy": np.mean(entropies),
        "approx_kl": np.mean(kls),
        "clip_fraction": np.mean(clipped),
        "ratio_max": max(ratios),
    }
    bonus = config.entropy_coef * stats["entropy"]
    return stats["policy_loss"] + config.value_coef * stats["value_loss"] - bonus, stats
