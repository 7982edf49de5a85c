"""What a run was trained and scored on: the sizes of its splits."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
from jsonargparse import ArgumentParser

from detect.config.unknown_keys import build
from detect.data.annotations import Annotations
from detect.data.datamodule import DetectionData
from detect.inspection.anchor_fit import MEDIUM_AREA, SMALL_AREA

OF_MODEL = ("image_size", "resize_rule", "seed", "augmentations", "weak_augmentations")
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
    data: DetectionData = build(parser, {"data": wanted}, what="the data section of config.yaml").data
    # The run has said what it found when it began.
    said = logging.root.manager.disable
    logging.disable(logging.INFO)  # not the attribute alone: loggers remember what they may say
    try:
        data.open()
    finally:
        logging.disable(said)
    return data


class SplitFacts(NamedTuple):
    """Sizes of one split."""

    images: int
    empty_images: int
    boxes: int
    """Boxes that are not ignored."""
    ignored: int
    small: int
    medium: int
    large: int
    most_boxes: int
    """Most boxes in one image."""
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
