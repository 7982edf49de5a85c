"""From what a graph gives to detections, in NumPy: prediction from files needs no torch.

Equal to `model.postprocess.PostProcess` up to the rounding of an exponential and the order of equal scores;
`deploy/web/find.js` is the same for a browser.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.array_boxes import iou_of_pairs
from detect.deploy.spec import ModelSpec
from detect.model.thresholds import (
    CENTRE_VARIANCE,
    LOGIT_SLACK,
    MAX_LOG_RATIO,
    SIZE_VARIANCE,
    PostProcessConfig,
    logit,
    lowest,
)
from detect.types import ScoreActivation

Floats = NDArray[np.float32]


class Found(NamedTuple):
    """Detections of one image by falling score."""

    boxes: Floats
    """(D, 4) xyxy px."""
    scores: Floats
    """(D,) in 0..1."""
    labels: NDArray[np.int64]
    """(D,) 1..K."""


def find(spec: ModelSpec, outputs: tuple[NDArray[Any], ...], orig_size: list[tuple[int, int]]) -> list[Found]:
    """What a graph gave for a batch, to the detections of each image in px of its file.

    Args:
        spec: of the graph, with the thresholds.
        outputs: in the order of `OUTPUTS[spec.form]`.
        orig_size: height and width of each file in px.
    """
    found = []
    for i in range(len(orig_size)):
        image = tuple(output[i] for output in outputs)
        if spec.form == "nms":
            boxes, scores, labels = image[:3]
            least = np.asarray(spec.thresholds.score_threshold, np.float32)  # may be higher than the graph's
            kept = scores > (least[labels - 1] if least.ndim else least)
            detections = Found(boxes[kept], scores[kept], labels[kept])
        elif spec.anchors is not None:  # raw form
            rows = promising(image[0], spec)
            boxes = decode(image[1][rows], spec.anchors[rows], spec.image_size)
            detections = suppress(class_scores(image[0][rows], spec.activation), boxes, spec.thresholds)
        else:
            detections = suppress(image[0], image[1], spec.thresholds)
        scale = np.array(orig_size[i], np.float32) / np.array(spec.image_size, np.float32)  # (sy, sx)
        found.append(detections._replace(boxes=detections.boxes * np.tile(scale[::-1], 2)))
    return found


def promising(logits: Floats, spec: ModelSpec) -> NDArray[np.bool_]:
    """(A, K + 1) logits to (A,): a class may score above the threshold."""
    best = logits[:, 1:].max(axis=1)
    if spec.activation == "softmax":  # a score is at most the sigmoid of its logit's lead over the background
        best = best - logits[:, 0]
    return np.asarray(best > logit(lowest(spec.thresholds.score_threshold)) - LOGIT_SLACK)


def class_scores(logits: Floats, activation: ScoreActivation) -> Floats:
    """(N, K + 1) logits to (N, K) scores of the object classes."""
    if activation == "sigmoid":
        powers = np.exp(-np.abs(logits[:, 1:]))  # of a large number it would overflow
        return np.asarray(np.where(logits[:, 1:] < 0, powers, 1) / (1 + powers), np.float32)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers[:, 1:] / powers.sum(axis=1, keepdims=True), np.float32)


def decode(deltas: Floats, anchors: Floats, image_size: tuple[int, int]) -> Floats:
    """(N, 4) deltas and xyxy anchors to boxes in px of the input, cut to it; see `box_coder.decode`."""
    anchor_size = anchors[:, 2:] - anchors[:, :2]
    anchor_centre = anchors[:, :2] + anchor_size / 2
    centre = deltas[:, :2] * np.float32(CENTRE_VARIANCE) * anchor_size + anchor_centre
    log_ratio = np.minimum(deltas[:, 2:] * np.float32(SIZE_VARIANCE), np.float32(MAX_LOG_RATIO))
    half = np.exp(log_ratio) * anchor_size / 2
    height, width = image_size
    limit = np.array([width, height, width, height], np.float32)
    return np.concatenate([centre - half, centre + half], axis=1).clip(0, limit)


def suppress(scores: Floats, boxes: Floats, config: PostProcessConfig) -> Found:
    """Top-k and NMS within each class of one image; (N, K) scores and (N, 4) boxes to (D,) detections."""
    rows, columns = candidates(scores, config)
    best = scores[rows, columns]
    order = np.argsort(-best, kind="stable")
    waiting = np.stack([rows, columns], axis=1)[order]
    kept: list[tuple[int, int]] = []
    exact = boxes.astype(np.float64)
    while len(waiting) and len(kept) < config.max_detections:
        (row, column), waiting = waiting[0], waiting[1:]
        kept.append((row, column))
        rivals = waiting[:, 1] == column
        with np.errstate(invalid="ignore"):  # two boxes without area do not overlap
            overlap = iou_of_pairs(exact[row], exact[waiting[rivals, 0]])
        rivals[rivals] = overlap > config.nms_threshold
        waiting = waiting[~rivals]
    rows, columns = np.array(kept, dtype=np.int64).reshape(-1, 2).T
    return Found(boxes[rows], scores[rows, columns], columns + 1)


def candidates(scores: Floats, config: PostProcessConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N, K) scores to row and column of those that take part, in the order of `scores`."""
    passing = scores > np.asarray(config.score_threshold, np.float32)  # of all classes, or (K,)
    per_class, in_all = config.topk_per_class, config.topk_candidates
    if per_class is not None and per_class < len(scores):
        best_rows = np.argsort(-scores, axis=0, kind="stable")[:per_class]
        among = np.zeros_like(passing)
        np.put_along_axis(among, best_rows, True, axis=0)
        passing &= among
    rows, columns = np.nonzero(passing)
    if in_all is not None and in_all < len(rows):
        idx = np.sort(np.argsort(-scores[rows, columns], kind="stable")[:in_all])
        rows, columns = rows[idx], columns[idx]
    return rows, columns
