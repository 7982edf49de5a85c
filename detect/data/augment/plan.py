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

from detect.data.annotations import Annotations
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

    def meets(self, other: Area) -> bool:
        """Whether they share a pixel."""
        along_x = self.x0 < other.x1 and other.x0 < self.x1
        return along_x and self.y0 < other.y1 and other.y0 < self.y1


class Tile(NamedTuple):
    """One image of a plan."""

    row: int
    """The image: a row of the split."""
    view: View
    """What is seen of it."""
    area: Area
    """Where: the view is stretched to it."""
    opacity: float = 1.0
    """1 covers what lies below; less blends with it."""
    fixed: bool = False
    """Whether later steps leave the rectangle that is seen: they mirror and colour it alone."""


Plan = tuple[Tile, ...]
"""The tiles of one input, each over those before it; where there is none, the input has `view.FILL`."""
HIDDEN_SHARE = 0.5
"""Boxes of which later tiles cover more are dropped: most of what one sees there is another object."""


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
        self, row: int, images: Annotations, image_size: tuple[int, int], rng: np.random.Generator
    ) -> Plan:
        """Images of the split, what is shown of each before it is augmented, and where.

        Args:
            row: the image whose turn it is; the first tile shows it.
            images: the split, whose sizes and boxes may decide.
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


def drop_hidden(mapped: MappedBoxes, covers: Sequence[Area], *, ignore: NDArray[np.bool_]) -> MappedBoxes:
    """Boxes of a tile without those that other tiles hide.

    A box of which more than `HIDDEN_SHARE` is covered is dropped; a region to ignore where all of it is. What
    stays keeps its whole box, as the annotations of covered objects mostly do.

    Args:
        mapped: of `tile_boxes`, G given and G' kept.
        covers: areas of later, opaque tiles.
        ignore: (G,) crowd and difficult boxes.
    """
    if not covers or not len(mapped.boxes):
        return mapped
    share = covered_share(mapped.boxes, covers)
    seen = np.where(ignore[mapped.kept], share < 1, share <= HIDDEN_SHARE)
    kept = mapped.kept.copy()
    kept[kept] = seen
    return MappedBoxes(mapped.boxes[seen], kept)


def covered_share(boxes: NDArray[np.float32], covers: Sequence[Area]) -> NDArray[np.float64]:
    """(G,) the share of each of (G, 4) boxes xyxy that lies under the union of at least one area."""
    areas = np.array(covers)  # (C, 4)
    xs, ys = np.unique(areas[:, 0::2]), np.unique(areas[:, 1::2])  # edges of a grid of cells
    under = np.zeros((len(ys) - 1, len(xs) - 1), dtype=np.bool_)
    for x0, y0, x1, y1 in areas:
        under[np.ix_((ys[:-1] >= y0) & (ys[1:] <= y1), (xs[:-1] >= x0) & (xs[1:] <= x1))] = True
    x0, y0, x1, y1 = boxes.astype(np.float64).T[:, :, None]  # each (G, 1)
    widths = np.maximum(np.minimum(x1, xs[1:]) - np.maximum(x0, xs[:-1]), 0)  # (G, columns)
    heights = np.maximum(np.minimum(y1, ys[1:]) - np.maximum(y0, ys[:-1]), 0)  # (G, rows)
    covered: NDArray[np.float64] = ((heights @ under) * widths).sum(axis=1)
    return covered / ((x1 - x0) * (y1 - y0))[:, 0]


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
