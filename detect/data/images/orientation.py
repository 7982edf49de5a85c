"""EXIF orientation: which way the boxes of a turned image were drawn, and turning them with it.

Pixels are always shown upright. A labelling tool that ignores the orientation draws boxes on the image as
stored; the width and height in the annotations tell which of the two it was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.images.decode import TRANSPOSED_ORIENTATIONS

MOVES = np.array(
    [
        (False, False, False),
        (False, True, False),
        (False, True, True),
        (False, False, True),
        (True, False, False),
        (True, True, False),
        (True, True, True),
        (True, False, True),
    ]
)
"""Stored to upright, a row for each EXIF orientation from 1 to 8: swap x and y; then count x from the right;
count y from the bottom. Source: EXIF 2.32, tag 0x0112."""


class OrientationVotes(NamedTuple):
    """What the annotated sizes say about images that are stored turned by a quarter."""

    upright: NDArray[np.bool_]
    """(N,) annotated in the size that is shown."""
    stored: NDArray[np.bool_]
    """(N,) annotated in the size before turning."""


def read_votes(
    annotated: NDArray[np.int32], stored: NDArray[np.int32], orientations: NDArray[np.int8]
) -> OrientationVotes:
    """Compare (N, 2) annotated sizes with stored ones, height first; square or absent ones say nothing."""
    oblong = np.isin(orientations, TRANSPOSED_ORIENTATIONS) & (stored[:, 0] != stored[:, 1])
    return OrientationVotes(
        upright=oblong & (annotated == stored[:, ::-1]).all(axis=1),
        stored=oblong & (annotated == stored).all(axis=1),
    )


def boxes_drawn_as_stored(votes: OrientationVotes, orientations: NDArray[np.int8]) -> NDArray[np.bool_]:
    """(N,) images whose boxes must be turned: those that say so, and where most say so the undecided ones."""
    most = int(votes.stored.sum()) > int(votes.upright.sum())
    undecided = (orientations > 1) & ~votes.stored & ~votes.upright
    return votes.stored | (undecided & most)


def turn_boxes(
    boxes: NDArray[np.float64], orientations: NDArray[np.int8], stored: NDArray[np.int32]
) -> NDArray[np.float64]:
    """(M, 4) xyxy px of stored images to px of the upright ones.

    Args:
        boxes: xyxy px as stored.
        orientations: (M,) EXIF orientation of each box's image; 1 leaves the box alone.
        stored: (M, 2) height and width of each box's image as stored, px.
    """
    moves = MOVES[orientations - 1]  # (M, 3)
    swap, mirror_x, mirror_y = (moves[:, i, None] for i in range(3))  # each (M, 1)
    x, y = boxes[:, 0::2], boxes[:, 1::2]
    x, y = np.where(swap, y, x), np.where(swap, x, y)
    height, width = (stored[:, i, None].astype(np.float64) for i in range(2))
    height, width = np.where(swap, width, height), np.where(swap, height, width)
    x = np.where(mirror_x, width - x[:, ::-1], x)
    y = np.where(mirror_y, height - y[:, ::-1], y)
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
