from __future__ import annotations

import numpy as np
import pytest

from detect.data.augment import Layout, Mosaic, RandomHorizontalFlip, RandomZoomOut
from detect.data.augment.plan import Area, Plan, Tile, layout_of, single_image, tile_boxes
from detect.data.augment.view import View
from detect.errors import InputError

NOT_IGNORED = np.array([False])


def test_single_image__is_the_whole_on_the_whole() -> None:
    assert single_image(3, (120, 160), (32, 40)) == (Tile(3, View(0, 0, 160, 120), Area(0, 0, 40, 32)),)


def test_area__size_is_height_and_width() -> None:
    assert Area(10, 20, 50, 30).size == (10, 40)


def test_tile_boxes__by_hand() -> None:
    # 100 x 50 px of the file from (20, 10) fill 50 x 100 px from (30, 40): x is halved, y doubled.
    tile = Tile(0, View(20, 10, 120, 60), Area(30, 40, 80, 140))
    mapped = tile_boxes(np.array([[40.0, 20, 60, 30]]), tile, ignore=NOT_IGNORED)
    assert mapped.boxes.tolist() == [[30 + 10, 40 + 20, 30 + 20, 40 + 40]]
    flipped = tile._replace(view=View(20, 10, 120, 60, flip_horizontal=True, flip_vertical=True))
    mapped = tile_boxes(np.array([[40.0, 20, 60, 30]]), flipped, ignore=NOT_IGNORED)
    assert mapped.boxes.tolist() == [[30 + 30, 40 + 60, 30 + 40, 40 + 80]]
    assert mapped.boxes.dtype == np.float32


@pytest.mark.parametrize(
    ("box", "ignore", "expected"),
    [
        ([-40, 10, 30, 30], False, None),  # its centre is outside the tile
        ([-40, 10, 30, 30], True, [100, 210, 130, 230]),  # a region to ignore is kept and clipped
        ([-20, 10, 30, 30], False, [100, 210, 130, 230]),
        ([80, 10, 119, 30], False, [180, 210, 200, 230]),  # clipped to the tile, not to the input
        ([10, 10, 10.9, 30], False, None),  # less than 1 px wide
    ],
)
def test_tile_boxes__kept_and_dropped_as_by_a_crop(
    box: list[float], ignore: bool, expected: list[float] | None
) -> None:
    tile = Tile(0, View(0, 0, 100, 100), Area(100, 200, 200, 300))
    mapped = tile_boxes(np.array([box]), tile, ignore=np.array([ignore]))
    assert mapped.kept.tolist() == [expected is not None]
    assert mapped.boxes.tolist() == ([] if expected is None else [expected])


def test_layout_of__is_the_first_step_or_none() -> None:
    mosaic, flip = Mosaic(), RandomHorizontalFlip()
    assert layout_of([mosaic, flip]) is mosaic
    assert layout_of([flip, RandomZoomOut()]) is None
    assert layout_of([]) is None


@pytest.mark.parametrize("steps", [[RandomHorizontalFlip(), Mosaic()], [Mosaic(), Mosaic()]])
def test_layout_of__not_the_first__refused(steps: list[RandomHorizontalFlip | Mosaic]) -> None:
    with pytest.raises(InputError, match="Mosaic shows several images at once; name it first and once"):
        layout_of(steps)


def test_layout__as_a_step__leaves_the_view_and_the_random_numbers() -> None:
    class Twice(Layout):
        max_images = 2

        def tiles(self, row: int, sizes: object, image_size: object, rng: object) -> Plan:
            raise NotImplementedError

    view, rng = View(1, 2, 3, 4), np.random.default_rng(0)
    assert Twice()(view, np.zeros((0, 4)), rng) == view
    assert rng.random() == np.random.default_rng(0).random()
