from __future__ import annotations

from pathlib import Path

from detect.models import TABLE_6
from detect.report.latency_files import assign, read_benchmark
from detect.report.pareto import Point, front, label_sides, panels
from detect.report.run_files import read_run
from detect.report.run_groups import group_runs
from detect.report.write import read_model
from tests.run_cases import make_run
from tests.test_report_latency_files import row, write


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
    rows = read_benchmark(write(tmp_path / "b.json", row(tmp_path / "a" / "m.onnx", 10.0)))
    shown = panels(groups, assign(rows, groups)[0])
    assert [len(panel.points) for panel in shown] == [1, len(TABLE_6), 1, len(TABLE_6)]
    assert shown[0].points == [Point("a", 10.0, 100 * metrics.mAP, "onnxruntime")]
    assert ("V3-Small†", 43.0, 16.1) in [point[:3] for point in shown[1].points]
    assert ("V3-Small†", 0.16, 16.1) in [point[:3] for point in shown[3].points]


def test_panels__nothing_scored__the_paper_alone() -> None:
    assert [panel.title for panel in panels([], {})] == ["The paper: COCO test-dev"]


def test_label_sides__neighbours_give_way() -> None:
    assert label_sides([(50, 50)], ["alone"]) == [(True, True)]
    first, second = label_sides([(50, 50), (60, 51)], ["a long label", "another one"])
    assert first != second
