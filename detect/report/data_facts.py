"""What a run was trained and scored on: sizes of its splits, and how well the anchors fit the boxes."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentError, ArgumentParser
from numpy.typing import NDArray

from detect.boxes import box_iou
from detect.data.datamodule import DetectionData
from detect.data.labels import Annotations
from detect.errors import InputError
from detect.ssdlite import SSDLite

SMALL_AREA, MEDIUM_AREA = 32.0**2, 96.0**2
"""COCO's limits in px^2 of the file."""
FITTED_BOXES = 5000
"""As many boxes, evenly over the split, tell how anchors fit."""
OF_MODEL = ("image_size", "resize_rule", "seed", "augmentations")
"""Keys of a `data:` section that do not say where the data is."""


def open_data(settings: dict[str, Any], **of_model: Any) -> DetectionData:
    """The data set of a `data:` section as config.yaml holds it.

    Args:
        settings: plain values of the section.
        of_model: `image_size` and `resize_rule`, where images are to be loaded.

    Raises:
        InputError: it is not where it was, or the section is broken.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DetectionData, "data")
    wanted = {key: value for key, value in settings.items() if key not in OF_MODEL} | of_model
    try:
        config = parser.parse_object({"data": wanted})
    except ArgumentError as error:
        raise InputError(f"the data section of config.yaml: {error}") from error
    data: DetectionData = parser.instantiate_classes(config).data
    # The run has said what it found when it began.
    said, logging.root.manager.disable = logging.root.manager.disable, logging.INFO
    try:
        data.open()
    finally:
        logging.root.manager.disable = said
    return data


class SplitFacts(NamedTuple):
    """Sizes of one split."""

    images: int
    empty_images: int
    boxes: int
    """Without ignored ones."""
    ignored: int
    small: int
    medium: int
    large: int
    most_boxes: int
    """In one image."""
    per_class: dict[str, int]


def split_facts(annotations: Annotations) -> SplitFacts:
    """Count a split."""
    counted = ~annotations.ignore
    areas = annotations.areas[counted]
    small, medium = int((areas < SMALL_AREA).sum()), int((areas < MEDIUM_AREA).sum())
    per_image = np.diff(annotations.offsets)
    names = annotations.classes.names
    per_class = np.bincount(annotations.labels[counted], minlength=len(names) + 1)[1:].tolist()
    return SplitFacts(
        images=len(annotations),
        empty_images=int((per_image == 0).sum()),
        boxes=int(counted.sum()),
        ignored=int((~counted).sum()),
        small=small,
        medium=medium - small,
        large=len(areas) - medium,
        most_boxes=int(per_image.max(initial=0)),
        per_class=dict(zip(names, per_class, strict=True)),
    )


class AnchorFit(NamedTuple):
    """Boxes of a split on the network's input, whole images stretched onto it, against the anchors."""

    boxes_wh: NDArray[np.float64]
    """(M, 2) px of the input."""
    best_iou: NDArray[np.float64]
    """(M,) with any anchor."""
    anchors_wh: NDArray[np.float64]
    """(S, 2) the different sizes of anchors, px of the input."""
    num_anchors: int


def anchor_fit(annotations: Annotations, net: SSDLite) -> AnchorFit:
    """How well the anchors of `net` cover the boxes; ignored ones and those without area are left out."""
    height, width = net.image_size
    rows = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))
    scale = np.array([width, height]) / np.maximum(annotations.sizes[rows][:, ::-1], 1)
    boxes = annotations.boxes * np.tile(scale, 2)
    usable = ~annotations.ignore & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes = boxes[usable]
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(FITTED_BOXES, len(boxes))).astype(int)]
    # The network may live on the meta device, where its own anchors have no values.
    anchors = net.anchor_generator(net.grid_sizes, net.image_size)
    best = [
        box_iou(chunk, anchors).amax(dim=1).numpy()
        for chunk in torch.from_numpy(boxes).float().split(500)
        if len(chunk)
    ]
    sizes = (anchors[:, 2:] - anchors[:, :2]).double().numpy().round(2)
    return AnchorFit(
        boxes[:, 2:] - boxes[:, :2],
        np.concatenate(best).astype(np.float64) if best else np.zeros(0),
        np.unique(sizes, axis=0),
        len(anchors),
    )
