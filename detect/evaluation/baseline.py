"""What a detector must beat: the best boxes that are the same on every image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.evaluation.backends import Backend, DetectionRows
from detect.evaluation.evaluator import Baseline, Metrics, compute_metrics

COUNTS = (1, 2, 4, 8)
"""Constant boxes per class that are tried; 1 is the mean box."""
MOST_DETECTIONS = 500_000
"""More boxes per image are not tried on a large split: a constant box says little there."""
ROUNDS = 20
"""Rounds of k-means, which stands still long before."""


def with_baseline(metrics: Metrics, annotations: Annotations) -> Metrics:
    """Metrics of a detector on a split, with what constant boxes score there."""
    return replace(metrics, baseline=constant_box_baseline(annotations, backend=metrics.backend))


def constant_box_baseline(annotations: Annotations, *, backend: Backend = "faster") -> Baseline:
    """Score boxes that are the same on every image, and give the best: what can be had without looking.

    Their places are those of the split itself, so no constant detector does much better.

    Args:
        annotations: the split that a detector is scored on.
        backend: the tool that computes.
    """
    per_box = annotations.classes.num_classes * len(annotations)
    counts = [count for count in COUNTS if count == 1 or count * per_box <= MOST_DETECTIONS]
    scored = [
        compute_metrics(annotations, constant_detections(annotations, count), backend=backend)
        for count in counts
    ]
    best = max(scored, key=lambda metrics: metrics.mAP)
    return Baseline(best.mAP, best.AP50)


def constant_detections(annotations: Annotations, count: int) -> DetectionRows:
    """`count` boxes per class on every image: centres of k-means over the boxes, as shares of their image.

    A box scores by the share of its class's ground truth that it stands for.
    """
    sizes = np.tile(annotations.sizes[:, ::-1], 2).astype(np.float64)  # (N, 4) width, height, width, height
    per_image = np.diff(annotations.offsets)
    shares = annotations.clipped_boxes() / np.repeat(sizes, per_image, axis=0)
    rows = np.arange(len(annotations))
    parts = []
    for label in range(1, annotations.classes.num_classes + 1):
        own = shares[(annotations.labels == label) & ~annotations.ignore]
        if not len(own):
            continue
        centres, weights = k_means(own, min(count, len(own)))
        for centre, weight in zip(centres, weights, strict=True):
            corners = centre * sizes  # (N, 4) px of each file
            boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
            parts.append((rows, np.full(len(rows), label), boxes_xywh, np.full(len(rows), weight)))
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return DetectionRows(none, none, np.zeros((0, 4)), np.zeros(0))
    return DetectionRows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def k_means(points: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(M, 4) points to `count` centres and the share of the points that each stands for.

    Deterministic: it starts from points spread evenly over the order of their areas.
    """
    areas = (points[:, 2] - points[:, 0]) * (points[:, 3] - points[:, 1])
    spread = (np.arange(count) + 0.5) * len(points) / count
    centres = points[np.argsort(areas, kind="stable")[spread.astype(np.int64)]]
    for _ in range(ROUNDS):
        nearest = np.square(points[:, None] - centres).sum(-1).argmin(1)
        for i in range(count):
            if (nearest == i).any():
                centres[i] = points[nearest == i].mean(0)
    shares = np.bincount(nearest, minlength=count) / len(points)
    return centres, shares
