"""Arithmetic on boxes in NumPy, for code that needs no torch; `boxes` has more, in torch."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", np.float32, np.float64)


def iou_of_pairs(boxes: NDArray[Float], others: NDArray[Float]) -> NDArray[Float]:
    """Intersection over union in NumPy of (..., 4) boxes with areas that broadcast with each other: (...).

    For code that compares each box with one or a few others; `boxes.box_iou` compares all with all.
    """
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    other_x0, other_y0, other_x1, other_y1 = np.moveaxis(others, -1, 0)
    width = np.minimum(x1, other_x1) - np.maximum(x0, other_x0)
    height = np.minimum(y1, other_y1) - np.maximum(y0, other_y0)
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (x1 - x0) * (y1 - y0) + (other_x1 - other_x0) * (other_y1 - other_y0)
    return np.asarray(shared / (areas - shared))
