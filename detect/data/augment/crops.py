"""Crops of classification: a part of the image in training, its middle in validation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detect.data.augment.view import View
from detect.errors import InputError

TRIALS = 10


class RandomResizedCrop:
    """The Inception crop: a rectangle of a drawn share of the view's area and a drawn aspect ratio.

    For classification. A detector loses every box whose centre is outside.

    Args:
        min_area: least share of the view's area.
        max_area: greatest share.
        min_aspect_ratio: least width / height, in px of the file.
        max_aspect_ratio: greatest width / height.

    Source: "Going Deeper with Convolutions" (arXiv 1409.4842) section 6; drawn as torchvision's
    RandomResizedCrop, which takes the middle where ten draws do not fit.
    """

    def __init__(
        self,
        min_area: float = 0.08,
        max_area: float = 1.0,
        *,
        min_aspect_ratio: float = 3 / 4,
        max_aspect_ratio: float = 4 / 3,
    ) -> None:
        if not 0 < min_area <= max_area <= 1:
            raise InputError(f"need 0 < min_area <= max_area <= 1, got {min_area} and {max_area}")
        if not 0 < min_aspect_ratio <= max_aspect_ratio:
            raise InputError(
                f"need 0 < min_aspect_ratio <= max_aspect_ratio, got {min_aspect_ratio} and "
                f"{max_aspect_ratio}"
            )
        self.min_area, self.max_area = min_area, max_area
        self.min_aspect_ratio, self.max_aspect_ratio = min_aspect_ratio, max_aspect_ratio

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        low, high = math.log(self.min_aspect_ratio), math.log(self.max_aspect_ratio)
        area = view.width * view.height * rng.uniform(self.min_area, self.max_area, TRIALS)
        ratio = np.exp(rng.uniform(low, high, TRIALS))
        place_x, place_y = rng.random(2)
        width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
        fits = np.flatnonzero((width <= view.width) & (height <= view.height))
        if not len(fits):
            ratio_of_view = view.width / view.height
            aspect = min(max(ratio_of_view, self.min_aspect_ratio), self.max_aspect_ratio)
            return middle(view, 1.0, aspect)
        w, h = float(width[fits[0]]), float(height[fits[0]])
        x0, y0 = view.x0 + place_x * (view.width - w), view.y0 + place_y * (view.height - h)
        return replace(view, x0=x0, y0=y0, x1=x0 + w, y1=y0 + h)


class CentreCrop:
    """The middle of the view: of the largest rectangle of an aspect ratio in it, a share of each side.

    Args:
        share: of the sides; 0.875 is a crop of 224 px from an image whose shorter side has 256.
        aspect_ratio: width / height, in px of the file.
    """

    def __init__(self, share: float = 0.875, *, aspect_ratio: float = 1.0) -> None:
        if not 0 < share <= 1:
            raise InputError(f"the share of a centre crop is above 0 and at most 1, got {share}")
        self.share, self.aspect_ratio = share, aspect_ratio

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        return middle(view, self.share, self.aspect_ratio)


def middle(view: View, share: float, aspect_ratio: float) -> View:
    """The view without its margins, see `CentreCrop`."""
    width = min(view.width, view.height * aspect_ratio) * share
    height = width / aspect_ratio
    x0, y0 = (view.x0 + view.x1 - width) / 2, (view.y0 + view.y1 - height) / 2
    return replace(view, x0=x0, y0=y0, x1=x0 + width, y1=y0 + height)
