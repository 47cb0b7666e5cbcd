"""Figures of a report as inline SVG: no scripts, no links, text in the page's own colour."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

_INK = "#010203"  # stands for the page's text colour, which is not known here
_LINE = "#4c8dff"  # readable on white and on near-black
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


def _new() -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
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
