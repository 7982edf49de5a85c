"""The two resize rules in NumPy, for prediction without torch; `augment.view.resize_pixels` has torch's.

By "antialias" the result is torch's to the bit; Pillow's kernel rounds single values differently.
`deploy/web/resize.js` does the same in a browser.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.types import ResizeRule

BITS = 15
"""Of a weight, sign aside: torch multiplies whole numbers."""

NUMBERS, OUTPUTS = 1 << 20, 4
"""Multiplied at once: what the processor's cache holds, and few zeros beside the bands."""


class Band(NamedTuple):
    """Neighbouring values of the result, as sums over a stretch of a line."""

    given: slice
    wanted: slice
    weights: NDArray[np.float64]
    """(given, wanted); zero where a value does not look."""


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
    return np.stack([resize(pixels, image_size) for pixels in images]).transpose(0, 3, 1, 2)


def _antialiased(pixels: NDArray[np.uint8], image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Columns first, as torch does: what lies between is rounded."""
    height, width = image_size
    if pixels.shape[1] != width:
        lines = _shortened(pixels.reshape(len(pixels), -1), width, channels=3)
        pixels = lines.reshape(len(pixels), width, 3)
    if pixels.shape[0] != height:
        lines = _shortened(pixels.reshape(len(pixels), -1).T, height, channels=1)
        pixels = lines.T.reshape(height, width, 3)
    return pixels


def _shortened(lines: NDArray[np.uint8], wanted: int, *, channels: int) -> NDArray[np.uint8]:
    """(n, m * channels) to (n, wanted * channels): each value a weighted mean, rounded to the nearest.

    Products of matrices, and exact: a mean has at most 30 binary places, a float64 has 53.
    """
    bands = _bands(lines.shape[1] // channels, wanted, channels)
    shortened = np.empty((len(lines), wanted * channels), np.uint8)
    at_once = max(1, NUMBERS // lines.shape[1])
    given = np.empty_like(lines[:at_once], dtype=np.float64)
    means = np.empty((len(given), wanted * channels))
    for start in range(0, len(lines), at_once):
        here = slice(start, start + at_once)
        count = len(lines[here])
        given[:count] = lines[here]
        for band in bands:
            np.matmul(given[:count, band.given], band.weights, out=means[:count, band.wanted])
        shortened[here] = np.minimum(means[:count] + 0.5, 255)
    return shortened


@lru_cache(maxsize=8)  # the images of a folder are often of one size
def _bands(given: int, wanted: int, channels: int) -> list[Band]:
    """The weights along an axis for interleaved channels."""
    first, weights, places = _triangles(given, wanted)
    looked_at = first[:, None] + np.arange(weights.shape[1])
    row, tap = np.nonzero(weights)
    table = np.zeros((given, wanted))
    table[looked_at[row, tap], row] = weights[row, tap] / 2**places
    bands = []
    for start in range(0, wanted, OUTPUTS):
        stop = min(start + OUTPUTS, wanted)
        left, right = int(first[start]), min(int(looked_at[stop - 1, -1]) + 1, given)
        matrix = np.kron(table[left:right, start:stop], np.eye(channels)).astype(np.float64)
        columns = slice(start * channels, stop * channels)
        bands.append(Band(slice(left * channels, right * channels), columns, matrix))
    return bands


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


def _bilinear(pixels: NDArray[np.uint8], image_size: tuple[int, int]) -> NDArray[np.float32]:
    """Without antialias or rounding: each value lies between two columns of two rows."""
    (top, bottom, down), (left, right, across) = map(_neighbours, pixels.shape, image_size)
    rows = np.union1d(top, bottom)
    found = pixels.take(rows, axis=0)
    mixed = _between(found.take(left, axis=1), found.take(right, axis=1), across[:, None])
    above, below = (mixed.take(np.searchsorted(rows, one), axis=0) for one in (top, bottom))
    return _between(above, below, down[:, None, None])


def _between(one: NDArray[Any], other: NDArray[Any], part: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(one * (1 - part) + other * part, dtype=np.float32)


def _neighbours(given: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Which two of `given` values each of `wanted` lies between, and the second's part; centres at half."""
    place = ((np.arange(wanted) + 0.5) * (given / wanted) - 0.5).clip(0, given - 1)
    low = place.astype(np.int64)
    return low, np.minimum(low + 1, given - 1), (place - low).astype(np.float32)
