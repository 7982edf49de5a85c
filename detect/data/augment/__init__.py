"""Augmentations: plans that are pure functions of their random numbers, each image rendered in one resize."""

from detect.data.augment.mosaic import Mosaic
from detect.data.augment.plan import Layout
from detect.data.augment.transforms import (
    Augmentation,
    PhotometricDistort,
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomVerticalFlip,
    RandomZoomOut,
    default_augmentations,
)

__all__ = [
    "Augmentation",
    "Layout",
    "Mosaic",
    "PhotometricDistort",
    "RandomHorizontalFlip",
    "RandomIoUCrop",
    "RandomVerticalFlip",
    "RandomZoomOut",
    "default_augmentations",
]
