"""System identification: parameters of a desk, with their uncertainty, from recorded motion.

Box-constrained nonlinear least squares of replayed against recorded motion, solved by `mujoco.minimize`, the
solver of `mujoco.sysid`, on batched rollouts. (The rest of `mujoco.sysid` compiles one model per candidate,
which `mujoco.batch` makes unnecessary, and needs packages that the project does not.) Then

* which parameters the motion says anything about: those whose uncertainty after the data is less than half of
  that before, when all that was known were the bounds. The rest keep their nominal value and are reported as
  not identifiable, and the others are fitted again without them;
* how sure one may be: `embodied_rl.sim2real.uncertainty`.

Joints with dry friction stick and break loose. Whether a joint does so now or a step later can hang on the
encoders' noise, and is then no evidence about parameters, but makes valleys in the sum of squares that have
nothing to do with the truth. So the last steps give rows whose residuals are large, at the solution or at
either end of a difference, less weight, and look for lower ground along the two directions that the motion
tells least about. And where there are enough episodes, each then goes on to its own solution: every one has
other valleys, so that their mean errs less than the solution of all, and their spread tells by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from mujoco import minimize
from numpy.typing import NDArray

from embodied_rl.sim2real.belief import Fit
from embodied_rl.sim2real.replay import CORRECTIONS, Motion, Replay
from embodied_rl.sim2real.uncertainty import covariance, half_width, pooled, share_left, stretches
from envs.desk.parameters import Parameter
from rl_core.config import choice, require

Floats = NDArray[np.float64]

# Standard deviations assumed at first, in the channel's unit (rad or m); the residuals then tell.
_NOISE = {"joints": 1e-3, "width": 1e-3, "blocks": 2e-3, "furniture": 1e-3}
# Of finite differences, as a share of the bounds: far from the solution, and near it. Joints that stick make
# residuals rough at a scale of 1e-3: there a derivative says nothing about where to go.
_FAR, _NEAR = 0.03, 0.01
_TOLERANCE = 2e-3  # of a step of the solver, likewise
_POLISH = 8  # steps at most
_GAIN = 1e-4  # of the loss, below which polishing ends
_CLIP = 4.0  # standard deviations from which on a residual counts less
_SHARES = (1.0, 0.5, 0.25)  # of a step of Gauss and Newton that are tried
_SCAN = (-8.0, -3.0, 3.0, 8.0)  # textbook standard errors, along the directions that are known least
_TOLD = 0.5  # of the spread between the bounds: with more of it left, the data said nothing
_STRETCHES = 2  # per parameter, at least
_EPISODES = 2  # per parameter, from which on each episode is fitted


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
    most = max(2 * len(names) + 1, len(_SHARES) + 2 * len(_SCAN))

    def problem(part: Motion) -> _Problem:
        replay = Replay(part, channels, most=most, contacts=contacts, num_threads=num_threads)
        return _Problem(replay, names, start)

    found, least = int(stretches(motion.running).max()) + 1, _STRETCHES * len(names)
    require(found > least, "motion", f"{motion.seconds:.1f} s",
            f"over {least} stretches of a second for {len(names)} parameters")  # fmt: skip
    return problem(motion).solve(problem)


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
        self._u0 = self._shares(np.array([(start or {}).get(p.name, p.nominal) for p in self._known]))
        self._measured = replay.measured()
        self._noise = {name: _NOISE[name] for name in replay.channels}
        steps = stretches(replay.motion.running)
        sizes = [self._measured[name].shape[-1] for name in replay.channels]
        self._rows = [len(steps) * size for size in sizes]  # residuals of each channel, in their order
        self._clusters = np.concatenate([np.repeat(steps, size) for size in sizes])  # of each residual

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

    def solve(self, problem: Callable[[Motion], _Problem]) -> Fit:
        """The fit; `problem` makes that of a part of the motion."""
        u, left, active = self._u0.copy(), dict[str, float](), list(range(len(self._known)))
        before = self._rms(self._residual(u[active][:, None], u, active)[:, 0])
        # With the noise that sensors have, not with that of a wrong model, which would hide what is excited.
        self._replay.correction = CORRECTIONS[0]
        active = self._told(self._linearised(u, active, _FAR)[1], active, left)
        self._noise = before
        while active:
            for self._replay.correction in CORRECTIONS:
                u = self._minimize(u, active)
            # The weights of the channels are those of what is left unexplained.
            self._noise = self._rms(self._residual(u[active][:, None], u, active)[:, 0])
            u, residual, jacobian = self._polish(u, active)
            told = self._told(jacobian, active, left)
            if told == active:
                u[active], spread, num = self._pooled(u, active, residual, jacobian, problem)
                return self._fit(u, active, spread, num, left, before)
            dropped = [i for i in active if i not in told]
            u[dropped], active = self._u0[dropped], told
        return Fit(
            names=(), value=np.zeros(0), covariance=np.zeros((0, 0)), low=np.zeros(0), high=np.zeros(0),
            unidentifiable=left, noise=before, before=before, seconds=self._replay.motion.seconds,
        )  # fmt: skip

    def _told(self, jacobian: Floats, active: list[int], left: dict[str, float]) -> list[int]:
        """Those of `active` about which the motion says something; the others go to `left`, worst first."""
        active = list(active)
        while active:
            shares = share_left(jacobian)
            worst = int(np.argmax(shares))
            if shares[worst] < _TOLD:
                break
            left[self._known[active.pop(worst)].name] = float(shares[worst])
            jacobian = np.delete(jacobian, worst, axis=1)
        return active

    def _pooled(
        self, u: Floats, active: list[int], residual: Floats, jacobian: Floats,
        problem: Callable[[Motion], _Problem],
    ) -> tuple[Floats, Floats, int]:  # fmt: skip
        """Solution `[P]` and its covariance `[P, P]`, and from how many parts of the motion that comes."""
        running = self._replay.motion.running
        if len(running) < _EPISODES * len(active):
            return u[active], covariance(jacobian, residual, self._clusters), int(self._clusters.max()) + 1
        found = []
        for episode in self._replay.motion.episodes():
            part = problem(episode)
            part._noise = self._noise
            found.append(part._polish(u, active)[0][active])
        return *pooled(np.stack(found), running.sum(axis=1)), len(found)

    def _fit(
        self, u: Floats, active: list[int], spread: Floats, num: int, left: dict[str, float],
        before: dict[str, float],
    ) -> Fit:  # fmt: skip
        """The result, where `spread` is the covariance of the shares, from `num` parts of the motion."""
        noise = self._rms(self._residual(u[active][:, None], u, active)[:, 0])
        reach = np.zeros_like(u)
        reach[active] = half_width(spread, num)
        low, value, high = self._values(np.stack([u - reach, u, u + reach]))[:, active]
        above, below = self._values(np.stack([u + _NEAR, u - _NEAR]))[:, active]
        slope = (above - below) / (2 * _NEAR)
        return Fit(
            names=tuple(self._known[i].name for i in active), value=value, low=low, high=high,
            covariance=spread * np.outer(slope, slope), unidentifiable=left, noise=noise,
            before=before, seconds=self._replay.motion.seconds,
        )  # fmt: skip

    def _minimize(self, u: Floats, active: list[int]) -> Floats:
        bounds = [np.zeros((len(active), 1)), np.ones((len(active), 1))]
        found, _ = minimize.least_squares(
            u[active][:, None], lambda x: self._residual(x, u, active), bounds=bounds, eps=np.float64(_FAR),
            xtol=_TOLERANCE, max_iter=15, mu_min=1e-2, mu_factor=10.0, verbose=minimize.Verbosity.SILENT,
        )  # fmt: skip
        solution = u.copy()
        solution[active] = found[:, 0]
        return solution

    def _polish(self, u: Floats, active: list[int]) -> tuple[Floats, Floats, Floats]:
        """Steps of Gauss and Newton with central differences, more exact than the solver, while they help.

        Returns the shares, and weighted residuals `[R]` and Jacobian `[R, P]` there.
        """
        for _ in range(_POLISH):
            loss, residual, jacobian = self._weighted(u, active)
            moves = [-share * np.linalg.lstsq(jacobian, residual)[0] for share in _SHARES]
            moves += _scan(jacobian)
            tried = np.clip(u[active] + np.stack(moves), 0.0, 1.0).T
            losses = _loss(self._residual(tried, u, active))
            best = int(np.argmin(losses))
            if losses[best] > (1 - _GAIN) * loss:
                return u, residual, jacobian
            u = u.copy()
            u[active] = tried[:, best]
        return u, *self._weighted(u, active)[1:]

    def _weighted(self, u: Floats, active: list[int]) -> tuple[float, Floats, Floats]:
        """Loss, and residuals `[R]` and Jacobian `[R, P]` times the square roots of their weights."""
        residual, jacobian = self._linearised(u, active, _NEAR)
        # To first order the residual at the far end of every difference.
        worst = np.abs(residual) + _NEAR * np.abs(jacobian).max(axis=1)
        weight = np.minimum(1.0, _CLIP / np.maximum(worst, _CLIP))
        return float(_loss(residual)), weight * residual, weight[:, None] * jacobian

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

    def _linearised(self, u: Floats, active: list[int], h: float) -> tuple[Floats, Floats]:
        """Residuals `[R]` and their central differences `[R, P]`, from one batch."""
        n, x = len(active), u[active][:, None]
        ends = [x, np.minimum(x + h * np.eye(n), 1.0), np.maximum(x - h * np.eye(n), 0.0)]
        steps = np.concatenate(ends, axis=1)
        residual = self._residual(steps, u, active)
        apart = (steps[:, 1 : n + 1] - steps[:, n + 1 :]).diagonal()
        return residual[:, 0], (residual[:, 1 : n + 1] - residual[:, n + 1 :]) / apart

    def _rms(self, residual: Floats) -> dict[str, float]:
        """Root mean square error of each channel, in its unit, of residuals in units of the noise."""
        parts = np.split(residual, np.cumsum(self._rows)[:-1])
        return {
            name: float(np.sqrt((part**2).mean()) * self._noise[name])
            for name, part in zip(self._replay.channels, parts, strict=True)
        }


def _scan(jacobian: Floats) -> list[Floats]:
    """Steps `[P]` of so many textbook standard errors along the two directions that are known least."""
    values, directions = np.linalg.eigh(jacobian.T @ jacobian)
    # A part of a motion may say nothing at all: then an error is all of what lies between the bounds.
    errors = 1.0 / np.sqrt(np.maximum(values, 1.0))
    return [far * errors[k] * directions[:, k] for k in range(len(values))[:2] for far in _SCAN]


def _loss(residual: Floats) -> Floats:
    """Cauchy's loss `[...]` of residuals `[R, ...]`: squares where they are small, then hardly growing."""
    loss: Floats = _CLIP**2 * np.log1p((residual / _CLIP) ** 2).sum(axis=0)
    return loss
