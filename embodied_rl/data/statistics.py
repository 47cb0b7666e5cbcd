"""Mean and standard deviation of observations, in one pass that holds a piece of the data at a time."""

from __future__ import annotations

import numpy as np

from embodied_rl.data.episodes import chunks
from rl_core.progress import counting

EPS = 1e-3  # added to the standard deviation, as TD3+BC and CORL do


def mean_std(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation + 1e-3 of each feature over all rows of `[R, ...]`, flat, `[D]` float32.

    Pieces are merged with the formula of Chan et al. (1983), which stays accurate where mean >> std.
    """
    count = 0
    mean = np.zeros(int(np.prod(array.shape[1:])))
    squares = np.zeros_like(mean)  # sum of squared deviations from the mean
    with counting("observation statistics", len(array)) as progress:
        for _, part in chunks(array):
            flat = part.reshape(len(part), -1).astype(np.float64)
            delta = flat.mean(axis=0) - mean
            squares += flat.var(axis=0) * len(flat) + delta**2 * count * len(flat) / (count + len(flat))
            mean += delta * len(flat) / (count + len(flat))
            count += len(flat)
            progress(count)
    std = np.sqrt(squares / count) + EPS
    return mean.astype(np.float32), std.astype(np.float32)
