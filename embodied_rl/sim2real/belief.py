"""What a recording told about parameters, and the distribution to draw from that it makes.

`Belief` turns fits into a randomisation and combines rounds of them, as SimOpt does (Chebotar et al. 2019,
arXiv:1810.05687), which samples parameters where `embodied_rl.sim2real.sysid` takes gradients.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_rl.sim2real import randomization
from envs.desk.parameters import table
from envs.desk.scene import shared_model
from rl_core.config import require

Floats = NDArray[np.float64]

FILE = "belief.json"


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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "names": list(self.names), "mean": self.mean.tolist(), "covariance": self.covariance.tolist()
        }  # fmt: skip

    @classmethod
    def of_json(cls, tree: Mapping[str, Any]) -> Belief:
        """What `to_json` made."""
        names, mean = tuple(tree["names"]), np.array(tree["mean"])
        return cls(
            names=names, mean=mean, covariance=np.array(tree["covariance"]).reshape(len(names), len(names))
        )

    @classmethod
    def load(cls, directory: Path) -> Belief:
        """Read the belief that `scripts/identify_system.py` left; raises ValueError where there is none."""
        path = directory / FILE
        require(path.is_file(), "belief", str(directory), f"the directory of an identification, with {FILE}")
        return cls.of_json(json.loads(path.read_text()))

    def save(self, directory: Path) -> None:
        """Write it where `load` finds it."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / FILE).write_text(json.dumps(self.to_json(), indent=1) + "\n")

    def values(self) -> dict[str, float]:
        """Means by name, within the physical bounds."""
        known = table(shared_model())
        return {
            n: float(np.clip(m, known[n].low, known[n].high))
            for n, m in zip(self.names, self.mean, strict=True)
        }

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
        for i, (name, mean) in enumerate(self.values().items()):
            parameters[name] = {"normal": [mean, float(max(std[i], least[i]))]}
            # What was widened has the spread of nobody's data, and no correlation with anything.
            wide = [j for j in range(i) if std[i] > least[i] and std[j] > least[j]]
            if wide:
                correlations[name] = {
                    self.names[j]: float(self.covariance[i, j] / (std[i] * std[j])) for j in wide
                }
        return randomization.Config(parameters=parameters, correlations=correlations)
