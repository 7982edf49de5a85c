"""The two resize rules in NumPy, for prediction without torch; `augment.view.resize_pixels` has torch's.

By "antialias" the result is torch's to the bit; Pillow's kernel rounds single values differently.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detect.types import ResizeRule

BITS = 15
"""Of a weight, sign aside: torch multiplies whole numbers."""


def input_array(
    images: Iterable[NDArray[np.uint8]], image_size: tuple[int, int], rule: ResizeRule
) -> NDArray[Any]:
    """`augment.view.input_batch` in NumPy: (h, w, 3) RGB images to (B, 3, H, W) as a network takes them.

    Args:
        images: upright.
        image_size: (H, W) of the input.
        rule: "antialias" gives uint8, "torchvision" float32 in 0..255.
    """
    resize = _antialiased if rule == "antialias" else _bilinear
    return np.stack([_along_columns_and_rows(pixels, image_size, resize) for pixels in images]).transpose(
        0, 3, 1, 2
    )


def _along_columns_and_rows(
    pixels: NDArray[np.uint8], image_size: tuple[int, int], resize: Any
) -> NDArray[Any]:
    """Columns first, as torch does: what lies between is rounded."""
    height, width = image_size
    if pixels.shape[1] != width or resize is _bilinear:
        pixels = resize(np.ascontiguousarray(pixels.transpose(1, 0, 2)), width).transpose(1, 0, 2)
    if pixels.shape[0] != height or resize is _bilinear:
        pixels = resize(np.ascontiguousarray(pixels), height)
    return pixels


def _antialiased(pixels: NDArray[np.uint8], wanted: int) -> NDArray[np.uint8]:
    """(n, m, 3) to (wanted, m, 3): each value a weighted mean of those below a triangle, to the nearest."""
    first, weights, precision = _triangles(len(pixels), wanted)
    sums = np.full((wanted, *pixels.shape[1:]), 1 << (precision - 1), dtype=np.int32)
    for tap in range(weights.shape[1]):
        rows = pixels.take(np.minimum(first + tap, len(pixels) - 1), axis=0)
        sums += np.multiply(rows, weights[:, tap, None, None], dtype=np.int32)
    return (sums >> precision).clip(0, 255).astype(np.uint8)


def _triangles(given: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Where each of `wanted` values begins to look, its weights (wanted, taps), and their binary places."""
    scale = given / wanted
    reach = max(scale, 1.0)
    centre = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    behind = np.minimum((centre + reach + 0.5).astype(np.int64), given)
    place = first[:, None] + np.arange(2 * math.ceil(reach) + 1)
    weights = np.maximum(0.0, 1 - np.abs((place - centre[:, None] + 0.5) / reach))
    weights[place >= behind[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    # The most binary places with which the largest weight keeps its bits.
    precision = next(
        places for places in range(22) if int(0.5 + weights.max() * 2 ** (places + 1)) >= 1 << BITS
    )
    return first, (0.5 + weights * 2**precision).astype(np.int32), precision


def _bilinear(pixels: NDArray[Any], wanted: int) -> NDArray[np.float32]:
    """(n, m, 3) to (wanted, m, 3) without antialias or rounding; pixel centres at half."""
    place = (np.arange(wanted) + 0.5) * (len(pixels) / wanted) - 0.5
    place = place.clip(0, len(pixels) - 1)
    low = place.astype(np.int64)
    part = (place - low).astype(np.float32)[:, None, None]
    high = np.minimum(low + 1, len(pixels) - 1)
    mixed = pixels.take(low, axis=0) * (1 - part) + pixels.take(high, axis=0) * part
    return mixed.astype(np.float32, copy=False)
