"""Why a metric is zero: a self-test of the tools, and the five faults that give boxes no match.

A detector that learns nothing and a pipeline that mixes up ids, frames or classes both end near mAP 0. Each
check asks: would the same detections find more boxes if this one thing were otherwise?
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.evaluation.backends import (
    Backend,
    DetectionRows,
    GroundTruthRows,
    ground_truth_rows,
    image_ranks,
    precision_recall,
    select,
)
from detect.evaluation.evaluator import Metrics, compute_metrics
from detect.evaluation.matching import box_iou_xywh
from detect.types import ClassMap

NEAR_ZERO_MAP = 0.01
"""Below this a detector that has trained for some epochs is more likely miswired than weak."""
CLEAR_GAIN = 0.1
"""A repair explains a zero when it finds this share of all boxes more; chance gives far less."""
MOST = 0.5
"""Share of the boxes found whatever the class: so many must have their class when labels are repaired."""
MATCH_IOU = 0.5

KNOWN_NUMBERS = {
    "mAP": (51 / 101 + 1 / 2) / 2,
    "AP50": (51 / 101 + 1) / 2,
    "AP75": (51 / 101 + 0) / 2,
    "APs": 1.0,  # image 1 alone; the false alarm is of medium size
    "APm": 0.0,
    "APl": 1 / 2,
    "AR1": 1 / 2,
    "AR10": 1 / 2,
    "AR100": 1 / 2,
    "ARs": 1.0,
    "ARm": 0.0,
    "ARl": 1 / 2,
}
"""Results of `self_test`, worked out by hand."""


class ZeroMapCheck(NamedTuple):
    """One possible cause of a zero mAP."""

    name: str
    passed: bool
    message: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name}: {self.message}"


def explain_zero_map(
    annotations: Annotations, detections: DetectionRows, *, image_size: tuple[int, int] | None = None
) -> list[ZeroMapCheck]:
    """Look for what makes mAP zero: id overlap, box scale, xy/yx order, class shift, score threshold.

    The first check that fails is the likely cause, and later ones may fail because of it. Where all pass,
    nothing is mixed up and the detector has not learnt.

    Args:
        annotations: the ground truth.
        detections: as they were scored, `CocoEvaluator.detections`.
        image_size: (H, W) of the network input; lets the box scale check know that frame.
    """
    evidence = _Evidence(annotations, detections)
    return [
        _check_id_overlap(evidence),
        _check_box_scale(evidence, image_size),
        _check_order(evidence),
        _check_class_shift(evidence),
        _check_score_threshold(evidence),
    ]


def ground_truth_metrics(annotations: Annotations) -> Metrics:
    """The ground truth scored as if it were detections: mAP must be 1.0.

    Less means that annotations and evaluation do not fit; -1 that there is no box to find. An image with more
    than 100 boxes of a class has less too, as COCO counts no more detections than that.
    """
    rows = ground_truth_rows(annotations)
    rows = select(rows, ~rows.ignore)
    scores = np.ones(len(rows.labels))
    detections = DetectionRows(rows.image_rows, rows.labels, rows.boxes_xywh, scores)
    return compute_metrics(annotations, detections)


def self_test() -> None:
    """Score three images whose twelve numbers are worked out by hand, with both backends.

    Image 1: a box of class a, found exactly. Image 2: another, missed, and a false alarm. So recall of a ends
    at 1/2 with precision 1 up to there: AP 51/101. Image 3: a box of class b, found with IoU 0.72, above 5 of
    the 10 thresholds: AP 1/2, AP50 1, AP75 0.

    Raises:
        RuntimeError: a tool gives other numbers or fails; the environment is broken, and its versions.
    """
    annotations = _known_annotations()
    detections = DetectionRows(
        image_rows=np.array([0, 1, 2]),
        labels=np.array([1, 1, 2]),
        boxes_xywh=np.array([[0, 0, 20, 20], [200, 200, 50, 50], [0, 0, 100, 72]], dtype=np.float64),
        scores=np.array([0.9, 0.8, 0.7]),
    )
    for backend in get_args(Backend):
        try:
            numbers = compute_metrics(annotations, detections, backend=backend).to_json()
        except Exception as error:
            raise RuntimeError(_broken(backend, f"fails with {type(error).__name__}: {error}")) from error
        for name, expected in KNOWN_NUMBERS.items():
            if not abs(numbers[name] - expected) < 1e-9:
                raise RuntimeError(_broken(backend, f"gives {name} {numbers[name]}, expected {expected}"))


def _known_annotations() -> Annotations:
    boxes = np.array([[0, 0, 20, 20], [10, 10, 60, 60], [0, 0, 100, 100]], dtype=np.float64)
    return Annotations(
        root=Path("self-test"),
        source=Path("self-test"),
        classes=ClassMap(("a", "b"), (1, 2)),
        file_names=np.array([b"1.jpg", b"2.jpg", b"3.jpg"]),
        image_ids=np.array([1, 2, 3]),
        sizes=np.full((3, 2), 320, dtype=np.int32),
        offsets=np.array([0, 1, 2, 3]),
        boxes=boxes,
        labels=np.array([1, 1, 2]),
        ignore=np.zeros(3, dtype=np.bool_),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        annotation_ids=np.array([1, 2, 3]),
    )


def _broken(backend: Backend, what: str) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pycocotools", "faster-coco-eval"))
    return (
        f"self-test of the evaluation: backend {backend!r} {what} on 3 images with a known answer. This "
        f"environment is broken ({versions}): reinstall these packages together"
    )


class _Evidence:
    """What the checks share: the boxes that count, and how many of them a set of detections finds."""

    def __init__(self, annotations: Annotations, detections: DetectionRows) -> None:
        rows = ground_truth_rows(annotations)
        self.ground_truth: GroundTruthRows = select(rows, ~rows.ignore)
        self.detections = detections
        self.num_classes = annotations.classes.num_classes
        self.names = annotations.classes.names
        self.sizes = annotations.sizes.astype(np.float64)
        self.ranks = image_ranks(annotations)
        self.found = self.share_found(detections)
        """Share of the boxes found at IoU 0.5, whatever the class."""

    def share_found(self, detections: DetectionRows, *, by_class: bool = False) -> float:
        """Share of the boxes found at IoU 0.5 by the best 100 detections per image (and class)."""
        truth, num_classes = self.ground_truth, self.num_classes
        if len(truth.labels) == 0 or len(detections.labels) == 0:
            return 0.0
        if not by_class:
            num_classes = 1
            truth = truth._replace(labels=np.ones_like(truth.labels))
            detections = detections._replace(labels=np.ones_like(detections.labels))
        arrays = precision_recall(
            truth, detections, ranks=self.ranks, num_classes=num_classes, backend="faster"
        )
        boxes = np.bincount(truth.labels, minlength=num_classes + 1)[1:]
        recall = arrays.recall[0, :, 0, 2].clip(min=0)
        return float((recall * boxes).sum() / boxes.sum())

    def with_boxes(self, boxes_xywh: NDArray[np.float64]) -> float:
        """`share_found` with other boxes in the place of the detections' own."""
        return self.share_found(self.detections._replace(boxes_xywh=boxes_xywh))


def _check_id_overlap(evidence: _Evidence) -> ZeroMapCheck:
    name = "id overlap"
    detected = np.unique(evidence.detections.image_rows)
    annotated = np.unique(evidence.ground_truth.image_rows)
    shared = np.intersect1d(detected, annotated)
    counts = f"{len(detected)} images have detections, {len(annotated)} have boxes, {len(shared)} have both"
    if len(detected) and not len(shared):
        return ZeroMapCheck(name, False, f"{counts}: the image ids of the two do not belong together")
    for shift in (-1, 1):
        moved = (evidence.detections.image_rows + shift) % len(evidence.ranks)
        found = evidence.share_found(evidence.detections._replace(image_rows=moved))
        if found >= evidence.found + CLEAR_GAIN:
            return ZeroMapCheck(
                name, False, f"{_gain(evidence, found)} if each image had its neighbour's: ids are off by one"
            )
    return ZeroMapCheck(name, True, counts)


def _check_box_scale(evidence: _Evidence, image_size: tuple[int, int] | None) -> ZeroMapCheck:
    boxes_xywh = evidence.detections.boxes_xywh
    file_size = np.tile(evidence.sizes[evidence.detections.image_rows, ::-1], 2)  # (N, 4) as w, h, w, h
    repairs = {
        "were fractions of the image and are scaled to px of the file": boxes_xywh * file_size,
        "were corners (xyxy) and their width and height are taken from those": np.concatenate(
            [boxes_xywh[:, :2], boxes_xywh[:, 2:] - boxes_xywh[:, :2]], axis=1
        ),
    }
    if image_size is not None:
        scale = file_size / np.tile(np.array(image_size[::-1], dtype=np.float64), 2)
        repairs["were px of the network input and are scaled to px of the file"] = boxes_xywh * scale
        repairs["were scaled to px of the file twice and one is undone"] = boxes_xywh / scale
    return _best_repair(evidence, "box scale", repairs)


def _check_order(evidence: _Evidence) -> ZeroMapCheck:
    swapped = evidence.detections.boxes_xywh[:, [1, 0, 3, 2]]
    return _best_repair(evidence, "xy/yx order", {"have x and y swapped": swapped})


def _best_repair(evidence: _Evidence, name: str, repairs: dict[str, NDArray[np.float64]]) -> ZeroMapCheck:
    """Fails when the best of the repaired boxes, keyed by what was wrong, find clearly more."""
    found = {what: evidence.with_boxes(boxes_xywh) for what, boxes_xywh in repairs.items()}
    best = max(found, key=lambda what: found[what])
    if found[best] >= evidence.found + CLEAR_GAIN:
        return ZeroMapCheck(name, False, f"{_gain(evidence, found[best])} if they {best}")
    return ZeroMapCheck(name, True, f"{evidence.found:.1%} of the boxes are found whatever the class")


def _gain(evidence: _Evidence, found: float) -> str:
    return f"detections find {evidence.found:.1%} of the boxes, and would find {found:.1%}"


def _check_class_shift(evidence: _Evidence) -> ZeroMapCheck:
    """Fails where other labels would give most of the boxes that are found their class.

    Less than most is chance: a detector that calls everything by one class finds more when that class is
    taken for a commoner one.
    """
    name, detections = "class shift", evidence.detections
    found = evidence.share_found(detections, by_class=True)
    intro = f"{found:.1%} of the boxes are found with their class"
    enough = max(found + CLEAR_GAIN, MOST * evidence.found)
    for shift in (-1, 1):
        labels = detections.labels + shift
        known = (labels >= 1) & (labels <= evidence.num_classes)
        repaired = evidence.share_found(select(detections._replace(labels=labels), known), by_class=True)
        if repaired >= enough:
            message = (
                f"{intro}, {repaired:.1%} if every label were {shift:+d}: the labels of the detections are "
                "shifted"
            )
            return ZeroMapCheck(name, False, message)
    order = likeliest_order(evidence.ground_truth, detections, evidence.num_classes)
    repaired = evidence.share_found(detections._replace(labels=order[detections.labels]), by_class=True)
    if repaired >= enough:
        named = [
            f"{evidence.names[k - 1]} would be {evidence.names[order[k] - 1]}"
            for k in range(1, len(order))
            if order[k] != k
        ]
        message = (
            f"{intro}, {repaired:.1%} if the classes had another order than {', '.join(evidence.names[:8])}: "
            f"{', '.join(named[:8])}"
        )
        return ZeroMapCheck(name, False, message)
    return ZeroMapCheck(name, True, intro)


def likeliest_order(
    ground_truth: GroundTruthRows, detections: DetectionRows, num_classes: int
) -> NDArray[np.int64]:
    """(K + 1,) which label each label of the detections stands for, by the boxes that they lie on.

    One to one, the commonest pair first; 0 stays 0.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    truth = select(ground_truth, np.argsort(ground_truth.image_rows, kind="stable"))
    found = select(detections, np.argsort(detections.image_rows, kind="stable"))
    images = np.intersect1d(truth.image_rows, found.image_rows)
    truth_ends, found_ends = (
        np.stack([np.searchsorted(rows.image_rows, images, side) for side in ("left", "right")], axis=1)
        for rows in (truth, found)
    )
    for boxes, rows in zip(truth_ends.tolist(), found_ends.tolist(), strict=True):
        here, seen = select(truth, slice(*boxes)), select(found, slice(*rows))
        no_crowd = np.zeros(len(here.labels), dtype=np.bool_)
        over = np.nonzero(box_iou_xywh(seen.boxes_xywh, here.boxes_xywh, no_crowd) >= MATCH_IOU)
        np.add.at(counts, (seen.labels[over[0]], here.labels[over[1]]), 1)
    order = np.full(num_classes + 1, -1, dtype=np.int64)
    order[0] = 0
    taken = {0}
    for flat in np.argsort(-counts, axis=None, kind="stable"):
        label, stands_for = divmod(int(flat), num_classes + 1)
        if order[label] < 0 and stands_for not in taken:
            order[label] = stands_for
            taken.add(stands_for)
    return order


def _check_score_threshold(evidence: _Evidence) -> ZeroMapCheck:
    name = "score threshold"
    scores, boxes = evidence.detections.scores, len(evidence.ground_truth.labels)
    if len(scores) == 0:
        return ZeroMapCheck(name, False, f"no detections for {boxes} boxes: lower the score threshold")
    message = f"{len(scores)} detections for {boxes} boxes, scores {scores.min():.3g} to {scores.max():.3g}"
    if 2 * len(scores) < boxes:
        return ZeroMapCheck(
            name, False, f"{message}: too few are left to find half of them, lower the threshold"
        )
    return ZeroMapCheck(name, True, message)
