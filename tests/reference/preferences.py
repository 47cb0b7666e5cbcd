"""Slow, obvious twins of rl_core.preferences: the formulas of the papers, one pair at a time, on Python
floats.
"""

import math


def sigma(x):
    return 1.0 / (1.0 + math.exp(-x))


def log_sigma(x):
    return math.log(sigma(x))


# every member of the family of pairs: (score of the chosen, of the rejected, beta, label smoothing) -> loss
PAIR_LOSSES = {
    "sigmoid_loss": lambda w, r, b, e: -log_sigma(b * (w - r)),
    "smoothed_loss": lambda w, r, b, e: -(1 - e) * log_sigma(b * (w - r)) - e * log_sigma(-b * (w - r)),
    "robust_loss": lambda w, r, b, e: (
        (-(1 - e) * log_sigma(b * (w - r)) + e * log_sigma(-b * (w - r))) / (1 - 2 * e)
    ),
    "hinge_loss": lambda w, r, b, e: max(0.0, 1 - b * (w - r)),
    "ipo_loss": lambda w, r, b, e: (w - r - 1 / (2 * b)) ** 2,
    "exo_loss": lambda w, r, b, e: sum(
        q * math.log(q / p) for q, p in ((sigma(b * (w - r)), 1 - e), (1 - sigma(b * (w - r)), e))
    ),
    "nca_loss": lambda w, r, b, e: -log_sigma(b * w) - 0.5 * log_sigma(-b * w) - 0.5 * log_sigma(-b * r),
    "bco_pair_loss": lambda w, r, b, e: -log_sigma(b * w) - log_sigma(-b * r),
    "sppo_loss": lambda w, r, b, e: (w - 0.5 / b) ** 2 + (r + 0.5 / b) ** 2,
    "apo_zero_loss": lambda w, r, b, e: 1 - sigma(b * w) + sigma(b * r),
    "apo_down_loss": lambda w, r, b, e: sigma(b * w) + 1 - sigma(b * (w - r)),
    "discopop_loss": lambda w, r, b, e: (
        (1 - sigma(b * (w - r) / 0.05)) * -log_sigma(b * (w - r))
        + sigma(b * (w - r) / 0.05) * math.exp(-b * (w - r))
    ),
    "odds_ratio_loss": lambda w, r, b, e: (
        -log_sigma(math.log(math.exp(w) / (1 - math.exp(w))) - math.log(math.exp(r) / (1 - math.exp(r))))
    ),
}


def aot_loss(better, worse, beta, label_smoothing):
    pairs = zip(sorted(better), sorted(worse), strict=True)
    return [PAIR_LOSSES["smoothed_loss"](w, r, beta, label_smoothing) for w, r in pairs]


def on_policy_weight(log_prob):
    """Of one response: the geometric mean of its tokens' probabilities."""
    return math.prod(math.exp(x) for x in log_prob) ** (1 / len(log_prob))


def kto_loss(score, desirable, beta, reference_point, desirable_weight, undesirable_weight):
    if desirable:
        return desirable_weight * (1 - sigma(beta * (score - reference_point)))
    return undesirable_weight * (1 - sigma(beta * (reference_point - score)))


def bco_loss(score, desirable, beta, shift):
    return -log_sigma(beta * score - shift) if desirable else -log_sigma(-(beta * score - shift))


def plackett_luce_loss(scores, rank, mask):
    """Each item against itself and all that rank strictly below it."""
    total = 0.0
    for i in range(len(scores)):
        if mask[i]:
            rivals = [scores[j] for j in range(len(scores)) if mask[j] and (j == i or rank[j] > rank[i])]
            total -= math.log(math.exp(scores[i]) / sum(map(math.exp, rivals)))
    return total
