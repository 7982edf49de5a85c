"""How many boxes of a data set some anchor meets, and which settings would make it more.

A box that no anchor meets at IoU 0.5 still gets its best one in training, but only that one, and it must be
moved far: such classes and sizes are learnt late and badly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.anchors import SCALES, AnchorConfig, AnchorGenerator, grid_sizes
from detect.data.labels import Annotations
from detect.ssdlite import SSDLite

MATCH_IOU = 0.5
"""As `matcher.match_anchors`."""
STRIDES = (16, 32)
"""Of C4 and C5 in every MobileNet."""
SMALL_AREA, MEDIUM_AREA = 32.0**2, 96.0**2
"""COCO's limits in px^2 of the file."""
CHUNK = 1 << 15
TRIED_BOXES = 5000
"""As many, evenly over the split, choose between settings."""
TRIED_INPUTS = (256, 320, 416, 512, 640)
"""Shorter sides; multiples of 32."""
TRIED_LOWEST_SCALES = (0.04, 0.06, 0.08, 0.1, 0.15)
WORTHWHILE = 0.02
"""Less of the boxes is no reason to leave the defaults."""


@dataclass(frozen=True)
class AnchorLayout:
    """All that decides where anchors lie."""

    image_size: tuple[int, int] = (320, 320)
    """(H, W) of the input in px."""
    config: AnchorConfig = AnchorConfig()
    strides: tuple[int, int] = STRIDES

    @classmethod
    def of(cls, net: SSDLite) -> AnchorLayout:
        """The anchors of a detector, which may live on the meta device."""
        return cls(net.image_size, net.anchor_generator.config, net.backbone.strides)

    def levels(self) -> list[NDArray[np.float32]]:
        """(rows, columns, per cell, 4) xyxy px of the input, a map each."""
        generator = AnchorGenerator(self.config)
        grids = grid_sizes(self.image_size, self.strides)
        anchors = generator(grids, self.image_size).numpy()
        counts = [rows * columns * k for (rows, columns), k in zip(grids, generator.per_cell, strict=True)]
        parts = np.split(anchors, np.cumsum(counts)[:-1])
        return [part.reshape(*grid, -1, 4) for part, grid in zip(parts, grids, strict=True)]


class BestAnchors(NamedTuple):
    """The best anchor of each of M boxes."""

    iou: NDArray[np.float32]
    """(M,)"""
    level: NDArray[np.int64]
    """(M,) the map it is on, from 0."""


def best_anchors(boxes: NDArray[np.float32], layout: AnchorLayout) -> BestAnchors:
    """The best IoU of each box with any anchor, and where it is.

    The anchors of one shape on one map differ in their centres alone, and the nearest centre overlaps most;
    so a box is compared with one anchor a shape, 33 instead of 2,000.

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
            iou[level, start : start + CHUNK] = _iou(anchors[row, column], part[:, None]).max(axis=1)
    return BestAnchors(iou.max(axis=0, initial=0), iou.argmax(axis=0))


def _nearest(centres: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.int64]:
    """The place of the nearest of rising `centres`."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values)


def _iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of boxes that broadcast against each other, (..., 4)."""
    size = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.clip(size, 0, None).prod(axis=-1)
    areas = (one[..., 2:] - one[..., :2]).prod(axis=-1) + (other[..., 2:] - other[..., :2]).prod(axis=-1)
    return np.asarray(shared / (areas - shared))


def boxes_as_input(annotations: Annotations, image_size: tuple[int, int]) -> NDArray[np.float32]:
    """(M, 4) boxes of whole images stretched onto the input, as in validation."""
    sizes = np.repeat(annotations.sizes, np.diff(annotations.offsets), axis=0)  # (M, 2)
    scale = np.array(image_size) / sizes
    return (annotations.clipped_boxes() * np.tile(scale[:, ::-1], 2)).astype(np.float32)


class Share(NamedTuple):
    """How many of some boxes an anchor meets."""

    boxes: int
    met: int

    def to_json(self) -> dict[str, Any]:
        """`share` is null where there are no boxes."""
        return {"boxes": self.boxes, "share": round(self.met / self.boxes, 4) if self.boxes else None}


class Advice(NamedTuple):
    """Settings that would meet more boxes."""

    settings: dict[str, Any]
    """Keys of the config, by their full path."""
    share: float
    """That they give."""

    def __str__(self) -> str:
        named = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{named}: {self.share:.1%} of the boxes"


@dataclass(frozen=True)
class AnchorFit:
    """The fit of one layout to one split; regions to ignore are left out."""

    layout: AnchorLayout
    boxes_wh: NDArray[np.float32]
    """(M, 2) px of the input."""
    best_iou: NDArray[np.float32]
    """(M,) with any anchor."""
    all: Share
    by_size: dict[str, Share]
    by_class: dict[str, Share]
    by_level: list[int]
    """Boxes whose best anchor is on each map."""
    advice: list[Advice]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are listed in docs/data.md."""
        return {
            "image_size": list(self.layout.image_size),
            "style": self.layout.config.style,
            **self.all.to_json(),
            "by_size": {name: share.to_json() for name, share in self.by_size.items()},
            "by_class": {name: share.to_json() for name, share in self.by_class.items()},
            "by_level": self.by_level,
            "advice": [{"settings": advice.settings, "share": advice.share} for advice in self.advice],
        }


def fit_anchors(annotations: Annotations, layout: AnchorLayout, *, with_advice: bool = True) -> AnchorFit:
    """Compare the anchors of `layout` with every box of a split, and those of other layouts for advice."""
    counted = ~annotations.ignore
    on_input = boxes_as_input(annotations, layout.image_size)[counted]
    best = best_anchors(on_input, layout)
    met = best.iou >= MATCH_IOU
    labels, boxes = annotations.labels[counted], annotations.clipped_boxes()[counted]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    size = np.digitize(areas, [SMALL_AREA, MEDIUM_AREA])
    num_classes = annotations.classes.num_classes
    return AnchorFit(
        layout,
        boxes_wh=on_input[:, 2:] - on_input[:, :2],
        best_iou=best.iou,
        all=Share(len(met), int(met.sum())),
        by_size={
            name: Share(int((size == i).sum()), int(met[size == i].sum()))
            for i, name in enumerate(("small", "medium", "large"))
        },
        by_class={
            name: Share(boxes, found)
            for name, boxes, found in zip(
                annotations.classes.names,
                np.bincount(labels, minlength=num_classes + 1)[1:].tolist(),
                np.bincount(labels[met], minlength=num_classes + 1)[1:].tolist(),
                strict=True,
            )
        },
        by_level=np.bincount(best.level, minlength=len(layout.levels())).tolist(),
        advice=advise(annotations, layout) if with_advice and len(met) else [],
    )


def advise(annotations: Annotations, layout: AnchorLayout) -> list[Advice]:
    """The best change of the anchors, and the best change of the input size, where they are worth it."""
    rows = np.flatnonzero(~annotations.ignore)
    rows = rows[:: max(1, len(rows) // TRIED_BOXES)]

    def share_of(tried: AnchorLayout) -> float:
        boxes = boxes_as_input(annotations, tried.image_size)[rows]
        return float((best_anchors(boxes, tried).iou >= MATCH_IOU).mean())

    now = share_of(layout)
    advice = []
    for alternatives in (_other_anchors(layout), _other_inputs(layout)):
        tried = [
            Advice(_difference(layout, other), round(share_of(other), 4))
            for other in alternatives
            if other != layout
        ]
        best = max(tried, key=lambda one: one.share)
        if best.share - now >= WORTHWHILE:
            # The mildest change that does nearly as well: tried in order from the mildest.
            advice.append(next(one for one in tried if one.share >= best.share - WORTHWHILE / 2))
    return advice


def _other_anchors(layout: AnchorLayout) -> Iterator[AnchorLayout]:
    """The other head, then each head with lower scales, the highest first."""
    ladders: list[Sequence[float] | None] = [None]
    ladders += [
        [round(float(scale), 3) for scale in np.linspace(low, SCALES[-2], len(SCALES) - 1)] + [1.0]
        for low in sorted(TRIED_LOWEST_SCALES, reverse=True)
    ]
    for ladder in ladders:
        for style in (layout.config.style, "torchvision" if layout.config.style == "paper" else "paper"):
            scales = None if ladder is None else list(ladder)
            yield replace(layout, config=AnchorConfig(style=style, scales=scales))


def _other_inputs(layout: AnchorLayout) -> Iterator[AnchorLayout]:
    """The same proportions with other sides, the nearest first."""
    height, width = layout.image_size
    shorter = min(height, width)
    for side in sorted(TRIED_INPUTS, key=lambda side: abs(side - shorter)):
        size = tuple(round(length * side / shorter / 32) * 32 for length in (height, width))
        yield replace(layout, image_size=(size[0], size[1]))


def _difference(layout: AnchorLayout, other: AnchorLayout) -> dict[str, Any]:
    """What must be set so that `layout` becomes `other`."""
    settings: dict[str, Any] = {}
    if other.image_size != layout.image_size:
        settings["model.image_size"] = list(other.image_size)
    if other.config.style != layout.config.style:
        settings["model.anchors.style"] = other.config.style
    if other.config.scales != layout.config.scales:
        settings["model.anchors.scales"] = other.config.scales
    return settings
