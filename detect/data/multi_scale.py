"""Multi-scale training: which size the network input has in which step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detect.errors import InputError

STEP_PX = 32
"""Sides are multiples of this: a cell of the last tap."""
SIZE_STREAM = 0x512E
"""Sets these random numbers apart from those of images and of their order, of the same seed and epoch."""


class MultiScale(NamedTuple):
    """The sizes of a run, and the choice among them: a pure function of seed, epoch and step."""

    sizes: tuple[tuple[int, int], ...]
    """(H, W) each, from small to large; the same proportions, up to `STEP_PX`."""
    seed: int
    until: int | None = None
    """The epoch, from 0, from which on the input has its own size again; None: there is none."""

    def size(self, epoch: int, step: int) -> tuple[int, int] | None:
        """(H, W) of a step of an epoch, both from 0; None: the input's own."""
        if self.until is not None and epoch >= self.until:
            return None
        rng = np.random.default_rng((self.seed, epoch, step, SIZE_STREAM))
        return self.sizes[rng.integers(len(self.sizes))]


def sizes_between(sides: tuple[int, int], image_size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Inputs in steps of 32 px.

    Args:
        sides: least and greatest length of the shorter side.
        image_size: (H, W) whose proportions the inputs have, each side rounded to a multiple of 32.

    Raises:
        InputError: the sides are no range of multiples of 32.
    """
    low, high = sides
    if not STEP_PX <= low <= high or low % STEP_PX or high % STEP_PX:
        raise InputError(
            f"data.multi_scale is {list(sides)}; give the least and the greatest side, both multiples of "
            f"{STEP_PX}, such as [256, 384]"
        )
    shorter = min(image_size)
    return tuple(
        (_rounded(side * image_size[0] / shorter), _rounded(side * image_size[1] / shorter))
        for side in range(low, high + 1, STEP_PX)
    )


def _rounded(side: float) -> int:
    return round(side / STEP_PX) * STEP_PX
