"""Plots as SVG inside the page, in the page's own colours, and as PNG files for documents.

A plot is drawn once in placeholder colours; the page's style sheet says what they are in light and in dark.
Lines differ by dash as well as by colour, so that no one needs to tell colours apart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

SIZE_INCHES = (4.4, 2.9)
MOST_TICKS = 8
LEAST_VALUES = 10
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


class Colours(NamedTuple):
    """What a plot is drawn in."""

    ink: str
    muted: str
    lines: tuple[str, ...]

    def line(self, index: int) -> dict[str, Any]:
        """Colour and dash of the line of place `index`; neighbours differ in both."""
        return {
            "color": self.lines[index % len(self.lines)],
            "linestyle": DASHES[index % len(DASHES)],
        }


PLACEHOLDERS = Colours("#010101", "#020202", tuple(f"#0{i}0{i}fe" for i in range(1, 8)))
"""Stand for --ink, --muted and --c1 to --c7 of page.css."""
ON_WHITE = Colours(
    "#1b1f24", "#59636e", ("#0072b2", "#d55e00", "#00805d", "#a8478a", "#8a6d00", "#3385c6", "#57606a")
)
"""Page.css in light: colours of Okabe and Ito, those too light for thin lines on white darkened."""


class Series(NamedTuple):
    """One line of a chart."""

    label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


class Plot(NamedTuple):
    """A titled plot of a page."""

    title: str
    svg: Markup
    caption: str = ""


Draw = Callable[[Figure, Colours], None]
"""Fills an empty matplotlib figure."""


def style(colours: Colours) -> Any:
    """Matplotlib's settings; their names are a type of its own that no dictionary has."""
    ink = ("axes.labelcolor", "text.color", "xtick.labelcolor", "ytick.labelcolor")
    muted = ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "detect",
        "font.size": 10,
        **dict.fromkeys(ink, colours.ink),
        **dict.fromkeys(muted, colours.muted),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.6,
    }


def plot(title: str, draw: Draw, *, caption: str = "", size: tuple[float, float] = SIZE_INCHES) -> Plot:
    """A plot for a page; `draw` fills an empty matplotlib figure."""
    return Plot(title, _svg(title, draw, size), caption)


def _svg(title: str, draw: Draw, size: tuple[float, float]) -> Markup:
    with matplotlib.rc_context(style(PLACEHOLDERS)):
        drawing = Figure(figsize=size, layout="constrained")
        draw(drawing, PLACEHOLDERS)
        buffer = io.StringIO()
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Several drawings share the page: what one refers to must not be found in another.
    prefix = "p" + re.sub(r"\W", "", title)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    svg = svg.replace(PLACEHOLDERS.ink, "var(--ink)").replace(PLACEHOLDERS.muted, "var(--muted)")
    for i, colour in enumerate(PLACEHOLDERS.lines, 1):
        svg = svg.replace(colour, f"var(--c{i})")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1))


def save_png(path: Path, draw: Draw, *, size: tuple[float, float]) -> None:
    """The same drawing on white, for documents."""
    with matplotlib.rc_context(style(ON_WHITE)):
        drawing = Figure(figsize=size, layout="constrained")
        draw(drawing, ON_WHITE)
        buffer = io.BytesIO()
        drawing.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    path.write_bytes(buffer.getvalue())


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    from_zero: bool = False,
    legend_below: bool = False,
) -> Draw:
    """Lines over a common x; what is not finite is a gap, a single point a dot."""

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        for i, line in enumerate(series):
            marker = "o" if np.isfinite(line.y).sum() == 1 else ""
            axes.plot(line.x, line.y, marker=marker, label=line.label, **colours.line(i))
        axes.set(xlabel=x_label, ylabel=y_label)
        if all(np.array_equal(line.x, np.round(line.x)) for line in series):  # there is no epoch 1.5
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        if x_range is not None:
            axes.set_xlim(x_range)
        if from_zero:
            axes.set_ylim(bottom=0)
        if legend_below:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        elif len(series) > 1:
            axes.legend()

    return draw


def bar_chart(names: Sequence[str], values: Sequence[float], *, x_label: str) -> Draw:
    """Horizontal bars with their value, a metric, written at the end, the first on top."""

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        places = np.arange(len(names))[::-1]
        bars = axes.barh(places, values, color=colours.lines[0], height=0.62)
        axes.bar_label(bars, fmt="%.3f", padding=3)
        axes.set_yticks(places, names)
        axes.set_xlabel(x_label)
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")

    return draw


def histogram(
    values: NDArray[np.floating[Any]], *, bins: NDArray[np.float64], x_label: str, mark: float
) -> Draw:
    """Shares of `values` in percent, with a line at `mark`."""

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        shares = np.histogram(values, bins)[0] / max(len(values), 1) * 100
        axes.bar(bins[:-1], shares, np.diff(bins), align="edge", color=colours.lines[0], alpha=0.8)
        axes.axvline(mark, color=colours.lines[1], linestyle=DASHES[1])
        axes.set(xlabel=x_label, ylabel="% of boxes")

    return draw


def size_distribution(groups: Sequence[tuple[str, NDArray[np.float64]]], *, x_label: str) -> Draw:
    """Outlines of the distributions of several sets of sizes over a logarithmic axis, in percent of each."""

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        together = np.concatenate([values for _, values in groups])
        bins = np.geomspace(*_rounded_range(together), 41)
        for i, (label, values) in enumerate(groups):
            shares = np.histogram(values, bins)[0] / max(len(values), 1) * 100
            axes.stairs(shares, bins, label=label, linewidth=1.6, **_edge(colours.line(i)))
        axes.set(xlabel=x_label, ylabel="% of boxes")
        _in_powers_of_two(axes, bins)
        axes.legend()

    return draw


def share_by_size(sizes: NDArray[np.float64], kept: NDArray[np.bool_], *, x_label: str, y_label: str) -> Draw:
    """The share, in percent, of what is `kept` over a logarithmic axis of `sizes`.

    Steps with fewer than `LEAST_VALUES` values are left out: their share says nothing.
    """

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        bins = np.geomspace(*_rounded_range(sizes), 21)
        count = np.histogram(sizes, bins)[0]
        share = np.histogram(sizes[kept], bins)[0] / np.maximum(count, 1) * 100
        middle = np.sqrt(bins[1:] * bins[:-1])
        enough = count >= LEAST_VALUES
        axes.plot(middle[enough], share[enough], marker="o", markersize=4, **colours.line(0))
        axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, 103))
        _in_powers_of_two(axes, bins)

    return draw


def _rounded_range(sizes: NDArray[np.float64]) -> tuple[float, float]:
    """Powers of two around all sizes above 0, one apart where there are none."""
    positive = sizes[sizes > 0]
    if not len(positive):
        return 1.0, 2.0
    low, high = np.floor(np.log2(positive.min())), np.ceil(np.log2(positive.max()))
    return float(2**low), float(2 ** max(high, low + 1))


def _in_powers_of_two(axes: Axes, bins: NDArray[np.float64]) -> None:
    """A logarithmic x over `bins` with ticks at powers of two, written as they are."""
    first, last = (round(np.log2(edge)) for edge in (bins[0], bins[-1]))
    ticks = [2.0**power for power in range(first, last + 1, -(-(last - first) // MOST_TICKS))]
    axes.set_xscale("log", base=2)
    axes.set_xlim(bins[0], bins[-1])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _edge(line: dict[str, Any]) -> dict[str, Any]:
    """A line's colour and dash as patches name them."""
    return {"edgecolor": line["color"], "linestyle": line["linestyle"]}


def size_scatter(boxes_wh: NDArray[np.floating[Any]], anchors_wh: NDArray[np.floating[Any]]) -> Draw:
    """Widths and heights of boxes as a cloud, of anchors as crosses, in px of the input, logarithmic."""

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        plot_cloud(axes, boxes_wh)
        axes.plot(
            anchors_wh[:, 0], anchors_wh[:, 1], "x", color=colours.lines[1], label="anchors", markersize=6
        )
        axes.set(xscale="log", yscale="log", xlabel="width, px of the input", ylabel="height, px")
        for axis in (axes.xaxis, axes.yaxis):  # 20, 50, 100: not powers of ten
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FormatStrFormatter("%g"))
            axis.set_minor_formatter(NullFormatter())
        axes.legend(loc="lower right")

    return draw


def plot_cloud(axes: Axes, boxes_wh: NDArray[np.floating[Any]]) -> None:
    """Points as a bitmap inside the SVG: thousands of elements would make the page slow."""
    # A bitmap keeps its colour in light and dark: this blue stands out from both.
    axes.scatter(
        boxes_wh[:, 0],
        boxes_wh[:, 1],
        s=7,
        color="#3385c6",
        alpha=0.45,
        linewidths=0,
        rasterized=True,
        label="boxes",
    )


def sparkline_points(values: NDArray[np.float64]) -> str:
    """Values from 0 to 1 as points of the template's sparkline, which is 110 x 28."""
    x = np.linspace(1, 109, len(values))
    y = 27 - 26 * np.clip(values, 0, 1)
    return " ".join(f"{a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True))
