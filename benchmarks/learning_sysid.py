"""System identification of held-out desks: errors and coverage of the intervals over many of them.

Each trial draws a desk's link mass, dry friction, damping and servo gain, records 60 s of shaking the arm
into a Minari dataset with encoder noise, and fits the four, and the mass of a block that is never touched.

python -m benchmarks.learning_sysid trials=40
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import record
from embodied_rl.data import collect, minari_io
from embodied_rl.data.recorder import Recorder
from embodied_rl.eval.statistics import bootstrap_mean, wilson
from embodied_rl.sim2real.belief import Fit
from embodied_rl.sim2real.excitation import Excitation
from embodied_rl.sim2real.replay import Motion, motion_of
from embodied_rl.sim2real.sysid import identify
from envs.suites import DESK, make_vec

RANGES = {
    "link_mass": (0.7, 1.3),
    "arm_frictionloss": (0.5, 1.5),
    "arm_damping": (0.5, 2.0),
    "arm_gain": (0.7, 1.4),
}
UNTOUCHED = "mass_red"
NOISE = 3e-4  # rad
EPISODES, STEPS = 10, 60


def motion(truth: dict[str, float], seed: int) -> Motion:
    """60 s of a desk with these parameters, through a dataset."""
    env = make_vec(DESK, EPISODES, max_episode_steps=STEPS, terminate_on_success=False)
    env.unwrapped.set_parameters({**truth, "joint_noise": NOISE})
    with tempfile.TemporaryDirectory() as folder:
        with Recorder("desk/shaken-v0", collect.info_of(env), folder) as out:
            collect.record(Excitation(seed), env, out, episodes=EPISODES, seed=seed)
        return motion_of(minari_io.load("desk/shaken-v0", folder))


def trial(seed: int) -> tuple[dict[str, float], Fit]:
    """One held-out desk and what is found."""
    rng = np.random.default_rng(seed)
    truth = {name: float(rng.uniform(*bounds)) for name, bounds in RANGES.items()}
    return truth, identify(motion(truth, seed), [*RANGES, UNTOUCHED], contacts=False)


def row(seed: int) -> dict[str, object]:
    """Error in percent, and whether the interval holds the truth, of each parameter."""
    truth, fit = trial(seed)
    found = {
        name: {"error": 100 * (value / truth[name] - 1), "covered": bool(low <= truth[name] <= high)}
        for name, value, low, high in zip(fit.names, fit.value, fit.low, fit.high, strict=True)
    }
    return {"seed": seed, "found": found, "not_identifiable": list(fit.unidentifiable), "noise": fit.noise}


def scores(rows: list[dict]) -> list[dict]:
    """One line per parameter in the form of `record.write_scores`."""
    result = []
    for name in RANGES:
        errors = [abs(r["found"][name]["error"]) for r in rows if name in r["found"]]
        covered = sum(r["found"][name]["covered"] for r in rows if name in r["found"])
        mean, share = bootstrap_mean(errors), wilson(covered, len(rows))
        result.append({
            "algorithm": f"{name}, absolute error in %", "library": "embodied-align", "mean": mean.value,
            "low": mean.low, "high": mean.high, "scores": [round(e, 3) for e in errors],
            "settings": {"trials": len(rows), "seconds of motion": EPISODES * STEPS / 10,
                         "encoder noise": f"{NOISE:g} rad",
                         "largest error": f"{max(errors):.2f} %",
                         "95 % intervals that hold the truth": f"{covered} of {len(rows)} "
                         f"[{100 * share.low:.0f}, {100 * share.high:.0f}] %"},
            "verdict": f"{sum(e <= 10 for e in errors)} of {len(rows)} within 10 %",
        })  # fmt: skip
    dropped = sum(r["not_identifiable"] == [UNTOUCHED] for r in rows)
    result[0]["settings"][f"{UNTOUCHED} reported as not identifiable"] = f"{dropped} of {len(rows)}"
    return result


def main(trials: int, partial: Path) -> None:
    """Run the trials that `partial` does not hold yet, then record all of them."""
    done = [json.loads(line) for line in partial.read_text().splitlines()] if partial.exists() else []
    for seed in range(len(done), trials):
        done.append(row(seed))
        with partial.open("a") as stream:
            stream.write(json.dumps(done[-1]) + "\n")
    record.write_scores("learning_sysid", scores(done[:trials]))


if __name__ == "__main__":
    settings = dict(word.split("=") for word in sys.argv[1:])
    main(int(settings.get("trials", 40)), Path(settings.get("partial", "runs/sysid-trials.jsonl")))
