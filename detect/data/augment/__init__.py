"""Augmentations: plans that are pure functions of their random numbers, each image rendered in one resize."""

from detect.data.augment.copy_paste import CopyPaste
from detect.data.augment.crops import RandomResizedCrop
from detect.data.augment.mixup import MixUp
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
    "CopyPaste",
    "Layout",
    "MixUp",
    "Mosaic",
    "PhotometricDistort",
    "RandomHorizontalFlip",
    "RandomIoUCrop",
    "RandomResizedCrop",
    "RandomVerticalFlip",
    "RandomZoomOut",
    "default_augmentations",
]
