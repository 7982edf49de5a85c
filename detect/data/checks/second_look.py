"""Whether two images that look alike are one image: aligned, compared block by block, and by their boxes.

Thumbnails of 16 x 16 px do not tell a copy from another image of the same camera, in which only what is to be
detected has moved. So the best crop, gain and offset that turn one image into the other are found first; then
a copy differs little everywhere, and an image with other content differs much in some block.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detect.data.array_boxes import iou_of_pairs
from detect.data.checks.scan import decode_grey

SIDE_PX = 48
"""Side of the grey images: eight blocks each way of 6 px."""
BLOCK_PX = 6
STEPS = 6
"""Gauss-Newton steps at most; a crop of 2 % takes three."""
STILL_PX = 0.02
"""A step that moves nothing further than this is the last."""
LEAST_GAIN = 0.1
"""Below it the images have nothing in common and no step is worth taking."""
LEAST_SHARED = 0.5
"""Share of the image that a crop must show."""
MATCH_IOU = 0.5
SAME_BOXES = 0.8
"""Share of the boxes of both images that must match for their boxes to agree."""
MOST_CHANGE = {True: 0.5, None: 0.4, False: 0.15}
"""Largest change of a block, as a share of the image's standard deviation, by whether the boxes agree (None:
an image has none). Measured on photographs of five data sets: copies by JPEG of quality 10, half the size, a
third, less brightness or other colours change by at most 0.19, those brighter by a quarter by 0.42 in nine of
ten, crops of 2 to 4 % by 0.44; of a fixed camera's images without a common box one pair in a hundred changes
by less than 0.37, none by less than 0.2."""


class Look(NamedTuple):
    """What the second look needs of an image."""

    grey: NDArray[np.float64]
    """(48, 48), the whole image squeezed into a square."""
    boxes: NDArray[np.float64]
    """(G, 4) xyxy, fractions of width and height."""
    labels: NDArray[np.str_]
    """(G,) name of each box's class: splits may number them differently."""

    @classmethod
    def of_file(cls, path: Path, boxes: NDArray[np.float64], labels: NDArray[np.str_]) -> Look:
        """Decode an image that was decoded before, so that nothing is raised."""
        grey = decode_grey(path, SIDE_PX).resize((SIDE_PX, SIDE_PX), Image.Resampling.HAMMING)
        return cls(np.asarray(grey, dtype=np.float64), boxes, labels)


class Alignment(NamedTuple):
    """One image seen in the frame of another: pixel x of it is at `scale * x + shift` of the other."""

    scale: NDArray[np.float64]
    """(2,) for x and y."""
    shift: NDArray[np.float64]
    """(2,) px for x and y."""


def is_same_image(one: Look, other: Look) -> bool:
    """Whether `other` is a copy of `one`: compressed, resized, slightly cropped, of other brightness."""
    still = Alignment(np.ones(2), np.zeros(2))
    return (
        _is_copy(one, other, still)
        or _is_copy(one, other, align(one.grey, other.grey))
        or _is_copy(other, one, align(other.grey, one.grey))  # a part is found in the whole more surely
    )


def _is_copy(one: Look, other: Look, alignment: Alignment) -> bool:
    change = largest_change(one.grey, other.grey, alignment)
    return change <= MOST_CHANGE[True] and change <= MOST_CHANGE[boxes_agree(one, other, alignment)]


def align(one: NDArray[np.float64], other: NDArray[np.float64]) -> Alignment:
    """The crop of `one` that resembles `other` most, whatever their brightness and contrast.

    Source: Lucas and Kanade, "An Iterative Image Registration Technique" (1981), with scale and shift of each
    axis, gain and offset as unknowns; pixels that differ much count less.
    """
    found = Alignment(np.ones(2), np.zeros(2))
    weights = np.ones_like(other)
    x, y = np.meshgrid(*[np.arange(SIDE_PX) + 0.5] * 2)
    for _ in range(STEPS):
        seen = _crop(one, found)
        dy, dx = np.gradient(seen)
        terms = np.stack([seen, np.ones_like(seen), dx * x, dx, dy * y, dy], axis=-1)
        usable = np.isfinite(terms).all(axis=-1)
        weighted = terms[usable] * weights[usable, None]
        solved = np.linalg.lstsq(weighted, other[usable] * weights[usable], rcond=None)[0]
        gain, offset, *moves = solved
        if abs(gain) < LEAST_GAIN:
            break
        by_scale, by_shift = np.array(moves[::2]) / gain, np.array(moves[1::2]) / gain
        found = Alignment(found.scale + by_scale, found.shift + by_shift)
        if np.abs(by_scale * SIDE_PX).max() + np.abs(by_shift).max() < STILL_PX:
            break
        distance = np.abs(other - gain * seen - offset)
        typical = np.nanmedian(distance) + 1  # a grey level: compression alone does as much
        weights = 1 / np.sqrt(1 + (np.nan_to_num(distance) / (3 * typical)) ** 2)
    return found


def largest_change(one: NDArray[np.float64], other: NDArray[np.float64], alignment: Alignment) -> float:
    """Root mean square difference of the block that differs most, over the standard deviation of `other`.

    Gain and offset between the images are taken out; what an image does not show is left out.
    """
    seen = _crop(one, alignment)
    usable = np.isfinite(seen)
    if usable.mean() < LEAST_SHARED:
        return float("inf")
    terms = np.stack([seen[usable], np.ones(usable.sum())], axis=-1)
    gain, offset = np.linalg.lstsq(terms, other[usable], rcond=None)[0]
    squares = np.where(usable, (other - gain * seen - offset) ** 2, 0)
    blocks = SIDE_PX // BLOCK_PX
    summed, counted = (
        values.reshape(blocks, BLOCK_PX, blocks, BLOCK_PX).sum(axis=(1, 3)) for values in (squares, usable)
    )
    # A block of few pixels at the edge of a crop counts as a whole one.
    whole = np.maximum(counted, BLOCK_PX**2 / 2)
    return float(np.sqrt((summed / whole).max()) / max(other.std(), 1e-6))


def boxes_agree(one: Look, other: Look, alignment: Alignment) -> bool | None:
    """Whether most boxes of both images lie at the same place and have the same class; None without any."""
    if not len(one.boxes) or not len(other.boxes):
        return None
    scale, shift = np.tile(alignment.scale, 2), np.tile(alignment.shift / SIDE_PX, 2)
    moved = other.boxes * scale + shift
    same = iou_of_pairs(one.boxes[:, None], moved[None]) > MATCH_IOU
    same &= one.labels[:, None] == other.labels
    matched = min(same.any(axis=1).sum(), same.any(axis=0).sum())
    return bool(matched >= SAME_BOXES * max(same.shape))


def _crop(grey: NDArray[np.float64], alignment: Alignment) -> NDArray[np.float64]:
    """(48, 48) what `grey` shows in the other's frame; NaN outside of it."""
    (scale_x, scale_y), (shift_x, shift_y) = alignment.scale.tolist(), alignment.shift.tolist()
    seen = Image.fromarray(grey.astype(np.float32)).transform(
        grey.shape,
        Image.Transform.AFFINE,
        (scale_x, 0, shift_x, 0, scale_y, shift_y),
        Image.Resampling.BILINEAR,
        fillcolor=float("nan"),
    )
    return np.asarray(seen, dtype=np.float64)
