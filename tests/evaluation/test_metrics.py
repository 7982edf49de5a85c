from __future__ import annotations

from dataclasses import fields

import pytest

from detect.evaluation.evaluator import Metrics
from detect.evaluation.metrics import AREAS, LIMITS, METRICS, NAMES, metric_names, show_metric


def test_metrics__are_the_fields_of_a_result_in_order() -> None:
    assert NAMES == tuple(field.name for field in fields(Metrics) if field.type == "float")
    assert all(metric.area in AREAS and metric.limit in LIMITS and metric.mode == "max" for metric in METRICS)


@pytest.mark.parametrize(
    ("fraction", "shown"), [(0.4567, "0.457"), (0.0, "0.000"), (-1.0, "-"), (None, "-"), (float("nan"), "-")]
)
def test_show_metric__three_decimals__dash_for_nothing(fraction: float | None, shown: str) -> None:
    assert show_metric(fraction) == shown


def test_metric_names__where_each_is_shown() -> None:
    assert metric_names("epoch") == ("mAP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
    assert metric_names("brief") == ("mAP", "AP50", "AP75", "APs", "APm", "APl")
    assert metric_names("comparison") == ("mAP", "AP50", "APs", "APm", "APl")
