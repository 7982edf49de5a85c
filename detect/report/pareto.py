"""mAP against what it costs: our runs, and the points of the MobileNetV3 paper's Table 6 beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detect.models import TABLE_6, PaperRow
from detect.report.latency_files import LatencyRow
from detect.report.plots import Colours, Draw
from detect.report.run_groups import RunGroup

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANEL_INCHES = (4.4, 3.4)
LABEL_PT, LABEL_GAP_PT = 8, 4
LETTER_PER_PT = 0.6
"""Mean width of a letter in sizes of the font."""
SIDES = ((True, True), (True, False), (False, True), (False, False))
"""Right or left of a point, above or below, in the order of preference."""
Rect = tuple[float, float, float, float]


class Point(NamedTuple):
    """One detector on one machine."""

    label: str
    cost: float
    percent: float
    """mAP."""
    kind: str
    """Points of a kind are drawn alike and share a front."""
    spread: float = 0.0
    """Standard deviation of mAP over seeds, percent."""


class Panel(NamedTuple):
    """One plot."""

    title: str
    cost_label: str
    points: list[Point]


def panels(groups: Sequence[RunGroup], latency: dict[str, dict[str, LatencyRow]]) -> list[Panel]:
    """Ours over latency and multiply-adds, each with the paper's own beside it; empty ones are left out."""
    by_latency = [
        _point(group, setting, row.total_ms)
        for group in groups
        for setting, row in latency.get(group.name, {}).items()
    ]
    by_madds = [
        _point(group, "this comparison", group.model.counts.madds / 1e9)
        for group in groups
        if group.model is not None
    ]
    ours = [point for point in by_latency if point is not None]
    counted = [point for point in by_madds if point is not None]
    paper_ms = [_paper_point(row, float(row.latency_ms)) for row in TABLE_6]
    paper_madds = [_paper_point(row, float(row.madds_b)) for row in TABLE_6]
    found = []
    if ours:
        found += [
            Panel("This comparison", "ms an image, median, from the file to its boxes", ours),
            Panel("The paper: COCO test-dev, Pixel 1", "ms an image, the network alone", paper_ms),
        ]
    if counted:
        found.append(Panel("This comparison", "billion multiply-adds", counted))
    return [*found, Panel("The paper: COCO test-dev", "billion multiply-adds", paper_madds)]


def _point(group: RunGroup, kind: str, cost: float) -> Point | None:
    mean = group.mean("mAP")
    if mean is None:
        return None
    return Point(group.name, cost, 100 * mean, kind, 100 * (group.spread("mAP") or 0.0))


def _paper_point(row: PaperRow, cost: float) -> Point:
    return Point(row.row, cost, float(row.mAP), "Table 6")


def front(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in both cost and mAP, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.percent)):
        if not best or point.percent > best[-1].percent:
            best.append(point)
    return best


def draw_panel(panel: Panel) -> Draw:
    """One panel alone."""

    def draw(drawing: Figure, colours: Colours) -> None:
        _fill(drawing.subplots(), panel, colours)

    return draw


def draw_panels(shown: Sequence[Panel]) -> Draw:
    """All panels in one picture, two a row."""

    def draw(drawing: Figure, colours: Colours) -> None:
        rows = -(-len(shown) // 2)
        all_axes = drawing.subplots(rows, min(2, len(shown)), squeeze=False).ravel()
        for axes, panel in zip(all_axes, shown, strict=False):
            _fill(axes, panel, colours)
            axes.set_title(panel.title, fontsize="medium")
        for axes in all_axes[len(shown) :]:
            axes.set_axis_off()

    return draw


def _fill(axes: Axes, panel: Panel, colours: Colours) -> None:
    kinds = list(dict.fromkeys(point.kind for point in panel.points))
    for i, kind in enumerate(kinds):
        own = [point for point in panel.points if point.kind == kind]
        colour = colours.lines[i % len(colours.lines)]
        axes.errorbar(
            [point.cost for point in own],
            [point.percent for point in own],
            yerr=[point.spread for point in own],
            fmt=MARKERS[i % len(MARKERS)],
            color=colour,
            capsize=2,
            label=kind,
        )
        best = front(own)
        axes.step(
            [point.cost for point in best],
            [point.percent for point in best],
            where="post",
            color=colour,
            linewidth=1,
            alpha=0.7,
        )
    axes.set(xlabel=panel.cost_label, ylabel="mAP, percent")
    axes.margins(0.16)
    if len(kinds) > 1:
        axes.legend(loc="lower right")
    _write_labels(axes, panel.points)


def _write_labels(axes: Axes, points: Sequence[Point]) -> None:
    """The name of each point beside it."""
    axes.autoscale_view()  # matplotlib settles the limits when it draws, and places depend on them
    places = axes.transData.transform([(point.cost, point.percent) for point in points])
    drawing = axes.get_figure(root=True)
    assert drawing is not None
    pt_per_px = 72 / drawing.dpi
    sides = label_sides([(x, y) for x, y in places * pt_per_px], [point.label for point in points])
    for point, (right, above) in zip(points, sides, strict=True):
        axes.annotate(
            point.label,
            (point.cost, point.percent),
            xytext=(LABEL_GAP_PT if right else -LABEL_GAP_PT, LABEL_GAP_PT if above else -LABEL_GAP_PT),
            textcoords="offset points",
            fontsize=LABEL_PT,
            ha="left" if right else "right",
            va="bottom" if above else "top",
        )


def label_sides(places: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[tuple[bool, bool]]:
    """(right, above) of its point for each label, so that it hides as little of the others as can be.

    Args:
        places: of the points, in pt.
        labels: their text.
    """
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in places]
    sides = []
    for place, label in zip(places, labels, strict=True):
        hidden = {}
        for side in SIDES:
            rectangle = _label_rectangle(place, label, side)
            hidden[side] = sum(_shared_area(rectangle, other) for other in taken)
        best = min(hidden, key=hidden.__getitem__)
        taken.append(_label_rectangle(place, label, best))
        sides.append(best)
    return sides


def _label_rectangle(place: tuple[float, float], label: str, side: tuple[bool, bool]) -> Rect:
    """Left, bottom, right, top in pt."""
    width = LETTER_PER_PT * LABEL_PT * len(label)
    left = place[0] + (LABEL_GAP_PT if side[0] else -LABEL_GAP_PT - width)
    bottom = place[1] + (LABEL_GAP_PT if side[1] else -LABEL_GAP_PT - LABEL_PT)
    return left, bottom, left + width, bottom + LABEL_PT


def _shared_area(one: Rect, other: Rect) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
