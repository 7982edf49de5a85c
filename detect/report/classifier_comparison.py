"""Runs of `detect pretrain` side by side: accuracy against multiply-adds, as in the V3 paper's Figure 1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detect.inspection.classifiers import MILLION, CountedClassifier
from detect.report.classifier_page import METRICS, count_run
from detect.report.comparison_page import markdown_table, with_spread
from detect.report.html import DASH, write_page
from detect.report.pareto import PANEL_INCHES, Panel, Point, draw_panel
from detect.report.plots import plot, save_png
from detect.report.run_files import RunFiles
from detect.report.run_groups import RunGroup, differing_settings, group_runs
from detect.system.files import write_atomically

KIND = "this comparison"
MADDS = "million multiply-adds"


def compare_classifiers(runs: Sequence[RunFiles], output: Path, *, json_file: Path | None = None) -> None:
    """Write index.html, table.md and pareto.png of runs of `detect pretrain` into `output`.

    Seeds of one configuration are one row. Accuracy over multiply-adds is the paper's Figure 1.
    """
    notices: list[str] = []
    groups = group_runs([(run, None) for run in runs])
    counts = [count_run(group.runs[0], notices) for group in groups]
    headings = ["run", "seeds", *METRICS, "params (M)", "MAdds (M)"]
    ranked = sorted(zip(groups, counts, strict=True), key=lambda pair: -(pair[0].mean(METRICS[0]) or -1.0))
    rows = [_comparison_row(group, counted) for group, counted in ranked]
    points = [
        Point(group.name, counted.counts.madds / MILLION, mean, KIND, group.spread(METRICS[0]) or 0.0)
        for group, counted in ranked
        if counted is not None and (mean := group.mean(METRICS[0])) is not None
    ]
    panel = Panel("This comparison", MADDS, points, y_label=METRICS[0])
    text = f"# Comparison\n\n{markdown_table(headings, rows)}\nMetrics are fractions of one.\n"
    write_atomically(output / "table.md", text)
    values = {
        "title": "Comparison",
        "subtitle": f"{len(runs)} runs of {len(groups)} classifiers",
        "notices": notices,
        "headings": headings,
        "rows": rows,
        "costs": [plot(f"{METRICS[0]}: {MADDS}", draw_panel(panel), size=PANEL_INCHES)] if points else [],
        "groups": [group.name for group in groups],
        "settings": [
            (key, [str(value) for value in of_groups])
            for key, of_groups in differing_settings(groups).items()
        ],
    }
    write_page(output / "index.html", "classifiers.html", values)
    if points:
        save_png(output / "pareto.png", draw_panel(panel), size=PANEL_INCHES)
    if json_file is not None:
        content = {"classifiers": [_json(group, counted) for group, counted in ranked]}
        write_atomically(json_file, json.dumps(content, indent=1))


def _comparison_row(group: RunGroup, counted: CountedClassifier | None) -> list[str]:
    row = [group.name, str(len(group.runs)), *(with_spread(group, metric) for metric in METRICS)]
    if counted is None:
        return [*row, DASH, DASH]
    return [*row, f"{counted.counts.params / MILLION:.2f}", f"{counted.counts.madds / MILLION:.1f}"]


def _json(group: RunGroup, counted: CountedClassifier | None) -> dict[str, Any]:
    return {
        "name": group.name,
        "runs": [str(run.folder) for run in group.runs],
        "metrics": {
            name: {"mean": group.mean(name), "spread": group.spread(name), "values": group.values(name)}
            for name in METRICS
        },
        "params": counted.counts.params if counted else None,
        "madds": counted.counts.madds if counted else None,
    }
