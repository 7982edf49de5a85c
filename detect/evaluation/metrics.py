"""COCO's twelve numbers in one table: what each measures, which way it improves, and where it is shown."""

from __future__ import annotations

from typing import Literal, NamedTuple

Area = Literal["all", "small", "medium", "large"]
AREAS: tuple[Area, ...] = ("all", "small", "medium", "large")
"""COCO's ranges of annotated area, in the order of its arrays: small below 32^2 px^2, large from 96^2."""
LIMITS = (1, 10, 100)
"""COCO's limits of detections per image and class, in the order of its arrays."""
Place = Literal["epoch", "brief", "comparison"]
"""epoch: logged as val/NAME after every epoch, and at the head of a report; brief: in the rows that training
prints and in the table of a reproduction; comparison: in the table of several runs."""


class Metric(NamedTuple):
    """One number, a fraction of one; -1 where there is no ground truth to measure on."""

    name: str
    kind: Literal["precision", "recall"]
    iou: float | None = None
    """The IoU threshold; None: the mean over 0.5, 0.55, ..., 0.95."""
    area: Area = "all"
    limit: int = 100
    """Detections per image and class; one of `LIMITS`."""
    places: tuple[Place, ...] = ()
    chart: str = ""
    """Title of the report's chart that has its curve; empty: none."""
    mode: Literal["max", "min"] = "max"
    """Which values are better, in Lightning's words."""


BY_SIZE = "mAP by size of box"
METRICS = (
    Metric("mAP", "precision", places=("epoch", "brief", "comparison"), chart="mAP"),
    Metric("AP50", "precision", iou=0.5, places=("epoch", "brief", "comparison"), chart="mAP"),
    Metric("AP75", "precision", iou=0.75, places=("epoch", "brief"), chart="mAP"),
    Metric("APs", "precision", area="small", places=("epoch", "brief", "comparison"), chart=BY_SIZE),
    Metric("APm", "precision", area="medium", places=("epoch", "brief", "comparison"), chart=BY_SIZE),
    Metric("APl", "precision", area="large", places=("epoch", "brief", "comparison"), chart=BY_SIZE),
    Metric("AR1", "recall", limit=1),
    Metric("AR10", "recall", limit=10),
    Metric("AR100", "recall", places=("epoch",)),
    Metric("ARs", "recall", area="small"),
    Metric("ARm", "recall", area="medium"),
    Metric("ARl", "recall", area="large"),
)
"""In the order of the metrics JSON."""
NAMES = tuple(metric.name for metric in METRICS)


def show_metric(fraction: float | None) -> str:
    """A metric for people: a fraction of one with three decimals; "-" for None, NaN and COCO's -1."""
    return "-" if fraction is None or not fraction >= 0 else f"{fraction:.3f}"


def metric_names(place: Place) -> tuple[str, ...]:
    """Names of the metrics that are shown at `place`."""
    return tuple(metric.name for metric in METRICS if place in metric.places)
