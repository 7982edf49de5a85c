"""Metrics as a person reads them."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from detect.evaluation.evaluator import ClassMetrics, Metrics
from detect.evaluation.metrics import NAMES, show_metric

PER_ROW = 3


def metrics_table(metrics: Metrics, *, per_class: bool = True) -> Table:
    """The twelve numbers, fractions of one, and a row per class; "-" where there is no ground truth."""
    layout = Table.grid()
    layout.add_row(_summary_table(metrics))
    if (baseline := metrics.baseline) is not None:
        layout.add_row(
            f"The best constant boxes: mAP {show_metric(baseline.mAP)}, AP50 {show_metric(baseline.AP50)}"
        )
    if per_class:
        layout.add_row(_class_table(metrics.per_class))
    return layout


def _summary_table(metrics: Metrics) -> Table:
    images = "1 image" if metrics.images == 1 else f"{metrics.images} images"
    table = Table(title=f"COCO metrics, {images}", title_justify="left", box=None, show_header=False)
    for _ in range(PER_ROW):
        table.add_column(style="bold")
        table.add_column(justify="right", min_width=6)
    for start in range(0, len(NAMES), PER_ROW):
        names = NAMES[start : start + PER_ROW]
        table.add_row(*(cell for name in names for cell in (name, show_metric(getattr(metrics, name)))))
    return table


def _class_table(per_class: dict[str, ClassMetrics]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class")
    for heading in ("AP", "AP50", "images", "boxes"):
        table.add_column(heading, justify="right")
    for name, figures in per_class.items():
        table.add_row(
            Text(name),
            show_metric(figures.AP),
            show_metric(figures.AP50),
            str(figures.images),
            str(figures.boxes),
        )
    return table
