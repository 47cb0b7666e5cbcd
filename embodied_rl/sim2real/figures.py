"""Pictures of identification, automatic randomisation and transfer, for the report page."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodied_rl.eval.figures import Inline, bands, bars, lines
from embodied_rl.eval.statistics import Interval
from embodied_rl.sim2real.adr import Adr
from embodied_rl.sim2real.belief import Fit
from embodied_rl.sim2real.replay import STEP_SECONDS, Motion, Replay

_EPISODES = 3  # of which the errors are shown
_MOVES = 60  # of the boundaries of automatic randomisation, at most


def fit_figures(
    motion: Motion, fit: Fit, *, contacts: bool, start: Mapping[str, float] | None = None
) -> list[Inline]:
    """Recorded motion and its replay, before and after the fit; how far apart they are; what was found.

    `start` is that of the fit: what the parameters had that were not fitted.
    """
    replay = Replay(motion, ("joints",), most=2, contacts=contacts)
    replay.parameters.set(dict(start or {}))
    measured, table = replay.measured()["joints"], replay.parameters.table
    names = fit.names or tuple(fit.unidentifiable)
    nominal = np.array([table[name].nominal for name in names])
    both = np.stack([nominal, fit.value if fit.names else nominal])
    found = replay.predict({name: both[:, i] for i, name in enumerate(names)})["joints"]
    pictures = [_joint(motion, measured, found), _errors(motion, measured, found)]
    if not fit.names:
        return pictures
    ratios = [
        Interval(value=v / n, low=a / n, high=b / n)
        for v, a, b, n in zip(fit.value, fit.low, fit.high, np.where(nominal, nominal, 1.0), strict=True)
    ]
    caption = "over the nominal value (where that is 0: the value itself), with 95 % intervals"
    bar = bars("Identified parameters", fit.names, {"fit": ratios}, label="ratio", caption=caption)
    return [*pictures, bar]


def _joint(motion: Motion, measured: np.ndarray, found: np.ndarray) -> Inline:
    """The joint that is replayed worst before the fit, through the first episode."""
    steps = int(motion.running[0].sum())
    worst = int(np.square(found[0, 0, :steps] - measured[0, :steps]).sum(axis=0).argmax())
    seconds = [STEP_SECONDS * (step + 1) for step in range(steps)]
    series = {"recorded": measured[0], "nominal": found[0, 0], "fitted": found[1, 0]}
    return lines(
        f"Joint {worst + 1}, recorded and replayed",
        {what: (seconds, joints[:steps, worst].tolist()) for what, joints in series.items()},
        labels=("seconds", "rad"),
        caption="what the nominal desk replays worst, first episode; a good fit hides the recording",
    )  # fmt: skip


def _errors(motion: Motion, measured: np.ndarray, found: np.ndarray) -> Inline:
    running = motion.running[:_EPISODES]
    seconds = [STEP_SECONDS * (step + 1) for step in range(int(running.sum()))]
    series = {}
    for what, joints in zip(("nominal", "fitted"), found, strict=True):
        error = np.sqrt(np.square(joints[:_EPISODES] - measured[:_EPISODES]).mean(axis=2))[running]
        series[what] = (seconds, (1e3 * error).tolist())
    caption = f"root mean square over the joints, the first {len(running)} episodes in a row"
    what = "Replayed against recorded joints"
    return lines(what, series, labels=("seconds", "mrad"), log=True, caption=caption)


def adr_figures(adr: Adr) -> list[Inline]:
    """Ranges and entropy of automatic domain randomisation over the episodes."""
    # Boundaries move thousands of times: a picture needs some of them, and a page should not hold all.
    shown = [adr.history[i] for i in np.unique(np.linspace(0, len(adr.history) - 1, _MOVES).astype(int))]
    episodes = [*(float(row[0]) for row in shown), float(adr.episodes)]
    ranges = [*(row[2] for row in shown), adr.ranges().tolist()]
    entropy = [*(float(row[1]) for row in shown), adr.entropy()]
    final = adr.ranges()
    bounds = {
        f"{name} [{low:.3g}, {high:.3g}]": [row[i] for row in ranges]
        for i, (name, (low, high)) in enumerate(zip(adr.names, final, strict=True))
    }
    return [
        bands("ADR: ranges", episodes, bounds, caption="each on its own scale, the last range named"),
        lines("ADR: entropy", {"entropy": (episodes, entropy)}, labels=("episodes", "nats per dimension"),
              caption=f"last value {entropy[-1]:.3f}"),
    ]  # fmt: skip
