from __future__ import annotations

import pytest
from rich.console import Console

from detect.evaluation.evaluator import ClassMetrics, Metrics
from detect.evaluation.metrics_table import metrics_table


@pytest.fixture
def metrics() -> Metrics:
    numbers = [0.466, 0.69, 0.5, -1.0, 0.25, 0.4, 0.1, 0.2, 0.3, -1.0, 0.35, 0.45]
    per_class = {"cell": ClassMetrics(0.466, 0.69, 12, 34), "[bold]": ClassMetrics(-1.0, -1.0, 0, 0)}
    return Metrics(*numbers, per_class=per_class, images=72, backend="faster")


def shown(metrics: Metrics, *, per_class: bool = True) -> list[list[str]]:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(metrics_table(metrics, per_class=per_class))
    return [line.split() for line in capture.get().splitlines()]


def test_metrics_table__numbers_in_fractions_and_dash_for_none(metrics: Metrics) -> None:
    lines = shown(metrics)
    assert ["COCO", "metrics,", "72", "images"] in lines
    assert ["mAP", "0.466", "AP50", "0.690", "AP75", "0.500"] in lines
    assert ["APs", "-", "APm", "0.250", "APl", "0.400"] in lines
    assert ["AR1", "0.100", "AR10", "0.200", "AR100", "0.300"] in lines
    assert ["cell", "0.466", "0.690", "12", "34"] in lines


def test_metrics_table__class_name_that_looks_like_markup(metrics: Metrics) -> None:
    assert ["[bold]", "-", "-", "0", "0"] in shown(metrics)


def test_metrics_table__summary_alone(metrics: Metrics) -> None:
    assert len(shown(metrics, per_class=False)) == 5
