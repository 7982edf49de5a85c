"""mAP against what it costs: our runs, and the points of the MobileNetV3 paper's Table 6 beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, Bbox, BboxBase

from detect.inspection.models import TABLE_6, PaperRow
from detect.report.latency_files import LatencyRow
from detect.report.plots import Colours, Draw
from detect.report.run_groups import RunGroup

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANEL_INCHES = (4.6, 3.4)
LABEL_PT, LABEL_GAP_PT = 8, 4
LINE_PT = 1.2 * LABEL_PT
MOST_TICKS = 5
"""Along the cost: four decimals of as many stand side by side in a panel."""
POINT_PT = 5
"""Half the side of the square around a point that labels leave free."""
OFFSETS = tuple(
    (x, y) for reach in (LABEL_GAP_PT, 15, 26) for x in (LABEL_GAP_PT, -LABEL_GAP_PT) for y in (reach, -reach)
)
"""From a point to the nearest corner of its label, pt; near before far, right before left."""


class Point(NamedTuple):
    """One network on one machine."""

    label: str
    cost: float
    mAP: float
    """Or what else `Panel.y_label` says."""
    kind: str
    """Points of a kind are drawn alike and share a front."""
    spread: float = 0.0
    """Standard deviation of mAP over seeds."""


class Panel(NamedTuple):
    """One plot."""

    title: str
    cost_label: str
    points: list[Point]
    y_label: str = "mAP"


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
            Panel("This comparison", "ms per image, median, from the file to its boxes", ours),
            Panel("The paper: COCO test-dev, Pixel 1", "ms per image, the network alone", paper_ms),
        ]
    if counted:
        found.append(Panel("This comparison", "billion multiply-adds", counted))
    return [*found, Panel("The paper: COCO test-dev", "billion multiply-adds", paper_madds)]


def _point(group: RunGroup, kind: str, cost: float) -> Point | None:
    mean = group.mean("mAP")
    if mean is None:
        return None
    return Point(group.name, cost, mean, kind, group.spread("mAP") or 0.0)


def _paper_point(row: PaperRow, cost: float) -> Point:
    return Point(row.row, cost, row.mAP_fraction, "Table 6")


def front(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in both cost and mAP, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.mAP)):
        if not best or point.mAP > best[-1].mAP:
            best.append(point)
    return best


def draw_panel(panel: Panel) -> Draw:
    """One panel alone."""

    def draw(drawing: Figure, colours: Colours) -> None:
        axes = drawing.subplots()
        _fill(axes, panel, colours)
        _write_labels(drawing, [(axes, panel)], colours)

    return draw


def draw_panels(shown: Sequence[Panel]) -> Draw:
    """All panels in one drawing, two per row."""

    def draw(drawing: Figure, colours: Colours) -> None:
        rows = -(-len(shown) // 2)
        all_axes = drawing.subplots(rows, min(2, len(shown)), squeeze=False).ravel()
        for axes, panel in zip(all_axes, shown, strict=False):
            _fill(axes, panel, colours)
            axes.set_title(panel.title, fontsize="medium")
        for axes in all_axes[len(shown) :]:
            axes.set_axis_off()
        _write_labels(drawing, list(zip(all_axes, shown, strict=False)), colours)

    return draw


def _fill(axes: Axes, panel: Panel, colours: Colours) -> None:
    kinds = list(dict.fromkeys(point.kind for point in panel.points))
    for i, kind in enumerate(kinds):
        own = [point for point in panel.points if point.kind == kind]
        colour = colours.lines[i % len(colours.lines)]
        axes.errorbar(
            [point.cost for point in own],
            [point.mAP for point in own],
            yerr=[point.spread for point in own],
            fmt=MARKERS[i % len(MARKERS)],
            color=colour,
            capsize=2,
            label=kind,
        )
        best = front(own)
        axes.step(
            [point.cost for point in best],
            [point.mAP for point in best],
            where="post",
            color=colour,
            linewidth=1,
            alpha=0.7,
        )
    axes.set(xlabel=panel.cost_label, ylabel=panel.y_label)
    axes.margins(x=0.25, y=0.16)
    axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    if len(kinds) > 1:
        axes.legend(loc="lower right")


def _write_labels(drawing: Figure, filled: Sequence[tuple[Axes, Panel]], colours: Colours) -> None:
    """The name of each point beside it, with a line to it where it had to move away."""
    drawing.draw_without_rendering()  # settles limits and layout, on which the places depend
    to_pt = Affine2D().scale(72 / drawing.dpi)
    for axes, panel in filled:
        points = sorted(panel.points, key=lambda point: point.cost)
        places = (axes.transData + to_pt).transform([(point.cost, point.mAP) for point in points])
        labels = [point.label for point in points]
        offsets = label_offsets(places.tolist(), labels, within=axes.bbox.transformed(to_pt))
        for point, (x, y) in zip(points, offsets, strict=True):
            corner = (0 if x > 0 else 1, 0 if y > 0 else 1)
            leader = {"arrowstyle": "-", "color": colours.muted, "linewidth": 0.6}
            leader |= {"relpos": corner, "shrinkA": 0, "shrinkB": 3}
            axes.annotate(
                point.label,
                (point.cost, point.mAP),
                xytext=(x, y),
                textcoords="offset points",
                fontsize=LABEL_PT,
                ha="left" if x > 0 else "right",
                va="bottom" if y > 0 else "top",
                arrowprops=leader if abs(y) > LABEL_GAP_PT else None,
            )


def label_offsets(
    places: Sequence[tuple[float, float]], labels: Sequence[str], *, within: BboxBase
) -> list[tuple[float, float]]:
    """Offset of each label from its point, so that it hides as little of the others as can be.

    Args:
        places: of the points, in pt.
        labels: their text.
        within: the axes in pt; a label leaves them as little as can be.

    Returns:
        One of `OFFSETS` for each label.
    """
    points = [Bbox([[x, y], [x, y]]).padded(POINT_PT) for x, y in places]
    written: list[Bbox] = []
    chosen: list[tuple[float, float]] = []
    for row, (place, label) in enumerate(zip(places, labels, strict=True)):
        taken = points[:row] + points[row + 1 :] + written
        boxes = [_label_box(place, label, offset) for offset in OFFSETS]
        spoilt = [
            # A few square points are no reason to move away.
            sum(_shared_area(box, other) for other in taken) - _shared_area(box, within) + abs(offset[1])
            for box, offset in zip(boxes, OFFSETS, strict=True)
        ]
        best = int(np.argmin(spoilt))
        written.append(boxes[best])
        chosen.append(OFFSETS[best])
    return chosen


def _label_box(place: tuple[float, float], label: str, offset: tuple[float, float]) -> Bbox:
    width = TextPath((0, 0), label, size=LABEL_PT).get_extents().width
    left = place[0] + offset[0] - (0 if offset[0] > 0 else width)
    bottom = place[1] + offset[1] - (0 if offset[1] > 0 else LINE_PT)
    return Bbox.from_bounds(left, bottom, width, LINE_PT)


def _shared_area(one: BboxBase, other: BboxBase) -> float:
    shared = Bbox.intersection(one, other)
    return shared.width * shared.height if shared else 0.0
