"""Repeat-factor sampling: images of rare classes are shown more often.

Source: LVIS (arXiv 1908.03195) appendix B.2; as there, an image counts by its rarest class.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.errors import InputError

REPEAT_STREAM = 0x4EBEA7
"""Sets these random numbers apart from the shuffle's and the samples' of the same seed and epoch."""
LEAST_RATIO = 1.01
"""Between the greatest and the least factor: below it no image is shown more often than another."""


def repeat_factors(annotations: Annotations, threshold: float) -> NDArray[np.float64]:
    """How often each image is to be shown, relative to those that show only common classes.

    r(c) = max(1, sqrt(threshold / f(c))) for a class c that the share f(c) of all images shows; an image has
    the greatest r(c) of its classes, 1 without any. Regions to ignore show nothing.

    Args:
        annotations: the training split, N images.
        threshold: classes that a smaller share of the images shows are repeated.

    Returns:
        (N,), each at least 1.

    Raises:
        InputError: the threshold is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise InputError(
            f"data.repeat_threshold {threshold}: a share of the images, above 0 and at most 1; null for none"
        )
    trained = ~annotations.ignore
    images = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))[trained]
    labels = annotations.labels[trained]
    shown = np.zeros((len(annotations), annotations.classes.num_classes + 1), dtype=np.bool_)
    shown[images, labels] = True
    share = np.maximum(shown.sum(axis=0), 1) / len(annotations)  # a class that no image shows repeats none
    of_class = np.maximum(1.0, np.sqrt(threshold / share))
    factors: NDArray[np.float64] = np.where(shown, of_class, 1.0).max(axis=1)
    return factors


def draw_repeats(factors: NDArray[np.float64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """How often each image may be drawn in `epoch`: its factor, rounded up or down by a draw.

    A pure function of (seed, epoch, image); over many epochs the mean is the factor.

    Args:
        factors: (N,), at least 1.
        seed: of the data.
        epoch: from 0.

    Returns:
        (N,) at least 1.
    """
    whole = np.floor(factors)
    draws = np.random.default_rng((seed, epoch, REPEAT_STREAM)).random(len(factors))
    return (whole + (draws < factors - whole)).astype(np.int64)


def describe_repeats(factors: NDArray[np.float64]) -> str:
    """What the factors come to, for a person: (N,) of `repeat_factors`."""
    ratio = factors.max() / factors.min()
    if ratio < LEAST_RATIO:
        return "repeat_threshold: every class is in enough images, none is repeated"
    more, others = int((factors > factors.mean()).sum()), factors.sum() - len(factors)
    return (
        f"repeat_threshold: {more} of {len(factors)} images are shown more often than before, up to "
        f"{ratio:.2f} times as often as others; an epoch keeps its length, so {others:.0f} showings of those "
        "are left out of it"
    )
