"""How certain a difference between detectors is: a paired bootstrap over the images of a split.

Two detectors are scored on the same images drawn with replacement, a thousand times. The spread of the
difference is what another sample of images would have given; hard images, hard for both, cancel out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.evaluation.average_precision import WeightedAp

RESAMPLES = 1000
CONFIDENCE = 0.95
CHUNK = 50
"""Resamples at a time: what is in memory is this many numbers per detection of a class."""


class Difference(NamedTuple):
    """Between two groups of runs: second minus first, mean over their seeds."""

    mAP: float
    low: float
    """Lower end of the 95 % interval."""
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        interval = f"{self.mAP:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        return interval if self.distinguishable else f"not distinguishable: {interval}"


def draw_weights(num_images: int, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.uint16]:
    """(B, N) how often each image is drawn in each of B resamples of N images; the same for the same seed."""
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, num_images), dtype=np.uint16)
    for row in weights:
        row[:] = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
    return weights


def resampled_map(ap: WeightedAp, weights: NDArray[np.uint16]) -> NDArray[np.float64]:
    """(B,) mAP of one run on each resample; NaN where a resample has no box at all."""
    return np.concatenate([ap.mean(chunk) for chunk in _chunks(weights)])


def compare_groups(
    first: Sequence[NDArray[np.float64]],
    second: Sequence[NDArray[np.float64]],
    *,
    full: tuple[Sequence[float], Sequence[float]],
    seed: int = 0,
) -> Difference:
    """The difference of two groups of seeds, with the interval that images and seeds leave open.

    Where a group has several seeds, they are drawn with replacement as the images are; with one seed each
    the interval is that of the images alone, and another seed may differ by more.

    Args:
        first: (B,) resampled mAP of each seed of the first group, from `resampled_map`.
        second: likewise, on the same weights.
        full: mAP of the seeds of both groups on all images.
        seed: of drawing the seeds.
    """
    rng = np.random.default_rng(seed)
    differences = _mean_of_drawn_seeds(second, rng) - _mean_of_drawn_seeds(first, rng)
    differences = differences[~np.isnan(differences)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Difference(float(np.mean(full[1]) - np.mean(full[0])), float(low), float(high))


def _mean_of_drawn_seeds(
    resampled: Sequence[NDArray[np.float64]], rng: np.random.Generator
) -> NDArray[np.float64]:
    """(B,) mean over as many seeds as the group has, drawn anew with replacement for each resample."""
    values = np.stack(resampled)  # (seeds, B)
    drawn = rng.integers(0, len(values), values.shape)
    means: NDArray[np.float64] = np.take_along_axis(values, drawn, axis=0).mean(axis=0)
    return means


def _chunks(weights: NDArray[np.uint16]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(weights), CHUNK):
        yield weights[start : start + CHUNK].astype(np.float64)
