"""Where the anchors of a detector lie, and the best of them for each box of a data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.data.array_boxes import iou_of_pairs
from detect.model.anchors import AUTO, AnchorConfig, AnchorGenerator, grid_sizes
from detect.model.backbones import MobileNetV3
from detect.model.checkpoint import build_detector
from detect.model.ssdlite import SSDLite
from detect.training.assigners.max_iou import IOU_THRESHOLD

MATCH_IOU = IOU_THRESHOLD
"""Of anchor recall; the same as a match needs by default."""
CHUNK = 1 << 15


@dataclass(frozen=True)
class AnchorLayout:
    """All that decides where anchors lie."""

    image_size: tuple[int, int]
    """(H, W) of the input in px."""
    config: AnchorConfig
    strides: tuple[int, ...]
    """Input px per cell of each map."""

    @classmethod
    def of(cls, net: SSDLite) -> AnchorLayout:
        """The anchors of a detector, which may live on the meta device."""
        return cls(net.image_size, net.anchor_generator.config, tuple(net.strides))

    @classmethod
    def default(cls) -> AnchorLayout:
        """The anchors of a detector that a configuration says nothing else about."""
        with torch.device("meta"):
            return cls.of(SSDLite(MobileNetV3(), num_classes=1))

    @classmethod
    def of_settings(cls, model: dict[str, Any]) -> AnchorLayout:
        """The anchors of a `model:` section, which may leave the classes open; "auto" scales stay "auto".

        Raises:
            InputError: a setting is wrong.
        """
        with torch.device("meta"):
            net = build_detector({**without_auto(model), "num_classes": model.get("num_classes") or 1}).net
        layout = cls.of(net)
        if not has_auto(model) or layout.config.style == "points":
            return layout
        return replace(layout, config=replace(layout.config, scales=AUTO))

    def levels(self) -> list[NDArray[np.float32]]:
        """(rows, columns, per cell, 4) xyxy px of the input, one array per map."""
        generator = AnchorGenerator(self.config, self.strides)
        grids = grid_sizes(self.image_size, self.strides)
        anchors = generator(grids, self.image_size).numpy()
        counts = [rows * columns * k for (rows, columns), k in zip(grids, generator.per_cell, strict=True)]
        parts = np.split(anchors, np.cumsum(counts)[:-1])
        return [part.reshape(*grid, -1, 4) for part, grid in zip(parts, grids, strict=True)]

    @property
    def count(self) -> int:
        """Anchors of all maps."""
        return sum(level[..., 0].size for level in self.levels())


def has_auto(model: dict[str, Any]) -> bool:
    """Whether the scales of a `model:` section wait for data."""
    return (model.get("anchors") or {}).get("scales") == AUTO


def without_auto(model: dict[str, Any]) -> dict[str, Any]:
    """A `model:` section with the usual scales where they wait for data."""
    return {**model, "anchors": {**model["anchors"], "scales": None}} if has_auto(model) else model


class BestAnchors(NamedTuple):
    """The best anchor of each of M boxes."""

    iou: NDArray[np.float32]
    """(M,)"""
    level: NDArray[np.int64]
    """(M,) the map it is on, from 0."""


def best_anchors(boxes: NDArray[np.float32], layout: AnchorLayout) -> BestAnchors:
    """The best IoU of each box with any anchor, and the map of that anchor.

    The anchors of one shape on one map differ in their centres alone, and the nearest centre overlaps most;
    so a box is compared with one anchor per shape, 33 instead of 2,000.

    Args:
        boxes: (M, 4) xyxy px of the input.
        layout: of the anchors.
    """
    levels = layout.levels()
    iou = np.zeros((len(levels), len(boxes)), dtype=np.float32)
    for level, anchors in enumerate(levels):
        centres_x = anchors[0, :, 0, 0::2].mean(axis=1)
        centres_y = anchors[:, 0, 0, 1::2].mean(axis=1)
        for start in range(0, len(boxes), CHUNK):
            part = boxes[start : start + CHUNK]
            column = _nearest(centres_x, part[:, 0::2].mean(axis=1))
            row = _nearest(centres_y, part[:, 1::2].mean(axis=1))
            iou[level, start : start + CHUNK] = iou_of_pairs(anchors[row, column], part[:, None]).max(axis=1)
    return BestAnchors(iou.max(axis=0, initial=0), iou.argmax(axis=0))


def _nearest(centres: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.int64]:
    """The place of the nearest of rising `centres`."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values)


class FileBoxes(NamedTuple):
    """M boxes and the sizes of the images that they are in."""

    boxes: NDArray[np.float64]
    """(M, 4) xyxy px of the file, cut to the image."""
    sizes: NDArray[np.int32]
    """(M, 2) height and width of the image in px."""
    labels: NDArray[np.int64]
    """(M,) 1..K."""

    @classmethod
    def of(cls, annotations: Annotations, rows: NDArray[np.int64]) -> FileBoxes:
        """The boxes of a split in the given (M,) rows of its box arrays."""
        sizes = annotations.sizes[np.searchsorted(annotations.offsets, rows, side="right") - 1]
        boxes = np.clip(annotations.boxes[rows], 0, np.tile(sizes[:, ::-1], 2))
        return cls(boxes, sizes, annotations.labels[rows])

    def on_input(self, image_size: tuple[int, int]) -> NDArray[np.float32]:
        """(M, 4) px of an input of `image_size` (H, W), whole images stretched, as in validation."""
        scale = np.array(image_size) / self.sizes
        return (self.boxes * np.tile(scale[:, ::-1], 2)).astype(np.float32)


def trained_boxes(annotations: Annotations, *, at_most: int | None = None) -> FileBoxes:
    """Every box that is trained on, none of the regions to ignore; of more than `at_most` every n-th."""
    rows = np.flatnonzero(~annotations.ignore)
    if at_most is not None:
        rows = rows[:: max(1, -(-len(rows) // at_most))]
    return FileBoxes.of(annotations, rows)


def anchor_recall(boxes: FileBoxes, layout: AnchorLayout) -> float:
    """The share of boxes, at least one, that some anchor overlaps with an IoU of at least 0.5."""
    return float((best_anchors(boxes.on_input(layout.image_size), layout).iou >= MATCH_IOU).mean())


def class_recall(boxes: FileBoxes, layout: AnchorLayout) -> float:
    """The mean of the anchor recalls of the classes that have boxes, at least one."""
    met = best_anchors(boxes.on_input(layout.image_size), layout).iou >= MATCH_IOU
    counts = np.bincount(boxes.labels)
    found = np.bincount(boxes.labels[met], minlength=len(counts))
    return float((found[counts > 0] / counts[counts > 0]).mean())
