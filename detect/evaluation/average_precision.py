"""COCO's average precision where each image may count any number of times.

COCO's tools give it for one split as it is. A bootstrap over images asks for it a thousand times, and the
list of errors once for each kind of error repaired.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.evaluation.backends import DetectionRows, GroundTruthRows, select
from detect.evaluation.matching import Matches, match_detections

RECALL_POINTS = np.linspace(0, 1, 101)
"""Where COCO reads precision."""


class Ranking(NamedTuple):
    """The detections of one class, best first, ready for average precision with any weights of the images."""

    image_rows: NDArray[np.int64]
    """(n,)"""
    found_at: list[NDArray[np.int64]]
    """T lists of the positions of true positives in `image_rows`."""
    ignored_at: list[NDArray[np.int64]]
    """T lists of the positions that do not count."""


def average_precision(
    ranking: Ranking, weights: NDArray[np.float64], boxes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(B, T) mean of the precision at COCO's 101 recall points, for weights (B, N) and boxes (B,).

    Precision at a recall is the best at that or a higher recall, and only a true positive raises it: the
    detections between two of them matter by their number alone.
    """
    ap = np.zeros((len(weights), len(ranking.found_at)))
    counted = np.cumsum(weights[:, ranking.image_rows], axis=1)  # (B, n)
    for t, (found_at, ignored_at) in enumerate(zip(ranking.found_at, ranking.ignored_at, strict=True)):
        if not found_at.size:
            continue
        found = np.cumsum(weights[:, ranking.image_rows[found_at]], axis=1)  # (B, found)
        so_far = counted[:, found_at]
        if ignored_at.size:
            ignored = np.cumsum(weights[:, ranking.image_rows[ignored_at]], axis=1)
            before = np.searchsorted(ignored_at, found_at)
            so_far = so_far - np.where(before > 0, ignored[:, before - 1], 0.0)
        precision = found / np.maximum(so_far, 1e-12)
        best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Recall points up to each true positive; it counts for those that the one before did not reach.
        reached = np.searchsorted(RECALL_POINTS, found / boxes[:, None], side="right")
        ap[:, t] = (best_from_here * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALL_POINTS)
    return ap


class WeightedAp:
    """Average precision of one set of detections where image i counts `weights[i]` times.

    A weight of 2 gives what two copies of the image would, so that a bootstrap over images needs no copies.

    Args:
        annotations: N images, K classes.
        ground_truth: its boxes, as `ground_truth_rows(annotations)`.
        detections: of its images, in any order.
    """

    def __init__(
        self, annotations: Annotations, ground_truth: GroundTruthRows, detections: DetectionRows
    ) -> None:
        matches = match_detections(annotations, ground_truth, detections)
        num_classes = annotations.classes.num_classes
        counted = select(ground_truth, ~ground_truth.ignore)
        self.boxes_per_image = np.zeros((num_classes, len(annotations)))
        np.add.at(self.boxes_per_image, (counted.labels - 1, counted.image_rows), 1)
        self.rankings = [_ranking(matches, label) for label in range(1, num_classes + 1)]
        self.num_thresholds = len(matches.matched_idx)

    def per_class(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B, K, T) average precision under each of B weightings (B, N); NaN where a class has no box."""
        boxes = weights @ self.boxes_per_image.T  # (B, K)
        ap = np.full((len(weights), len(self.rankings), self.num_thresholds), np.nan)
        for k, ranking in enumerate(self.rankings):
            present = np.flatnonzero(boxes[:, k] > 0)
            if present.size:
                ap[present, k] = average_precision(ranking, weights[present], boxes[present, k])
        return ap

    def mean(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B,) mAP, the mean over thresholds and the classes that have boxes; NaN where none has."""
        return mean_over_classes(self.per_class(weights))


def mean_over_classes(per_class: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B,) mean of (B, K, T) over thresholds and the classes that are not NaN; NaN where all are."""
    ap = per_class.mean(axis=2)  # (B, K)
    measured = ~np.isnan(ap)
    counts = measured.sum(axis=1)
    sums = np.where(measured, ap, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _ranking(matches: Matches, label: int) -> Ranking:
    rows = slice(*np.searchsorted(matches.detections.labels, [label, label + 1]))
    return Ranking(
        matches.detections.image_rows[rows],
        [np.flatnonzero(found) for found in matches.found[:, rows]],
        [np.flatnonzero(ignored) for ignored in matches.ignored[:, rows]],
    )
