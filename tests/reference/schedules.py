"""Slow, obvious twins of rl_core.schedules: every step of the whole schedule in a table."""

import numpy as np


def linear(step, start, end, duration):
    table = np.linspace(start, end, duration + 1)
    return table[min(step, duration)]


def cosine(step, start, end, duration):
    angles = np.linspace(0.0, np.pi, duration + 1)
    share_left = np.cos(angles / 2) ** 2  # (1 + cos) / 2 by the half-angle formula
    return (end + (start - end) * share_left)[min(step, duration)]
