"""Images that are the same or look the same, and boxes that say the same twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detect.data.array_boxes import iou_of_pairs

HASH_BITS = 64
MAX_DISTANCE = 6
"""Bits in which the hashes of two images that look alike may differ. Measured on coco128: copies that were
compressed, halved, made brighter or richer in contrast differ in at most 6, different images in 16."""
MIN_CORRELATION = 0.95
"""Correlation of the grey thumbnails: at least 0.98 for those copies, at most 0.95 for different images."""
MIN_CONTRAST = 4.0
"""Standard deviation of a thumbnail, of 255. Below it an image is empty and looks like every other such."""
DUPLICATE_IOU = 0.95
PAIRS_AT_ONCE = 1 << 20
NEAREST = 5


def equal_groups(digests: NDArray[np.bytes_], usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) the first row with the same bytes; its own row where there is none, or where not `usable`."""
    first = np.arange(len(digests))
    rows = np.flatnonzero(usable)
    _, first_of, inverse = np.unique(digests[rows], return_index=True, return_inverse=True)
    first[rows] = rows[first_of[inverse]]
    return first


def alike_pairs(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], usable: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(P, 2) pairs of rows, the smaller first, of images that look alike.

    Two hashes that differ in at most 6 bits agree in one of 7 slices; only such pairs are compared, so 118k
    images take seconds. What the hashes suggest, the thumbnails confirm.

    Args:
        hashes: (N,) perceptual hashes.
        thumbnails: (N, 16, 16) grey.
        usable: (N,) rows to compare.
    """
    flat = _normalised(thumbnails)
    contrast = thumbnails.reshape(len(thumbnails), -1).std(axis=1)
    rows = np.flatnonzero(usable & (contrast >= MIN_CONTRAST))
    found = [np.zeros((0, 2), dtype=np.int64)]
    edges = np.linspace(0, HASH_BITS, MAX_DISTANCE + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        slices = (hashes[rows] >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(slices, kind="stable")
        for first, second in _pairs_of_equal(slices[order]):
            one, other = rows[order[first]], rows[order[second]]
            near = _bit_count(hashes[one] ^ hashes[other]) <= MAX_DISTANCE
            one, other = one[near], other[near]
            alike = np.einsum("ij,ij->i", flat[one], flat[other]) >= MIN_CORRELATION
            found.append(np.stack([one[alike], other[alike]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def nearest_pairs(pairs: NDArray[np.int64], thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(Q, 2) of `pairs` (P, 2) those with one of the `NEAREST` images that each image resembles most.

    Each of a thousand images of a fixed camera resembles all others; a copy is among the nearest.
    """
    flat = _normalised(thumbnails)
    correlation = np.concatenate(
        [
            np.einsum("ij,ij->i", flat[part[:, 0]], flat[part[:, 1]])
            for part in np.array_split(pairs, len(pairs) // PAIRS_AT_ONCE + 1)
        ]
    )
    kept = np.zeros(len(pairs), dtype=np.bool_)
    rows, places = pairs.T.ravel(), np.tile(np.arange(len(pairs)), 2)
    order = np.lexsort((-np.tile(correlation, 2), rows))
    rows, places = rows[order], places[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept[places[rank < NEAREST]] = True
    return pairs[kept]


def _normalised(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 256) of mean 0 and length 1: their products are correlations."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat


def _pairs_of_equal(values: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of places with equal values in sorted `values`, in portions."""
    first = np.arange(len(values))
    for lag in range(1, len(values)):
        first = first[first < len(values) - lag]
        first = first[values[first] == values[first + lag]]
        if not len(first):
            return
        for start in range(0, len(first), PAIRS_AT_ONCE):
            part = first[start : start + PAIRS_AT_ONCE]
            yield part, part + lag


def _bit_count(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Set bits of each 64-bit number."""
    bits = np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1)
    return bits.sum(axis=1, dtype=np.int64)


def duplicate_boxes(
    boxes: NDArray[np.float64], labels: NDArray[np.int64], image_rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(M,) the row of a box of the same image and class that this one repeats (IoU > 0.95), else -1.

    Boxes with -1 repeat none of each other.

    Boxes stand in order of their left edges: one that overlaps another so far starts within a twentieth of
    its width, so each is compared with a few that follow.

    Args:
        boxes: (M, 4) xyxy px, all with an area.
        labels: (M,) 1..K.
        image_rows: (M,) the image of each box.
    """
    order = np.lexsort((boxes[:, 0], labels, image_rows))
    boxes, labels, image_rows = boxes[order], labels[order], image_rows[order]
    # IoU > 0.95 leaves less than 0.05 of the wider box's width beside the other on either side.
    reach = boxes[:, 0] + (1 / DUPLICATE_IOU - 1) * (boxes[:, 2] - boxes[:, 0])
    repeats = np.full(len(boxes), -1, dtype=np.int64)
    first = np.arange(len(boxes))
    for lag in range(1, len(boxes)):
        first = first[first < len(boxes) - lag]
        second = first + lag
        near = (image_rows[first] == image_rows[second]) & (labels[first] == labels[second])
        near &= (boxes[second, 0] <= reach[first]) & (repeats[first] < 0)
        first, second = first[near], second[near]
        if not len(first):
            break
        same = iou_of_pairs(boxes[first], boxes[second]) > DUPLICATE_IOU
        # One after the other: a box that repeats another has no repetitions of its own.
        for kept, repeated in zip(first[same].tolist(), second[same].tolist(), strict=True):
            if repeats[kept] < 0 and repeats[repeated] < 0:
                repeats[repeated] = kept
    result = np.full(len(boxes), -1, dtype=np.int64)
    found = repeats >= 0
    result[order[found]] = order[repeats[found]]
    return result
