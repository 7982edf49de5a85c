"""Plans: which images the network sees in one input, what of each, and where. Most plans hold one image.

A plan is made in two steps, each a pure function of (seed, epoch, row, copy). A `Layout` chooses the images
and the rectangles that they fill, so cheaply that the sampler asks it too: the number of boxes to pad for
follows from it. Then the augmentations change the view of each tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.augment.transforms import Augmentation
from detect.data.augment.view import MappedBoxes, View, boxes_to_input
from detect.errors import InputError


class Area(NamedTuple):
    """A rectangle of the input, in whole px."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.y1 - self.y0, self.x1 - self.x0


class Tile(NamedTuple):
    """One image of a plan."""

    row: int
    """The image: a row of the split."""
    view: View
    """What is seen of it."""
    area: Area
    """Where: the view is stretched to it."""


Plan = tuple[Tile, ...]
"""The tiles of one input. They do not overlap; where there is none, the input has the colour `view.FILL`."""


class Layout(ABC):
    """Base class of an augmentation that shows several images at once: the first step, and one at most.

    As an `Augmentation` it leaves each view as it is.
    """

    max_images: int
    """No plan has more tiles: the memory of a batch follows from it."""

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        return view

    @abstractmethod
    def tiles(
        self, row: int, sizes: NDArray[np.int32], image_size: tuple[int, int], rng: np.random.Generator
    ) -> Plan:
        """Images of the split, what is shown of each before it is augmented, and where.

        Args:
            row: the image whose turn it is; the first tile shows it.
            sizes: (N, 2) height and width of each upright file of the split.
            image_size: (H, W) of the input.
            rng: random numbers that belong to the seed, the epoch and `row`.
        """


def single_image(row: int, orig_size: tuple[int, int], image_size: tuple[int, int]) -> Plan:
    """All of the image `row`, of `orig_size` (H, W), on the whole of the input."""
    height, width = image_size
    return (Tile(row, View.whole(orig_size), Area(0, 0, width, height)),)


def tile_boxes(boxes: NDArray[np.float64], tile: Tile, *, ignore: NDArray[np.bool_]) -> MappedBoxes:
    """The (G, 4) boxes of the tile's image in the input's frame: `boxes_to_input`, moved to the tile."""
    mapped = boxes_to_input(boxes, tile.view, tile.area.size, ignore=ignore)
    x0, y0 = tile.area.x0, tile.area.y0
    if x0 or y0:
        return mapped._replace(boxes=mapped.boxes + np.array([x0, y0, x0, y0], dtype=np.float32))
    return mapped


def layout_of(steps: Sequence[Augmentation]) -> Layout | None:
    """The step that lays out a plan, where there is one.

    Raises:
        InputError: it is not the first.
    """
    for step in steps[1:]:
        if isinstance(step, Layout):
            raise InputError(
                f"data.augmentations: {type(step).__name__} shows several images at once; name it first and "
                "once, the steps after it change each of its images"
            )
    return steps[0] if steps and isinstance(steps[0], Layout) else None
