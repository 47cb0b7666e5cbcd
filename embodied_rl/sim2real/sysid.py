"""System identification: parameters of a desk, with their uncertainty, from recorded motion.

Box-constrained nonlinear least squares of replayed against recorded motion, solved by `mujoco.minimize`, the
solver of `mujoco.sysid`, on batched rollouts. (The rest of `mujoco.sysid` compiles one model per candidate,
which `mujoco.batch` makes unnecessary, and needs packages that the project does not.) Then

* which parameters the motion says anything about: those whose uncertainty after the data is less than half of
  that before, when all that was known were the bounds. The rest keep their nominal value and are reported as
  not identifiable, and the others are fitted again without them;
* how sure one may be: the covariance is the sandwich estimator clustered over stretches of one second,
  because the errors of neighbouring steps are not independent; intervals are Student's t.

`Belief` turns fits into a distribution to draw from and combines rounds of it, as SimOpt does (Chebotar et
al. 2019, arXiv:1810.05687), which samples parameters where this takes gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mujoco import minimize
from numpy.typing import NDArray
from scipy import stats

from embodied_rl.sim2real import randomization
from embodied_rl.sim2real.replay import CORRECTIONS, Motion, Replay
from envs.desk.parameters import Parameter, table
from envs.desk.scene import shared_model
from rl_core.config import choice, require

Floats = NDArray[np.float64]

# Standard deviations assumed at first, in the channel's unit (rad or m); the residuals then tell.
_NOISE = {"joints": 1e-3, "width": 1e-3, "blocks": 2e-3, "furniture": 1e-3}
# Of finite differences, as a share of the bounds. Servos at their force limit chatter, so that residuals are
# rough at a scale of 1e-3: there a derivative says nothing about where to go.
_STEP = 0.03
_POLISH = 8
_TOLERANCE = 2e-3  # of a step of the solver, likewise
_CLUSTER = 10  # steps whose errors may depend on each other
_TOLD = 0.5  # of the spread between the bounds: with more of it left, the data said nothing
_PRIOR_STD = 12.0**-0.5  # of a uniform distribution over the bounds, as a share of them


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a motion tells about parameters; all in the parameters' units."""

    names: tuple[str, ...]  # identifiable ones, as are the rows of everything below
    value: Floats  # [P]
    covariance: Floats  # [P, P]
    low: Floats  # [P] 95 % intervals
    high: Floats  # [P]
    unidentifiable: dict[str, float]  # name: share of the spread between its bounds that the data left
    noise: dict[str, float]  # channel: root mean square of what the fit leaves unexplained
    before: dict[str, float]  # the same under the values at the start
    seconds: float  # of motion

    def summary(self) -> str:
        """What was found, a line each."""
        rows = zip(self.names, self.value, self.low, self.high, strict=True)
        lines = [f"{name} = {value:.4g}  [{low:.4g}, {high:.4g}]" for name, value, low, high in rows]
        lines += [f"{name}: not identifiable from this motion" for name in self.unidentifiable]
        lines += [f"{name}: {self.before[name]:.3g} unexplained before, {rms:.3g} after"
                  for name, rms in self.noise.items()]  # fmt: skip
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = zip(self.names, self.value, self.low, self.high, strict=True)
        return {
            "parameters": {n: {"value": float(v), "ci95": [float(a), float(b)]} for n, v, a, b in rows},
            "covariance": self.covariance.tolist(),
            "not_identifiable": dict(self.unidentifiable),
            "noise": dict(self.noise),
            "noise_before": dict(self.before),
            "seconds": self.seconds,
        }


def identify(
    motion: Motion,
    names: Sequence[str],
    *,
    channels: Sequence[str] = ("joints",),
    start: Mapping[str, float] | None = None,
    contacts: bool = True,
    num_threads: int | None = None,
) -> Fit:
    """Fit the named parameters of `envs.desk.parameters` to a recorded motion.

    `start` holds values other than the nominal ones, of parameters to fit or to leave as they are; without
    `contacts` nothing touches anything, which is twice as fast and right where the arm moved freely. Raises
    ValueError for an unknown name (with the nearest), for none at all, and for a motion that is too short.
    """
    require(bool(names), "parameters", list(names), "at least one name")
    replay = Replay(motion, channels, most=max(3, 2 * len(names)), contacts=contacts, num_threads=num_threads)
    return _Problem(replay, names, start).solve()


class _Problem:
    """Residuals in units of the noise, over parameters as shares `u` of their bounds, `[P]` in [0, 1].

    The scale is logarithmic where the bounds are positive: twice the damping does as much as half of it, and
    the residuals are more nearly linear.
    """

    def __init__(self, replay: Replay, names: Sequence[str], start: Mapping[str, float] | None) -> None:
        self._replay = replay
        there = replay.parameters.table
        for name in (*names, *(start or {})):
            choice("parameter", name, there)
        self._known: list[Parameter] = [there[name] for name in names]
        replay.parameters.set(dict(start or {}))
        self._low, self._high = (np.array([getattr(p, end) for p in self._known]) for end in ("low", "high"))
        self._log = self._low > 0
        first = np.array([(start or {}).get(p.name, p.nominal) for p in self._known])
        self._u0 = self._shares(first)
        self._measured = replay.measured()
        self._noise = {name: _NOISE[name] for name in replay.channels}
        running = replay.motion.running
        self._clusters = _clusters(running)
        clusters = int(self._clusters.max()) + 1
        require(clusters > 2 * len(names), "motion", f"{replay.motion.seconds:.1f} s",
                f"over {0.2 * len(names) * _CLUSTER:g} s for {len(names)} parameters")  # fmt: skip

    def _shares(self, values: Floats) -> Floats:
        """Shares of the bounds `[P]` of values in the parameters' units."""
        low, high = np.where(self._log, self._low, 1.0), np.where(self._log, self._high, np.e)
        log = np.log(np.where(self._log, values, 1.0) / low) / np.log(high / low)
        return np.where(self._log, log, (values - self._low) / (self._high - self._low))

    def _values(self, u: Floats) -> Floats:
        """Values `[..., P]` of shares, in the parameters' units."""
        low, high = np.where(self._log, self._low, 1.0), np.where(self._log, self._high, 1.0)
        values = np.where(self._log, low * (high / low) ** u, self._low + u * (self._high - self._low))
        return np.clip(values, self._low, self._high)

    def solve(self) -> Fit:
        u, left, every = self._u0.copy(), dict[str, float](), list(range(len(self._known)))
        self._replay.correction = CORRECTIONS[0]
        before = self._rms(self._residual(u[:, None], u, every)[:, 0])
        # With the noise that sensors have, not with that of a wrong model, which would hide what is excited.
        active, _ = self._told(self._jacobian(u, every), every, left)
        self._noise |= before
        while active:
            for self._replay.correction in CORRECTIONS:
                u = self._minimize(u, active)
            u = self._polish(u, active)
            # The noise moves to what is left unexplained, and residuals and Jacobian with it.
            residual, jacobian = self._rescaled(u, active)
            told, jacobian = self._told(jacobian, active, left)
            if told == active:
                return self._fit(u, active, residual, jacobian, left, before)
            dropped = [i for i in active if i not in told]
            u[dropped], active = self._u0[dropped], told
        return Fit(
            names=(), value=np.zeros(0), covariance=np.zeros((0, 0)), low=np.zeros(0), high=np.zeros(0),
            unidentifiable=left, noise=before, before=before, seconds=self._replay.motion.seconds,
        )  # fmt: skip

    def _told(self, jacobian: Floats, active: list[int], left: dict[str, float]) -> tuple[list[int], Floats]:
        """Those of `active` about which the motion says something; the others go to `left`, worst first."""
        active = list(active)
        while active:
            shares = _share_left(jacobian)
            worst = int(np.argmax(shares))
            if shares[worst] < _TOLD:
                break
            left[self._known[active.pop(worst)].name] = float(shares[worst])
            jacobian = np.delete(jacobian, worst, axis=1)
        return active, jacobian

    def _rescaled(self, u: Floats, active: list[int]) -> tuple[Floats, Floats]:
        residual, jacobian = self._residual(u[active][:, None], u, active)[:, 0], self._jacobian(u, active)
        noise = self._rms(residual)
        scale = np.repeat([self._noise[name] / noise[name] for name in noise], list(self._rows().values()))
        self._noise = noise
        return residual * scale, jacobian * scale[:, None]

    def _fit(
        self, u: Floats, active: list[int], residual: Floats, jacobian: Floats, left: dict[str, float],
        before: dict[str, float],
    ) -> Fit:  # fmt: skip
        # One more step of Gauss and Newton: this Jacobian is there anyway, and better than the solver's.
        u[active] = np.clip(u[active] - np.linalg.lstsq(jacobian, residual)[0], 0.0, 1.0)
        above, below = self._values(np.stack([u + _STEP, u - _STEP]))[:, active]
        slope = (above - below) / (2 * _STEP)
        covariance = self._covariance(jacobian, residual) * np.outer(slope, slope)
        freedom = int(self._clusters.max()) + 1 - len(active)
        half, value = stats.t.ppf(0.975, freedom) * np.sqrt(np.diag(covariance)), self._values(u)[active]
        return Fit(
            names=tuple(self._known[i].name for i in active), value=value, covariance=covariance,
            low=value - half, high=value + half, unidentifiable=left, noise=dict(self._noise),
            before=before, seconds=self._replay.motion.seconds,
        )  # fmt: skip

    def _minimize(self, u: Floats, active: list[int]) -> Floats:
        bounds = [np.zeros((len(active), 1)), np.ones((len(active), 1))]
        found, _ = minimize.least_squares(
            u[active][:, None], lambda x: self._residual(x, u, active), bounds=bounds, eps=np.float64(_STEP),
            xtol=_TOLERANCE, max_iter=15, mu_min=1e-2, mu_factor=10.0, verbose=minimize.Verbosity.SILENT,
        )  # fmt: skip
        solution = u.copy()
        solution[active] = found[:, 0]
        return solution

    def _polish(self, u: Floats, active: list[int]) -> Floats:
        """Steps of Gauss and Newton with central differences, more exact than the solver, while they help."""
        residual = self._residual(u[active][:, None], u, active)[:, 0]
        for _ in range(_POLISH):
            step = np.linalg.lstsq(self._jacobian(u, active, _STEP / 5), residual)[0]
            # Half and quarter steps too: one batch costs little more than one replay.
            shares = np.clip(u[active] - np.outer((1.0, 0.5, 0.25), step), 0.0, 1.0).T
            tried = self._residual(shares, u, active)
            best = int(np.argmin((tried**2).sum(axis=0)))
            if (tried[:, best] ** 2).sum() > 0.999 * (residual**2).sum():
                break
            u[active], residual = shares[:, best], tried[:, best]
        return u

    def _residual(self, x: Floats, u: Floats, active: list[int]) -> Floats:
        """Residuals `[R, n]` of `n` columns of active parameters; the others stay at `u`."""
        rows = np.tile(u, (x.shape[1], 1))
        rows[:, active] = x.T
        values = self._values(rows)
        found = self._replay.predict({p.name: values[:, i] for i, p in enumerate(self._known)})
        running = self._replay.motion.running
        parts = [
            (found[name] - self._measured[name])[:, running].reshape(len(rows), -1) / self._noise[name]
            for name in self._replay.channels
        ]
        return np.concatenate(parts, axis=1).T

    def _jacobian(self, u: Floats, active: list[int], h: float = _STEP) -> Floats:
        """Central differences `[R, P]`."""
        n, x = len(active), u[active][:, None]
        ends = [np.minimum(x + h * np.eye(n), 1.0), np.maximum(x - h * np.eye(n), 0.0)]
        steps = np.concatenate(ends, axis=1)
        residual = self._residual(steps, u, active)
        apart = (steps[:, :n] - steps[:, n:]).diagonal()
        return (residual[:, :n] - residual[:, n:]) / apart

    def _rows(self) -> dict[str, int]:
        """How many of the residuals belong to each channel, in their order."""
        steps = int(self._replay.motion.running.sum())
        return {name: steps * self._measured[name].shape[-1] for name in self._replay.channels}

    def _rms(self, residual: Floats) -> dict[str, float]:
        """Root mean square error of each channel, in its unit, of residuals in units of the noise."""
        parts = np.split(residual, np.cumsum(list(self._rows().values()))[:-1])
        return {
            name: float(np.sqrt((part**2).mean()) * self._noise[name])
            for name, part in zip(self._replay.channels, parts, strict=True)
        }

    def _covariance(self, jacobian: Floats, residual: Floats) -> Floats:
        """H^-1 (sum over clusters of s s^T) H^-1 with the scores s = J^T r of a cluster, H = J^T J."""
        cluster = np.concatenate([
            np.repeat(self._clusters, self._measured[name].shape[-1]) for name in self._replay.channels
        ])  # fmt: skip
        scores = np.zeros((int(cluster.max()) + 1, jacobian.shape[1]))
        np.add.at(scores, cluster, jacobian * residual[:, None])
        inverse = np.linalg.inv(jacobian.T @ jacobian)
        correction = len(scores) / (len(scores) - jacobian.shape[1])
        return correction * inverse @ (scores.T @ scores) @ inverse


def _clusters(running: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number `[steps taken]` of the stretch that each step belongs to; none crosses episodes."""
    episodes, t = np.nonzero(running)
    pairs = np.column_stack([episodes, t // _CLUSTER])
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)


def _share_left(jacobian: Floats) -> Floats:
    """Uncertainty after the data over that before, `[P]`: 1 where the data say nothing, towards 0 otherwise.

    Of a Gaussian with the bounds' variance before, and the information J^T J of residuals in units of noise.
    """
    information = jacobian.T @ jacobian + np.eye(jacobian.shape[1]) / _PRIOR_STD**2
    return np.sqrt(np.diag(np.linalg.inv(information))) / _PRIOR_STD


@dataclass(frozen=True, kw_only=True, slots=True)
class Belief:
    """A Gaussian over parameters: what randomised training draws from after identification."""

    names: tuple[str, ...]
    mean: Floats  # [P]
    covariance: Floats  # [P, P]

    @classmethod
    def of(cls, fit: Fit) -> Belief:
        """What one fit says."""
        return cls(names=fit.names, mean=fit.value, covariance=fit.covariance)

    def update(self, fit: Fit) -> Belief:
        """Take in a further, independent fit: precisions add, means are weighted by them."""
        names = tuple(dict.fromkeys((*self.names, *fit.names)))
        precision, weighted = np.zeros((len(names), len(names))), np.zeros(len(names))
        for part in (self, Belief.of(fit)):
            rows = [names.index(name) for name in part.names]
            inverse = np.linalg.inv(part.covariance)
            precision[np.ix_(rows, rows)] += inverse
            weighted[rows] += inverse @ part.mean
        covariance = np.linalg.inv(precision)
        return Belief(names=names, mean=covariance @ weighted, covariance=np.asarray(covariance, np.float64))

    def randomization(self, floor: float = 0.02) -> randomization.Config:
        """The same as a randomisation: normal distributions with the fitted correlations.

        Standard deviations are at least `floor` of the bounds' distance: the covariance knows the noise of
        the recording, not what the simulator leaves out.
        """
        require(0.0 <= floor < 1.0, "floor", floor, "in [0, 1)")
        known = [table(shared_model())[name] for name in self.names]
        least = floor * np.array([p.high - p.low for p in known])
        std = np.sqrt(np.diag(self.covariance))
        parameters: dict[str, Any] = {}
        correlations: dict[str, Any] = {}
        for i, name in enumerate(self.names):
            mean = float(np.clip(self.mean[i], known[i].low, known[i].high))
            parameters[name] = {"normal": [mean, float(max(std[i], least[i]))]}
            # What was widened has the spread of nobody's data, and no correlation with anything.
            wide = [j for j in range(i) if std[i] > least[i] and std[j] > least[j]]
            if wide:
                correlations[name] = {
                    self.names[j]: float(self.covariance[i, j] / (std[i] * std[j])) for j in wide
                }
        return randomization.Config(parameters=parameters, correlations=correlations)
