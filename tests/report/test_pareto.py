from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from detect.inspection.models import TABLE_6
from detect.report.latency_files import assign, read_benchmark
from detect.report.pareto import (
    OFFSETS,
    PANEL_INCHES,
    Panel,
    Point,
    draw_panels,
    front,
    label_offsets,
    panels,
)
from detect.report.plots import ON_WHITE
from detect.report.run_files import read_run
from detect.report.run_groups import group_runs
from detect.report.run_page import read_model
from tests.report.test_latency_files import row, write
from tests.run_cases import give_checkpoint, make_run


def test_front__what_no_other_beats() -> None:
    points = [
        Point(name, cost, mAP, "k")
        for name, cost, mAP in (("a", 3, 9), ("b", 1, 5), ("c", 2, 5), ("d", 3, 8))
    ]
    assert [point.label for point in front(points)] == ["b", "a"]
    assert front([]) == []


def test_panels__ours_with_the_papers_beside(tmp_path: Path, coco_root: Path) -> None:
    metrics = make_run(tmp_path / "a", coco_root)
    run = read_run(tmp_path / "a")
    groups = group_runs([(run, read_model(run, []))])
    measured = row("m.onnx", 10.0, checkpoint_sha256=give_checkpoint(tmp_path / "a", "weights"))
    rows = read_benchmark(write(tmp_path / "b.json", measured))
    shown = panels(groups, assign(rows, groups)[0])
    assert [len(panel.points) for panel in shown] == [1, len(TABLE_6), 1, len(TABLE_6)]
    assert shown[0].points == [Point("a", 10.0, metrics.mAP, "onnxruntime")]
    assert ("V3-Small†", 43.0, 0.161) in [point[:3] for point in shown[1].points]
    assert ("V3-Small†", 0.16, 0.161) in [point[:3] for point in shown[3].points]


def test_panels__nothing_scored__the_paper_alone() -> None:
    assert [panel.title for panel in panels([], {})] == ["The paper: COCO test-dev"]


WITHIN = Bbox.from_extents(0, 0, 200, 100)


def test_label_offsets__neighbours_give_way() -> None:
    assert label_offsets([(50, 50)], ["alone"], within=WITHIN) == [OFFSETS[0]]
    first, second = label_offsets([(50, 50), (60, 51)], ["a long label", "another one"], within=WITHIN)
    assert first != second


def test_label_offsets__stay_within_the_axes() -> None:
    corners = [(8.0, 50.0), (192.0, 92.0), (192.0, 8.0)]
    left, top, bottom = label_offsets(corners, ["V3-Small†"] * 3, within=WITHIN)
    assert left[0] > 0
    assert top[0] < 0 > top[1]
    assert bottom[0] < 0 < bottom[1]


def test_draw_panels__no_label_of_the_papers_hides_another_or_leaves_its_axes() -> None:
    drawing = Figure(figsize=(2 * PANEL_INCHES[0], PANEL_INCHES[1]), layout="constrained")
    draw_panels(panels([], {}) * 2)(drawing, ON_WHITE)
    drawing.draw_without_rendering()
    for axes in drawing.axes:
        boxes = [Text.get_window_extent(label) for label in axes.texts]
        assert len(boxes) == len(TABLE_6)
        assert all(axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 for box in boxes)
        for place, box in enumerate(boxes):
            assert not box.count_overlaps(boxes[:place])


def test_draw_panels__narrow_range_of_costs__ticks_stand_apart() -> None:
    points = [Point(name, cost, 0.2, "ours") for name, cost in (("a", 1.27), ("b", 1.2827))]
    drawing = Figure(figsize=(2 * PANEL_INCHES[0], PANEL_INCHES[1]), layout="constrained")
    draw_panels([Panel("This comparison", "ms per image", points)] * 2)(drawing, ON_WHITE)
    drawing.draw_without_rendering()
    for axes in drawing.axes:
        ticks = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(ticks) > 2
        assert all(one.x1 < other.x0 for one, other in pairwise(sorted(ticks, key=lambda box: box.x0)))
