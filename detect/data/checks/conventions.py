"""How a file writes its boxes, and whether it does so as its format says.

A box that is read by the wrong rule is a box somewhere else: training runs, and mAP stays near zero. Read by
the right rule nearly all boxes lie in their images; the sniffer compares the rules by that.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

BoxConvention = Literal[
    "xyxy", "xywh", "cxcywh", "yxyx", "xyxy_normalised", "xywh_normalised", "cxcywh_normalised"
]
"""Corners, corner and size, centre and size, y before x; in px, or in fractions of width and height."""
FIT_TOLERANCE_PX = 1.5
"""Rounding, and VOC's count from 1, move a box by less."""
MIN_MISFITS = 5
"""Fewer boxes outside are slips of a hand and no rule."""
MISFIT_SHARE = 0.02
"""Less of a data set outside its images is sloppy work, not another rule."""
MISFIT_RATIO = 20
"""Another rule must leave this many times fewer boxes outside."""


class ConventionFit(NamedTuple):
    """How well boxes fit into their images when read by one rule."""

    convention: BoxConvention
    misfits: NDArray[np.bool_]
    """(M,) boxes that leave their image, are turned inside out, or lie within one pixel."""

    @property
    def share(self) -> float:
        """Share of the boxes that do not fit."""
        return float(self.misfits.mean())


def is_normalised(convention: BoxConvention) -> bool:
    """Whether numbers are fractions of the image's width and height."""
    return convention.endswith("_normalised")


def to_corners(numbers: NDArray[np.float64], convention: BoxConvention) -> NDArray[np.float64]:
    """(M, 4) as written by `convention` to (M, 4) xyxy, in the same unit."""
    a, b, c, d = numbers.T
    order = convention.removesuffix("_normalised")
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is NaN, which the check finds
        if order == "xywh":
            corners = (a, b, a + c, b + d)
        elif order == "cxcywh":
            corners = (a - c / 2, b - d / 2, a + c / 2, b + d / 2)
        elif order == "yxyx":
            corners = (b, a, d, c)
        else:
            corners = (a, b, c, d)
    return np.stack(corners, axis=1)


def from_corners(corners: NDArray[np.float64], convention: BoxConvention) -> NDArray[np.float64]:
    """The inverse of `to_corners`."""
    x0, y0, x1, y1 = corners.T
    order = convention.removesuffix("_normalised")
    with np.errstate(invalid="ignore", over="ignore"):
        if order == "xywh":
            numbers = (x0, y0, x1 - x0, y1 - y0)
        elif order == "cxcywh":
            numbers = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
        elif order == "yxyx":
            numbers = (y0, x0, y1, x1)
        else:
            numbers = (x0, y0, x1, y1)
    return np.stack(numbers, axis=1)


def fit_of(
    numbers: NDArray[np.float64], limits: NDArray[np.float64], convention: BoxConvention
) -> ConventionFit:
    """Read (M, 4) `numbers` by `convention`: which boxes fit into images of (M, 2) width and height px."""
    corners = to_corners(numbers, convention)
    if is_normalised(convention):
        corners = corners * np.tile(limits, 2)
    size = corners[:, 2:] - corners[:, :2]
    fits = (
        (corners >= -FIT_TOLERANCE_PX).all(axis=1)
        & (corners[:, 2:] <= limits + FIT_TOLERANCE_PX).all(axis=1)
        & (size > 0).all(axis=1)
        # Fractions read as pixels lie in the corner of every image: inside, but too small to be drawn.
        & (size.max(axis=1, initial=0) > 1)
    )
    return ConventionFit(convention, ~fits)


def better_convention(
    numbers: NDArray[np.float64], limits: NDArray[np.float64], declared: BoxConvention
) -> tuple[ConventionFit, ConventionFit] | None:
    """The fit of `declared` and of a rule that fits clearly better; None where there is no such rule.

    Args:
        numbers: (M, 4) finite, as the file writes them.
        limits: (M, 2) width and height of each box's image in px.
        declared: the rule of the format.
    """
    own = fit_of(numbers, limits, declared)
    if own.misfits.sum() < MIN_MISFITS or own.share < MISFIT_SHARE:
        return None
    others = [fit_of(numbers, limits, other) for other in get_args(BoxConvention) if other != declared]
    best = min(others, key=lambda fit: fit.share)
    return (own, best) if best.share * MISFIT_RATIO <= own.share else None
