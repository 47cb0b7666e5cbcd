"""Figures of a report as inline SVG: no scripts, no links, text in the page's own colour."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from embodied_rl.eval.statistics import Interval

FILES = "figures*.json"  # of a run directory: pictures that the run made itself
_INK = "#010203"  # stands for the page's text colour, which is not known here
_LINE = "#4c8dff"  # readable on white and on near-black
_COLORS = (_LINE, "#e0863c", "#3fae74", "#b06fd8", "#d65f74", "#8a9099")
_STYLE: Any = {  # matplotlib types this as a dict of three hundred literal keys
    "svg.fonttype": "none",  # text stays text: small, sharp, in the page's font
    "svg.hashsalt": "report",  # the same figure gives the same bytes
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8899aa",
    "grid.alpha": 0.25,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inline:
    """An SVG element ready to stand in a page, and the line of text under it."""

    svg: str
    caption: str


def curve(name: str, steps: Sequence[float], values: Sequence[float]) -> Inline:
    """Draw one metric over training steps; a few points are marked, many are one line."""
    figure, axes = _new()
    axes.plot(
        steps, values, color=_LINE, linewidth=1.6, marker="o" if len(steps) <= 40 else "", markersize=3.5
    )
    axes.set_xlabel("step")
    axes.set_title(name, fontsize=11, loc="left")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return Inline(svg=_to_svg(figure, name), caption=f"last value {values[-1]:.4g}")


def histogram(name: str, values: Sequence[float]) -> Inline:
    """Draw how a number is distributed over episodes."""
    figure, axes = _new()
    axes.hist(values, bins=min(30, max(5, len(values) // 4)), color=_LINE, alpha=0.85)
    axes.set_title(name, fontsize=11, loc="left")
    axes.set_ylabel("episodes")
    low, median, high = np.percentile(values, [0, 50, 100])
    return Inline(
        svg=_to_svg(figure, name), caption=f"lowest {low:.4g}, median {median:.4g}, highest {high:.4g}"
    )


def lines(
    name: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    labels: tuple[str, str],
    caption: str,
    log: bool = False,
) -> Inline:
    """Draw several curves, `{what: (x, y)}`, into one picture; `labels` of the axes."""
    figure, axes = _new()
    for (what, (x, y)), color in zip(series.items(), _COLORS * len(series), strict=False):
        marker = "o" if len(x) <= 40 else ""
        axes.plot(x, y, color=color, linewidth=1.4, marker=marker, markersize=3, label=what)
    axes.set(xlabel=labels[0], ylabel=labels[1], yscale="log" if log else "linear")
    axes.set_title(name, fontsize=11, loc="left")
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8)
    return Inline(svg=_to_svg(figure, name), caption=caption)


def scatter(
    name: str, x: Sequence[float], y: Sequence[float], *, labels: tuple[str, str], caption: str
) -> Inline:
    """Draw one dot for each pair of numbers; `labels` of the axes."""
    figure, axes = _new()
    axes.scatter(x, y, s=6, color=_LINE, alpha=0.5, linewidths=0)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.set_title(name, fontsize=11, loc="left")
    return Inline(svg=_to_svg(figure, name), caption=caption)


def bands(
    name: str, x: Sequence[float], ranges: Mapping[str, Sequence[Sequence[float]]], *, caption: str
) -> Inline:
    """Draw how ranges `{what: [[low, high] at each x]}` move, one above the other, each on its own scale."""
    figure, axes = _new(height=0.6 + 0.28 * len(ranges))
    for row, band in enumerate(ranges.values()):
        array = np.asarray(band, np.float64)
        widest = max(float(array.max() - array.min()), 1e-12)
        low, high = (0.9 * (array[:, side] - array.min()) / widest - row for side in (0, 1))
        axes.fill_between(x, low, high, step="post", color=_LINE, alpha=0.6, linewidth=0.6)
    axes.set_yticks([0.45 - row for row in range(len(ranges))], list(ranges), fontsize=8)
    axes.set_ylim(-len(ranges) + 0.8, 1.1)
    axes.set_xlabel("episodes")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(name, fontsize=11, loc="left")
    return Inline(svg=_to_svg(figure, name), caption=caption)


def bars(
    name: str, groups: Sequence[str], series: Mapping[str, Sequence[Interval]], *, label: str, caption: str
) -> Inline:
    """Draw estimates with their intervals, `{what: [one per group]}`, side by side in every group."""
    figure, axes = _new(width=max(4.6, 1.1 * len(groups) + 1.5))
    width = 0.8 / len(series)
    for k, (what, estimates) in enumerate(series.items()):
        x = np.arange(len(groups)) + (k - (len(series) - 1) / 2) * width
        values = np.array([e.value for e in estimates])
        ends = np.array([[e.value if b is None else b for b in (e.low, e.high)] for e in estimates]).T
        axes.bar(x, values, 0.9 * width, color=_COLORS[k % len(_COLORS)], label=what)
        axes.errorbar(x, values, np.abs(ends - values), fmt="none", ecolor=_INK, elinewidth=1, capsize=2)
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.set_ylabel(label)
    axes.set_title(name, fontsize=11, loc="left")
    axes.legend(frameon=False, fontsize=8, ncols=len(series), loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return Inline(svg=_to_svg(figure, name), caption=caption)


def spans(name: str, rows: Mapping[str, Interval], *, label: str, caption: str) -> Inline:
    """Draw estimates with their intervals, `{what: one}`, one below the other."""
    figure, axes = _new(height=0.8 + 0.17 * len(rows))
    values = np.array([row.value for row in rows.values()])
    ends = np.array([[row.value if b is None else b for b in (row.low, row.high)] for row in rows.values()]).T
    axes.errorbar(values, range(len(rows)), xerr=np.abs(ends - values), fmt="o", color=_LINE, markersize=3)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.set_title(name, fontsize=11, loc="left")
    return Inline(svg=_to_svg(figure, name), caption=caption)


def write(directory: Path, figures: Sequence[Inline], of: str = "") -> Path:
    """Write figures where `report.write_report(directory)` finds them; what they are `of` names the file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILES.replace("*", f"_{of}" if of else "")
    path.write_text(json.dumps([dataclasses.asdict(figure) for figure in figures]) + "\n")
    return path


def _new(width: float = 4.6, height: float = 2.7) -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    return figure, axes


def _to_svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # no XML prologue, no DOCTYPE with an address
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # inside HTML the parser knows the namespaces
    svg = svg.replace(_INK, "currentColor")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    # Ids must be unique in the whole page.
    return re.sub(r"(id=\"|url\(#|href=\"#)", rf"\g<1>{_slug(name)}-", svg)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name)
