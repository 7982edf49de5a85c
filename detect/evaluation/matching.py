"""Which detection found which box, by COCO's rules, image by image.

COCO's tools give curves of a whole split. A bootstrap over images, the list of errors and the images of a
report need to know it for every detection.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from detect.data.annotations import Annotations
from detect.evaluation.backends import DetectionRows, GroundTruthRows, image_ranks, select

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's."""
MAX_DETECTIONS = 100
"""Per image and class, best first: what COCO counts."""
UNMATCHED = -1


class Matches(NamedTuple):
    """N detections, at most 100 per image and class, against M boxes at T thresholds of IoU.

    Sorted as COCO's tools sort: by label, falling score, and the data set's image ids where scores are equal.
    """

    detections: DetectionRows
    matched_idx: NDArray[np.int64]
    """(T, N) row of the box that the detection found, -1 where it found none."""
    ignored: NDArray[np.bool_]
    """(T, N) found a crowd or difficult box: neither right nor wrong."""

    @property
    def found(self) -> NDArray[np.bool_]:
        """(T, N) true positives."""
        return (self.matched_idx != UNMATCHED) & ~self.ignored


def match_detections(
    annotations: Annotations,
    ground_truth: GroundTruthRows,
    detections: DetectionRows,
    *,
    iou_thresholds: NDArray[np.float64] = IOU_THRESHOLDS,
) -> Matches:
    """Match every detection to a box of its image and class; each box is found once, by the best score.

    A detection takes the free box that it overlaps most, if their IoU reaches the threshold, and an ignored
    box only where no other is left.

    Args:
        annotations: whose ids decide ties.
        ground_truth: boxes of its images, as `ground_truth_rows(annotations)`.
        detections: in any order of images.
        iou_thresholds: (T,).

    Source: pycocotools, `COCOeval.evaluateImg`, area range "all".
    """
    detections = best_per_image_and_class(detections, image_ranks(annotations))
    order = np.lexsort((ground_truth.ignore, ground_truth.labels, ground_truth.image_rows))
    truth = select(ground_truth, order)
    shape = (len(iou_thresholds), len(detections.labels))
    matches = Matches(detections, np.full(shape, UNMATCHED), np.zeros(shape, dtype=np.bool_))
    for detection_rows, truth_rows in _groups(detections, truth):
        ignore = truth.ignore[truth_rows]
        iou = box_iou_xywh(detections.boxes_xywh[detection_rows], truth.boxes_xywh[truth_rows], ignore)
        matched = _match_greedily(iou, ignore, iou_thresholds)
        hit = matched != UNMATCHED
        matches.matched_idx[:, detection_rows] = np.where(hit, order[truth_rows][matched], UNMATCHED)
        matches.ignored[:, detection_rows] = hit & ignore[matched]
    return matches


def best_per_image_and_class(
    detections: DetectionRows, ranks: NDArray[np.int64], most: int = MAX_DETECTIONS
) -> DetectionRows:
    """The `most` best of each image and class, in the order of `Matches`; earlier rows win ties."""
    rank = ranks[detections.image_rows]
    order = np.lexsort((-detections.scores, rank, detections.labels))
    group_change = (np.diff(rank[order]) != 0) | (np.diff(detections.labels[order]) != 0)
    starts = np.concatenate([[True], group_change])[: len(order)]
    positions = np.arange(len(order))
    place = positions - np.maximum.accumulate(np.where(starts, positions, 0))
    kept = select(detections, order[place < most])
    return select(kept, np.lexsort((ranks[kept.image_rows], -kept.scores, kept.labels)))


def box_iou_xywh(
    boxes_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64], ignore: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(D, G) IoU in float64; with an ignored box the share of the detection that lies inside it."""
    if len(boxes_xywh) == 0 or len(truth_xywh) == 0:
        return np.zeros((len(boxes_xywh), len(truth_xywh)))
    iou: NDArray[np.float64] = mask.iou(boxes_xywh, truth_xywh, ignore.astype(np.uint8))
    return iou


def _groups(
    detections: DetectionRows, truth: GroundTruthRows
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of the detections and of the boxes of each image and class that has both."""
    classes = 1 + max(int(detections.labels.max(initial=0)), int(truth.labels.max(initial=0)))
    detection_keys = detections.image_rows * classes + detections.labels
    truth_keys = truth.image_rows * classes + truth.labels  # sorted, as the rows are
    by_key = np.argsort(detection_keys, kind="stable")
    shared = np.intersect1d(detection_keys, truth_keys)
    starts, ends = (np.searchsorted(detection_keys[by_key], shared, side) for side in ("left", "right"))
    truth_starts, truth_ends = (np.searchsorted(truth_keys, shared, side) for side in ("left", "right"))
    return [
        (by_key[start:end], np.arange(truth_start, truth_end))
        for start, end, truth_start, truth_end in zip(starts, ends, truth_starts, truth_ends, strict=True)
    ]


def _match_greedily(
    iou: NDArray[np.float64], ignore: NDArray[np.bool_], iou_thresholds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(T, D) column of `iou` (D, G) that each detection takes, best detection first; -1: none.

    Ignored boxes stand last and stay free: a crowd is found any number of times.
    """
    least = np.minimum(iou_thresholds, 1 - 1e-10)[:, None]
    matched = np.full((len(iou_thresholds), len(iou)), UNMATCHED)
    free = np.ones((len(iou_thresholds), iou.shape[1]), dtype=np.bool_)
    last = iou.shape[1] - 1
    for row in np.flatnonzero(iou.max(axis=1) >= least.min()):
        usable = np.where(free & (iou[row] >= least), iou[row], -1.0)  # (T, G)
        only_ignored: NDArray[np.bool_] = np.all(usable[:, ~ignore] < 0, axis=1)
        usable[ignore != only_ignored[:, None]] = -1.0
        best = last - usable[:, ::-1].argmax(axis=1)  # of equal IoUs COCO takes the later box
        hits = np.flatnonzero(usable[np.arange(len(best)), best] >= 0)
        matched[hits, row] = best[hits]
        free[hits, best[hits]] = ignore[best[hits]]
    return matched
