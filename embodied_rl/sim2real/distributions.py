"""Distributions of simulation parameters: rules as a YAML writes them, checked against names and bounds.

A rule is `{uniform: [low, high]}`, `{log_uniform: [low, high]}`, `{normal: [mean, std]}`, `{choice: [a, b]}`
(of a parameter that chooses among things, their names or numbers),
with, where wanted, `as: factor` (of the nominal value) or `as: offset` (added to it) instead of the value
itself, `every: step` instead of once an episode, `correlation: seconds` (the time constant of noise that
drifts from step to step), and `together: true` (one draw for every name that the pattern matches).

Every distribution is a quantile function of a standard normal latent. So one place draws, whatever the
distribution: noise that is correlated in time is an Ornstein-Uhlenbeck process of the latent, parameters that
are correlated with one another have correlated latents (a Gaussian copula), and the marginal stays exact.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import ndtr, ndtri

from rl_core.config import choice, did_you_mean, require

_ARITY = {"uniform": 2, "log_uniform": 2, "normal": 2, "choice": None}
_MEANINGS = ("value", "factor", "offset")
_OPTIONS = ("as", "every", "correlation", "together")


class Known(Protocol):
    """What must be known about a parameter; `envs.desk.parameters.Parameter` is one."""

    @property
    def unit(self) -> str:
        """Unit of the value, "1" for factors."""
        ...

    @property
    def nominal(self) -> float:
        """The simulator's own value."""
        ...

    @property
    def low(self) -> float:
        """Least value that is physically possible, or that the simulator bears."""
        ...

    @property
    def high(self) -> float:
        """Greatest such value."""
        ...

    @property
    def choices(self) -> tuple[str, ...]:
        """Names of the values 0, 1, ... of a parameter that chooses among things."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """The distribution of one parameter, in the parameter's own unit."""

    name: str
    kind: str  # a key of _ARITY
    numbers: tuple[float, ...]  # bounds; mean and standard deviation; or the choices
    low: float = -math.inf  # a normal distribution is truncated here
    high: float = math.inf
    every: str = "episode"
    correlation: float = 0.0  # seconds; 0: each step anew
    group: str = ""  # rules of one group share their draw

    def quantile(self, latent: float) -> float:
        """Value for a standard normal `latent`; the median for 0, increasing in it."""
        u = float(ndtr(latent))
        a, b = self.numbers[0], self.numbers[-1]
        if self.kind == "uniform":
            return a + (b - a) * u
        if self.kind == "log_uniform":
            return math.exp(math.log(a) + (math.log(b) - math.log(a)) * u)
        if self.kind == "choice":
            return self.numbers[min(int(u * len(self.numbers)), len(self.numbers) - 1)]
        if b == 0.0:
            return a
        below, above = ndtr((self.low - a) / b), ndtr((self.high - a) / b)
        return float(np.clip(a + b * ndtri(below + (above - below) * u), self.low, self.high))


def rules(config: Mapping[str, Mapping[str, Any]], table: Mapping[str, Known]) -> tuple[Rule, ...]:
    """Resolve `{name or pattern: rule}` against the parameters that there are; later entries win.

    `*` and `?` in a name match any characters. Raises ValueError for an unknown name (with the nearest ones),
    a rule that is none, an empty or inverted range, and a range that leaves the parameter's bounds.
    """
    last: dict[str, str] = {}  # name: the pattern that wins
    for pattern in config:
        last |= dict.fromkeys(matches(pattern, table), pattern)
    return tuple(_rule(name, pattern, config[pattern], table[name]) for name, pattern in last.items())


def matches(pattern: str, table: Mapping[str, Known], field: str = "randomization.parameters") -> list[str]:
    """Names of `table` that a name or pattern stands for; raises ValueError, with the nearest, for none.

    `body_mass[*]` stands for rows, which are factors, `body_mass[*,0]` for components, which are values.
    """
    escaped = pattern.replace("[", "[[]")  # brackets are part of names such as body_mass[object0]
    names = [name for name in fnmatch.filter(table, escaped) if "," in pattern or "," not in name]
    if not names:
        raise ValueError(f"{field}: no parameter is called {pattern!r}{did_you_mean(pattern, table)}")
    return names


def mapping(field: str, value: Any, example: str) -> Mapping[str, Any]:
    """Return `value`; raise ValueError with the example unless it is a mapping."""
    require(isinstance(value, Mapping), field, value, f"a mapping such as {example}")
    result: Mapping[str, Any] = value
    return result


def number(field: str, value: Any) -> float:
    """Return `value` as a float; raise ValueError unless it is a finite number."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = math.nan
    require(math.isfinite(result), field, value, "a finite number")
    return result


def _rule(name: str, pattern: str, spec: Mapping[str, Any], known: Known) -> Rule:
    field = f"randomization.{name}"
    spec = mapping(field, spec, "{uniform: [low, high]}")
    kinds = [key for key in spec if key in _ARITY]
    for key in spec:
        choice(f"key of {field}", str(key), (*_ARITY, *_OPTIONS))
    require(len(kinds) == 1, field, dict(spec), f"one distribution of {', '.join(_ARITY)}")
    kind, meaning = kinds[0], str(spec.get("as", "value"))
    choice(f"{field}.as", meaning, _MEANINGS)
    numbers = _numbers(field, kind, spec[kind], known.choices)
    every = str(spec.get("every", "step" if "correlation" in spec else "episode"))
    choice(f"{field}.every", every, ("episode", "step"))
    correlation, together = number(f"{field}.correlation", spec.get("correlation", 0.0)), spec.get("together")
    require(together in (None, False, True), f"{field}.together", together, "true or false")
    require(correlation >= 0.0, f"{field}.correlation", correlation, "at least 0 seconds")
    require(
        correlation == 0.0 or every == "step", f"{field}.every", every, "step where there is a correlation"
    )
    rule = Rule(
        name=name, kind=kind, numbers=_resolve(kind, numbers, meaning, known.nominal), low=known.low,
        high=known.high, every=every, correlation=correlation,
        group=pattern if together else name,
    )  # fmt: skip
    if meaning == "factor" and pattern == name:  # a pattern may stand for some that are 0 and stay it
        require(known.nominal != 0.0, f"{field}.as", meaning, "offset or value: the nominal value is 0")
    _check_bounds(field, rule, known)
    return rule


def _numbers(field: str, kind: str, value: Any, names: tuple[str, ...]) -> tuple[float, ...]:
    require(isinstance(value, Sequence) and not isinstance(value, str), f"{field}.{kind}", value, "a list")
    if kind == "choice" and names:
        for one in value:
            if isinstance(one, str):
                choice(field, one, names)
        value = [names.index(one) if one in names else one for one in value]
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{field}.{kind}={value!r}: must be a list of numbers") from error
    arity = _ARITY[kind]
    require(all(math.isfinite(n) for n in numbers), f"{field}.{kind}", value, "finite numbers")
    require(len(numbers) == arity if arity else bool(numbers), f"{field}.{kind}", value,
            "two numbers" if arity else "at least one number")  # fmt: skip
    if kind == "normal":
        require(numbers[1] >= 0.0, f"{field}.normal", value, "a mean and a standard deviation >= 0")
    elif kind != "choice":
        require(numbers[0] < numbers[1], f"{field}.{kind}", value, "[low, high] with low < high")
    return numbers


def _resolve(kind: str, numbers: tuple[float, ...], meaning: str, nominal: float) -> tuple[float, ...]:
    """Turn factors and offsets into values."""
    if meaning == "value":
        return numbers
    if kind == "normal":
        mean, std = numbers
        return (mean * nominal, std * abs(nominal)) if meaning == "factor" else (mean + nominal, std)
    values = [n * nominal if meaning == "factor" else n + nominal for n in numbers]
    return tuple(values if kind == "choice" else sorted(values))  # a negative nominal value swaps the ends


def _check_bounds(field: str, rule: Rule, known: Known) -> None:
    bounds = f"[{known.low:g}, {known.high:g}] {known.unit}"
    reached = rule.numbers[:1] if rule.kind == "normal" else rule.numbers
    outside = [n for n in reached if not known.low <= n <= known.high]
    if outside:
        raise ValueError(
            f"{field}: {rule.kind} {list(rule.numbers)} leaves what is physically possible, {bounds}"
        )
    if rule.kind == "log_uniform":
        require(rule.numbers[0] > 0.0, field, list(rule.numbers), "positive for a log_uniform distribution")


def correlation_factor(
    groups: tuple[str, ...], correlations: Mapping[str, Mapping[str, float]]
) -> np.ndarray:
    """Cholesky factor `[G, G]` of the latents' correlation matrix; `{a: {b: rho}}` names the pairs.

    Raises ValueError for a name without a distribution and for numbers that are no correlation matrix.
    """
    matrix = np.eye(len(groups))
    for a, b, rho in _pairs(correlations):
        for name in (a, b):
            choice("name in randomization.correlations", name, groups)
        require(-1.0 < rho < 1.0, f"randomization.correlations.{a}.{b}", rho, "between -1 and 1")
        i, j = groups.index(a), groups.index(b)
        matrix[i, j] = matrix[j, i] = rho
    try:
        factor: np.ndarray = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "randomization.correlations: no joint distribution has these correlations"
        ) from error
    return factor


def _pairs(correlations: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, str, float]]:
    for a, row in correlations.items():
        field = f"randomization.correlations.{a}"
        for b, rho in mapping(field, row, "{other: 0.5}").items():
            require(a != b, field, b, "another name: with itself everything has correlation 1")
            yield a, b, number(f"{field}.{b}", rho)
