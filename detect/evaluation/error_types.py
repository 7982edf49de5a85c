"""What a detector does wrong, in TIDE's terms, and how much AP50 each kind of error costs.

Our own, for the authors' package brings OpenCV, pandas and seaborn along; a test compares the two.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors" (arXiv 2008.08115),
section 2; details as in tidecv 1.0.1. One difference: a detection in a crowd or difficult box is no error.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.evaluation.average_precision import Ranking, average_precision
from detect.evaluation.backends import DetectionRows, GroundTruthRows, select
from detect.evaluation.matching import UNMATCHED, box_iou_xywh, match_detections

POSITIVE_IOU = 0.5
BACKGROUND_IOU = 0.1


class Kind(IntEnum):
    """What became of a detection, or of a box that none found."""

    FOUND = 0
    IGNORED = 1
    CLASSIFICATION = 2
    LOCALISATION = 3
    BOTH = 4
    DUPLICATE = 5
    BACKGROUND = 6
    MISSED = 7


EXPLAINED = {
    Kind.CLASSIFICATION: "right place, wrong class",
    Kind.LOCALISATION: "right class, IoU between 0.1 and 0.5",
    Kind.BOTH: "wrong class and badly placed",
    Kind.DUPLICATE: "the object was found already, with a better score",
    Kind.BACKGROUND: "nothing is annotated there",
    Kind.MISSED: "a box that no detection is near enough to explain",
}
"""The six main errors, in TIDE's order."""


class Outcomes(NamedTuple):
    """What became of each of N detections and each of M boxes."""

    detections: DetectionRows
    """Best first within each class."""
    kinds: NDArray[np.int64]
    """(N,) a `Kind`."""
    box_rows: NDArray[np.int64]
    """(N,) the box that was found, or that the error is about; -1: none."""
    iou: NDArray[np.float64]
    """(N,) with that box; for the rest the best IoU with any box."""
    confused_rows: NDArray[np.int64]
    """(N,) the box of another class, found by nobody, that a false positive covers with IoU 0.5; -1: none."""
    found_boxes: NDArray[np.bool_]
    """(M,) boxes that a detection of their class found."""


def classify_detections(
    annotations: Annotations, ground_truth: GroundTruthRows, detections: DetectionRows
) -> Outcomes:
    """Sort every detection into found, ignored or one of five errors.

    Args:
        annotations: whose ids decide ties.
        ground_truth: its boxes, as `ground_truth_rows(annotations)`.
        detections: of its images, in any order.
    """
    matches = match_detections(annotations, ground_truth, detections, iou_thresholds=np.array([POSITIVE_IOU]))
    matched, found = matches.matched_idx[0], matches.found[0]
    found_boxes = np.zeros(len(ground_truth.labels), dtype=np.bool_)
    found_boxes[matched[found]] = True
    kinds = np.where(found, Kind.FOUND, Kind.BACKGROUND).astype(np.int64)
    kinds[matches.ignored[0]] = Kind.IGNORED
    outcomes = Outcomes(
        detections=matches.detections,
        kinds=kinds,
        box_rows=matched.copy(),
        iou=np.zeros(len(kinds)),
        confused_rows=np.full(len(kinds), UNMATCHED),
        found_boxes=found_boxes,
    )
    counted = np.flatnonzero(~ground_truth.ignore)
    by_image = counted[np.argsort(ground_truth.image_rows[counted], kind="stable")]
    rows = np.argsort(outcomes.detections.image_rows, kind="stable")
    images = np.unique(outcomes.detections.image_rows)
    edges = [*images, images[-1] + 1] if images.size else [0]
    starts = np.searchsorted(outcomes.detections.image_rows[rows], edges)
    for i, image in enumerate(images):
        boxes = slice(*np.searchsorted(ground_truth.image_rows[by_image], [image, image + 1]))
        _classify_in_image(outcomes, ground_truth, rows[starts[i] : starts[i + 1]], by_image[boxes])
    return outcomes


def _classify_in_image(
    outcomes: Outcomes, ground_truth: GroundTruthRows, rows: NDArray[np.int64], boxes: NDArray[np.int64]
) -> None:
    """Fill in the rows of one image's detections from their IoU with its boxes."""
    if not boxes.size:
        return
    detected = outcomes.detections.boxes_xywh[rows]
    iou = box_iou_xywh(detected, ground_truth.boxes_xywh[boxes], np.zeros(len(boxes), dtype=np.bool_))
    same_class = outcomes.detections.labels[rows, None] == ground_truth.labels[boxes]
    found_boxes = outcomes.found_boxes[boxes]
    same, other = iou * same_class, iou * ~same_class
    conditions = [
        (same.max(1) >= BACKGROUND_IOU) & (same.max(1) <= POSITIVE_IOU),
        other.max(1) >= POSITIVE_IOU,
        (same * found_boxes).max(1) >= POSITIVE_IOU,
        iou.max(1) <= BACKGROUND_IOU,
    ]
    wrong = np.isin(outcomes.kinds[rows], (Kind.FOUND, Kind.IGNORED), invert=True)
    kinds = np.select(
        conditions,
        [Kind.LOCALISATION, Kind.CLASSIFICATION, Kind.DUPLICATE, Kind.BACKGROUND],
        Kind.BOTH,
    )
    about = np.select(
        [kinds == Kind.LOCALISATION, kinds == Kind.CLASSIFICATION, kinds == Kind.DUPLICATE],
        [same.argmax(1), other.argmax(1), (same * found_boxes).argmax(1)],
        iou.argmax(1),
    )
    outcomes.kinds[rows[wrong]] = kinds[wrong]
    outcomes.box_rows[rows[wrong]] = np.where(kinds == Kind.BACKGROUND, UNMATCHED, boxes[about])[wrong]
    column = np.where(wrong, about, iou.argmax(1))
    outcomes.iou[rows] = iou[np.arange(len(rows)), column]
    free = other * ~found_boxes
    confused = wrong & (free.max(1) >= POSITIVE_IOU)
    outcomes.confused_rows[rows[confused]] = boxes[free.argmax(1)[confused]]


class ErrorCosts(NamedTuple):
    """How much AP50 each kind of error costs: what repairing it alone would gain. Fractions of one."""

    ap50: float
    lost: dict[Kind, float]
    """Loss by each of the six main errors; they overlap, so that the sum is not what is missing to 1."""
    counts: dict[Kind, int]
    lost_to_false_positives: float
    """What scores of 0 for every false positive would gain."""
    lost_to_misses: float
    """What would be gained if boxes that none found did not exist."""


class _Repaired(NamedTuple):
    """Detections that count after a repair, in any order, and the number of boxes of each class."""

    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    boxes: NDArray[np.int64]
    """(K + 1,) by label."""

    def ap50(self, labels: NDArray[np.int64]) -> float:
        """Mean over the classes `labels`."""
        return float(np.mean([self._class_ap(label) for label in labels])) if labels.size else 0.0

    def _class_ap(self, label: int) -> float:
        if self.boxes[label] <= 0:
            return 0.0
        own = np.flatnonzero(self.labels == label)
        best_first = own[np.argsort(-self.scores[own], kind="stable")]
        ranking = Ranking(
            image_rows=np.zeros(len(own), dtype=np.int64),  # all count once, as if of one image
            found_at=[np.flatnonzero(self.correct[best_first])],
            ignored_at=[np.zeros(0, dtype=np.int64)],
        )
        return float(
            average_precision(ranking, np.ones((1, 1)), self.boxes[[label]].astype(np.float64))[0, 0]
        )


def error_costs(ground_truth: GroundTruthRows, outcomes: Outcomes) -> ErrorCosts:
    """Repair one kind of error at a time and compute AP50 again.

    A wrong class or place is repaired at the best detection that a box explains, if none found that box;
    other detections of the kind are removed. A missed box is taken out of the ground truth.
    """
    counted = select(ground_truth, ~ground_truth.ignore)
    boxes = np.bincount(counted.labels, minlength=int(outcomes.detections.labels.max(initial=0)) + 1)
    classes = np.flatnonzero(boxes)
    repairable, missed = _find_repairs(ground_truth, outcomes)
    unfound = ~outcomes.found_boxes & ~ground_truth.ignore
    plain = _repaired(outcomes, ground_truth, boxes, correct=np.zeros_like(repairable))
    base = plain.ap50(classes)

    def gain(repaired: _Repaired) -> float:
        return max(repaired.ap50(classes) - base, 0.0)

    def without_boxes(gone: NDArray[np.bool_]) -> _Repaired:
        return plain._replace(boxes=boxes - np.bincount(ground_truth.labels[gone], minlength=len(boxes)))

    lost: dict[Kind, float] = {}
    counts: dict[Kind, int] = {}
    for kind in EXPLAINED:
        of_kind = outcomes.kinds == kind
        if kind == Kind.MISSED:
            lost[kind], counts[kind] = gain(without_boxes(missed)), int(missed.sum())
        else:
            repaired = _repaired(outcomes, ground_truth, boxes, correct=repairable & of_kind, remove=of_kind)
            lost[kind], counts[kind] = gain(repaired), int(of_kind.sum())
    return ErrorCosts(
        ap50=base,
        lost=lost,
        counts=counts,
        lost_to_false_positives=gain(plain._replace(scores=plain.correct.astype(np.float64))),
        lost_to_misses=gain(without_boxes(unfound)),
    )


def _find_repairs(
    ground_truth: GroundTruthRows, outcomes: Outcomes
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) detections that find a box once they are repaired, and (M,) boxes that none would find."""
    candidates = np.flatnonzero(np.isin(outcomes.kinds, (Kind.CLASSIFICATION, Kind.LOCALISATION)))
    candidates = candidates[~outcomes.found_boxes[outcomes.box_rows[candidates]]]
    best_first = candidates[np.argsort(-outcomes.detections.scores[candidates], kind="stable")]
    explained, first = np.unique(outcomes.box_rows[best_first], return_index=True)
    repairable = np.zeros(len(outcomes.kinds), dtype=np.bool_)
    repairable[best_first[first]] = True
    missed = ~outcomes.found_boxes & ~ground_truth.ignore
    missed[explained] = False
    return repairable, missed


def _repaired(
    outcomes: Outcomes,
    ground_truth: GroundTruthRows,
    boxes: NDArray[np.int64],
    *,
    correct: NDArray[np.bool_],
    remove: NDArray[np.bool_] | None = None,
) -> _Repaired:
    """The detections with those at `correct` taken as correct and the rest of those at `remove` gone."""
    keep = outcomes.kinds != Kind.IGNORED
    if remove is not None:
        keep &= correct | ~remove
    labels = outcomes.detections.labels.copy()
    labels[correct] = ground_truth.labels[outcomes.box_rows[correct]]
    found = (outcomes.kinds == Kind.FOUND) | correct
    return _Repaired(labels[keep], outcomes.detections.scores[keep], found[keep], boxes)
