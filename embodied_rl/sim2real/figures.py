"""Pictures of identification, automatic randomisation and transfer, for the report page."""

from __future__ import annotations

import numpy as np

from embodied_rl.eval.figures import Inline, bands, bars, lines
from embodied_rl.eval.statistics import Interval
from embodied_rl.sim2real.adr import Adr
from embodied_rl.sim2real.belief import Fit
from embodied_rl.sim2real.replay import Motion, Replay

_SHOWN = 100  # steps


def fit_figures(motion: Motion, fit: Fit, *, contacts: bool) -> list[Inline]:
    """How far the replayed joints are from the recorded ones, before and after, and what was found."""
    replay = Replay(motion, ("joints",), most=1, contacts=contacts)
    measured, table = replay.measured()["joints"], replay.parameters.table
    nominal = {name: np.array([table[name].nominal]) for name in fit.names or list(fit.unidentifiable)}
    fitted = {name: np.array([value]) for name, value in zip(fit.names, fit.value, strict=True)}
    series = {}
    for what, values in {"nominal": nominal, "fitted": fitted or nominal}.items():
        error = np.sqrt(((replay.predict(values)["joints"][0] - measured) ** 2).mean(axis=2))
        shown = (1e3 * error[motion.running][:_SHOWN]).tolist()
        series[what] = ([step / 10 for step in range(len(shown))], shown)
    first = lines("Replayed against recorded joints", series, labels=("seconds", "mrad"), log=True,
                  caption="root mean square over the joints, first 10 s")  # fmt: skip
    if not fit.names:
        return [first]
    found = [
        Interval(value=v / n, low=a / n, high=b / n)
        for v, a, b, n in zip(
            fit.value, fit.low, fit.high, [table[name].nominal or 1.0 for name in fit.names], strict=True
        )
    ]
    caption = "over the nominal value (where that is 0: the value itself), with 95 % intervals"
    return [first, bars("Identified parameters", fit.names, {"fit": found}, label="ratio", caption=caption)]


def adr_figures(adr: Adr) -> list[Inline]:
    """Ranges and entropy of automatic domain randomisation over the episodes."""
    episodes = [*(float(row[0]) for row in adr.history), float(adr.episodes)]
    ranges = [*(row[2] for row in adr.history), adr.ranges().tolist()]
    entropy = [*(float(row[1]) for row in adr.history), adr.entropy()]
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
