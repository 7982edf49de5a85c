"""Augmentations: plans that are pure functions of their random numbers, rendered in one resize."""

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
    "PhotometricDistort",
    "RandomHorizontalFlip",
    "RandomIoUCrop",
    "RandomVerticalFlip",
    "RandomZoomOut",
    "default_augmentations",
]
