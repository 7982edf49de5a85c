"""Mosaic: four images share the input."""

from __future__ import annotations

import numpy as np

from detect.data.annotations import Annotations
from detect.data.augment.plan import Area, Layout, Plan, Tile, single_image
from detect.data.augment.transforms import require_inner_range, require_share
from detect.data.augment.view import View


class Mosaic(Layout):
    """Four images in 2 x 2 tiles that meet at a random point; name it first, later steps change each image.

    Each image keeps the proportions that it has alone: it is scaled to cover its tile, and what does not fit
    is cut off. Boxes are kept and dropped as by a crop. Objects become smaller, as by zooming out.

    Args:
        probability: how often; other inputs show their image alone.
        centre: range of the point where the tiles meet, as a share of the input's width and height.

    Source: YOLOv4 (arXiv 2004.10934) section 3.3; there, later steps change the four images as one.
    """

    max_images = 4

    def __init__(self, probability: float = 0.5, centre: tuple[float, float] = (0.25, 0.75)) -> None:
        require_share(self, probability)
        require_inner_range(self, centre=centre)
        self.probability, self.centre = probability, centre

    def tiles(
        self, row: int, images: Annotations, image_size: tuple[int, int], rng: np.random.Generator
    ) -> Plan:
        sizes, (height, width) = images.sizes, image_size
        if rng.random() >= self.probability:
            return single_image(row, tuple(sizes[row].tolist()), image_size)
        share_x, share_y = rng.uniform(*self.centre, size=2).tolist()
        x = min(max(1, round(share_x * width)), width - 1)
        y = min(max(1, round(share_y * height)), height - 1)
        areas = (Area(0, 0, x, y), Area(x, 0, width, y), Area(0, y, x, height), Area(x, y, width, height))
        rows = [row, *rng.integers(len(sizes), size=self.max_images - 1).tolist()]
        places = rng.random((self.max_images, 2)).tolist()
        return tuple(
            Tile(shown, _part(sizes[shown].tolist(), area, image_size, place), area)
            for shown, area, place in zip(rows, areas, places, strict=True)
        )


def _part(
    orig_size: tuple[int, int], area: Area, image_size: tuple[int, int], place: tuple[float, float]
) -> View:
    """The part of an image that fits an area where the whole image would be as wide or as high.

    Args:
        orig_size: (H, W) of the upright file.
        area: of the tile.
        image_size: (H, W) of the input.
        place: where the part begins along x and y, as a share of what is cut off.
    """
    (height, width), (tile_height, tile_width) = orig_size, area.size
    share_x, share_y = tile_width / image_size[1], tile_height / image_size[0]
    scale = max(share_x, share_y)
    part_width, part_height = width * share_x / scale, height * share_y / scale
    x0, y0 = place[0] * (width - part_width), place[1] * (height - part_height)
    return View(x0, y0, x0 + part_width, y0 + part_height)
