"""Augmentations: each changes a `View`, a description of what the network shall see, and touches no pixel.

`render` carries the plan out, in one resize. Configurations name these classes by their path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detect.data.augment.colour import colour_matrix, compose_colours
from detect.data.augment.view import FILL, View
from detect.errors import InputError


class Augmentation(Protocol):
    """One step that changes what is seen of an image; of a plan with several images, of each."""

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        """The changed view; `boxes` are (G, 4) xyxy px of the file, those that are not ignored."""


def require_share(augmentation: object, probability: float) -> None:
    """Refuse a probability that is none.

    Raises:
        InputError: it is not from 0 to 1; names the class of `augmentation`.
    """
    if not 0 <= probability <= 1:
        raise InputError(
            f"probability of {type(augmentation).__name__} is {probability}; give a share from 0 to 1"
        )


def require_inner_range(augmentation: object, **ranges: tuple[float, float]) -> None:
    """Refuse a range that does not lie between 0 and 1, by its name.

    Raises:
        InputError: an end is 0 or less, or 1 or more, or the upper end comes first.
    """
    for name, (low, high) in ranges.items():
        if not 0 < low <= high < 1:
            raise InputError(
                f"{name} of a {type(augmentation).__name__} is a range between 0 and 1, the lower end first; "
                f"got {low}, {high}"
            )


class RandomIoUCrop:
    """SSD's crop: a part of the view that shares at least a drawn IoU with one box.

    Args:
        min_scale: least width and height, as a fraction of the view's.
        max_scale: greatest width and height, as a fraction of the view's.
        min_aspect_ratio: least width / height, in px.
        max_aspect_ratio: greatest width / height.
        min_ious: one is drawn for each image; 1 or more means no crop.
        trials: crops tried for a drawn IoU before another is drawn.

    Source: SSD (arXiv 1512.02325) section 2.2; numbers as in the Caffe release. An image without boxes is
    not cropped, as in torchvision's v2.RandomIoUCrop; unlike there, corners are not rounded to whole pixels.
    """

    def __init__(
        self,
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        *,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        min_ious: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
    ) -> None:
        if not 0 < min_scale <= max_scale <= 1:
            raise InputError(f"need 0 < min_scale <= max_scale <= 1, got {min_scale} and {max_scale}")
        if not 0 < min_aspect_ratio <= max_aspect_ratio or trials < 1:
            raise InputError(
                f"need 0 < min_aspect_ratio <= max_aspect_ratio and 1 trial, got {min_aspect_ratio}, "
                f"{max_aspect_ratio} and {trials}"
            )
        if not any(min_iou >= 1 for min_iou in min_ious):
            raise InputError(
                f"min_ious {list(min_ious)} need one of at least 1 (no crop), or the search may not end"
            )
        self.min_scale, self.max_scale = min_scale, max_scale
        self.min_aspect_ratio, self.max_aspect_ratio = min_aspect_ratio, max_aspect_ratio
        self.min_ious = tuple(min_ious)
        self.trials = trials

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        while len(boxes):
            min_iou = self.min_ious[rng.integers(len(self.min_ious))]
            if min_iou >= 1:
                break
            crops = self._draw(view, rng)
            good = np.flatnonzero(_best_iou_of_centred(crops, boxes) >= min_iou)
            if len(good):  # of a panorama no crop at all may have a fitting aspect ratio
                x0, y0, x1, y1 = crops[:, good[0]].tolist()
                return replace(view, x0=x0, y0=y0, x1=x1, y1=y1)
        return view

    def _draw(self, view: View, rng: np.random.Generator) -> NDArray[np.float64]:
        """(4, T) corners x0, y0, x1, y1 of crops of fitting aspect ratio, T <= trials."""
        scale_x, scale_y, place_x, place_y = rng.random((4, self.trials))
        spread = self.max_scale - self.min_scale
        width = (self.min_scale + spread * scale_x) * view.width
        height = (self.min_scale + spread * scale_y) * view.height
        x0 = view.x0 + place_x * (view.width - width)
        y0 = view.y0 + place_y * (view.height - height)
        fits = (width >= self.min_aspect_ratio * height) & (width <= self.max_aspect_ratio * height)
        return np.stack([x0, y0, x0 + width, y0 + height])[:, fits]


class RandomZoomOut:
    """SSD's expansion: the view becomes up to `max_ratio` times as wide and high, the rest is `fill`.

    Args:
        max_ratio: greatest ratio of the new side to the old.
        probability: how often; 0.5 is SSD's. Zooming out makes small objects: leave it out where the data's
            are smaller than a cell of the first map already.
        fill: RGB, 0..255; by default the mean of ImageNet.

    Source: SSD (arXiv 1512.02325) section 3.6.
    """

    def __init__(
        self, max_ratio: float = 4.0, probability: float = 0.5, *, fill: tuple[int, int, int] = FILL
    ) -> None:
        if max_ratio < 1:
            raise InputError(f"max_ratio of a zoom-out is at least 1, got {max_ratio}")
        require_share(self, probability)
        self.max_ratio, self.probability, self.fill = max_ratio, probability, fill

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        if rng.random() >= self.probability:
            return view
        ratio = rng.uniform(1, self.max_ratio)
        width, height = ratio * view.width, ratio * view.height
        x0 = view.x0 - rng.random() * (width - view.width)
        y0 = view.y0 - rng.random() * (height - view.height)
        return replace(view, x0=x0, y0=y0, x1=x0 + width, y1=y0 + height, fill=self.fill)


class PhotometricDistort:
    """Brightness, contrast, saturation and hue, each drawn apart, composed to one 3 x 4 colour matrix.

    One matrix clips once, at the end. Contrast pulls towards mid grey (a plan cannot know the image's mean),
    saturation towards luma; hue is a rotation in YIQ, which keeps luma where one in HSV does not.

    Args:
        brightness, contrast, saturation: range of each factor.
        hue: range of the turn, in turns. Set [0, 0] where a class is known by its colour.
        probability: of each of the four; 0 for none.

    Source: SSD's Caffe release; ranges of torchvision's v2.RandomPhotometricDistort.
    """

    def __init__(
        self,
        brightness: tuple[float, float] = (0.875, 1.125),
        contrast: tuple[float, float] = (0.5, 1.5),
        *,
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: tuple[float, float] = (-0.05, 0.05),
        probability: float = 0.5,
    ) -> None:
        for name, (low, high) in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
            ("hue", hue),
        ):
            if low > high:
                raise InputError(f"{name} of a distortion is a range, the lower end first; got {low}, {high}")
        require_share(self, probability)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.probability = probability

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        factors = [
            rng.uniform(*bounds) if rng.random() < self.probability else neutral
            for bounds, neutral in (
                (self.brightness, 1),
                (self.contrast, 1),
                (self.saturation, 1),
                (self.hue, 0),
            )
        ]
        if factors == [1, 1, 1, 0]:
            return view
        return replace(view, colour=compose_colours(view.colour, colour_matrix(*factors)))


class RandomHorizontalFlip:
    """Mirrors left and right.

    Args:
        probability: how often; leave the class out where left and right differ, as in print.
    """

    def __init__(self, probability: float = 0.5) -> None:
        require_share(self, probability)
        self.probability = probability

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        return replace(view, flip_horizontal=view.flip_horizontal ^ bool(rng.random() < self.probability))


class RandomVerticalFlip:
    """Mirrors top and bottom: for images without an up, as through a microscope.

    Args:
        probability: how often.
    """

    def __init__(self, probability: float = 0.5) -> None:
        require_share(self, probability)
        self.probability = probability

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        return replace(view, flip_vertical=view.flip_vertical ^ bool(rng.random() < self.probability))


def default_augmentations() -> list[Augmentation]:
    """SSD's set, in its order (arXiv 1512.02325, sections 2.2 and 3.6)."""
    return [PhotometricDistort(), RandomZoomOut(), RandomIoUCrop(), RandomHorizontalFlip()]


def flips_of(steps: Sequence[Augmentation]) -> list[Augmentation]:
    """The steps that mirror an image and do nothing else, in their order."""
    return [step for step in steps if isinstance(step, RandomHorizontalFlip | RandomVerticalFlip)]


def _best_iou_of_centred(crops: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) the best IoU of each of (4, T) crops with the (G, 4) boxes whose centre it holds; -1 for none."""
    box_x0, box_y0, box_x1, box_y1 = np.ascontiguousarray(boxes.T)  # each (G,)
    x0, y0, x1, y1 = crops[:, :, None]  # each (T, 1)
    width = np.minimum(x1, box_x1) - np.maximum(x0, box_x0)  # (T, G)
    height = np.minimum(y1, box_y1) - np.maximum(y0, box_y0)
    shared = width * height  # both are positive wherever the centre is held
    iou = shared / ((x1 - x0) * (y1 - y0) + (box_x1 - box_x0) * (box_y1 - box_y0) - shared)
    centre_x, centre_y = (box_x0 + box_x1) / 2, (box_y0 + box_y1) / 2
    iou[(x0 >= centre_x) | (centre_x >= x1) | (y0 >= centre_y) | (centre_y >= y1)] = -1
    return iou.max(axis=1)
