"""How sure a least-squares fit to motion may be, and whether the motion told anything.

Errors of replayed motion are neither white nor equally large: an observer feeds the encoders' noise back, and
where servos chatter or joints stick a small error grows for a while. Textbook intervals, and clusters of a
second, are then several times too narrow. What may be relied on is that stretches of some seconds err
independently of each other, so the spread of the fits that leave one stretch out is the uncertainty: the
cluster jackknife, linearised (CR3; MacKinnon, Nielsen and Webb 2023, arXiv:2301.04527), with Student's t of
as many degrees of freedom as there are stretches, less one. Around a side valley it knows nothing of the
others; where every episode has a fit of its own, their spread does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

PRIOR_STD = 12.0**-0.5  # of a uniform distribution over the bounds, as a share of them
_SHARE = 20  # of all motion is one stretch,
_LEAST, _MOST = 10, 30  # but of at least and at most so many steps of 0.1 s


def stretches(running: NDArray[np.bool_]) -> Ids:
    """Number `[steps taken]` of the stretch that each step of the episodes `[E, T]` belongs to.

    A stretch is a twentieth of the motion, 1 s at least and 3 s at most; none crosses episodes.
    """
    length = int(np.clip(running.sum() // _SHARE, _LEAST, _MOST))
    episodes, t = np.nonzero(running)
    pairs = np.column_stack([episodes, t // length])
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)


def covariance(jacobian: Floats, residual: Floats, cluster: Ids) -> Floats:
    """CR3 covariance `[P, P]` of a fit from its Jacobian `[R, P]`, residuals `[R]` and their clusters `[R]`.

    Sum over clusters g of d_g d_g^T (G - 1) / G, where d_g = (H - H_g)^-1 J_g^T r_g is what leaving g out
    moves the fit by. With one row per cluster it is the jackknife. Raises LinAlgError where a single cluster
    holds all that is known of some parameter.
    """
    num = int(cluster.max()) + 1
    information = np.stack([jacobian[cluster == g].T @ jacobian[cluster == g] for g in range(num)])
    scores = np.stack([jacobian[cluster == g].T @ residual[cluster == g] for g in range(num)])
    moved = np.linalg.solve(information.sum(axis=0) - information, scores[..., None])[..., 0]
    result: Floats = (num - 1) / num * moved.T @ moved
    return result


def pooled(values: Floats, weights: NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean `[P]` of independent fits `[E, P]` with `weights [E]`, and its covariance `[P, P]`."""
    share = weights / weights.sum()
    mean = share @ values
    apart = share[:, None] * (values - mean)
    return mean, len(values) / (len(values) - 1) * apart.T @ apart


def half_width(cov: Floats, clusters: int) -> Floats:
    """Half of the 95 % intervals `[P]`: Student's t with one degree of freedom per cluster, less one."""
    half: Floats = stats.t.ppf(0.975, clusters - 1) * np.sqrt(np.diag(cov))
    return half


def share_left(jacobian: Floats) -> Floats:
    """Uncertainty after the data over that before, `[P]`: 1 where the data say nothing, towards 0 otherwise.

    Of a Gaussian with the bounds' variance before, and the information J^T J of residuals in units of noise,
    for parameters as shares of their bounds.
    """
    information = jacobian.T @ jacobian + np.eye(jacobian.shape[1]) / PRIOR_STD**2
    return np.sqrt(np.diag(np.linalg.inv(information))) / PRIOR_STD
