from __future__ import annotations

import numpy as np
import pytest

from detect.data.augment import Layout, Mosaic, RandomHorizontalFlip, RandomZoomOut
from detect.data.augment.plan import (
    Area,
    Plan,
    Tile,
    covered_share,
    drop_hidden,
    layout_of,
    single_image,
    tile_boxes,
)
from detect.data.augment.view import MappedBoxes, View
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

        def tiles(self, row: int, images: object, image_size: object, rng: object) -> Plan:
            raise NotImplementedError

    view, rng = View(1, 2, 3, 4), np.random.default_rng(0)
    assert Twice()(view, np.zeros((0, 4)), rng) == view
    assert rng.random() == np.random.default_rng(0).random()


# Tiles over tiles


def test_covered_share__by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 40], [5.5, 0, 6.5, 4], [50, 50, 60, 60]], dtype=np.float32)
    covers = [Area(5, 0, 20, 5), Area(8, 3, 12, 8), Area(15, 30, 40, 40)]
    # 5 x 5 and, below it, 2 x 3 of 100; 10 x 10 of 200; all; none
    assert covered_share(boxes, covers).tolist() == [0.31, 0.5, 1.0, 0.0]


def test_covered_share__equals_counted_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        low = rng.integers(0, 40, (12, 2))
        covers = [Area(*map(int, (*at, *(at + rng.integers(1, 20, 2))))) for at in low[:5]]
        boxes = np.concatenate([low[5:], low[5:] + rng.integers(1, 20, (7, 2))], axis=1)
        under = np.zeros((64, 64))
        for x0, y0, x1, y1 in covers:
            under[y0:y1, x0:x1] = 1
        expected = [under[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in boxes]
        np.testing.assert_allclose(covered_share(boxes.astype(np.float32), covers), expected)


def test_drop_hidden__more_than_half_of_an_object__all_of_a_region() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [4, 4, 8, 8], [90, 90, 95, 95]], dtype=np.float32)
    boxes = np.concatenate([boxes, boxes])
    ignore = np.repeat([False, True, False], [4, 4, 1])  # the last was not kept
    mapped = MappedBoxes(boxes, np.array([*[True] * 8, False]))
    seen = drop_hidden(mapped, [Area(0, 0, 10, 6)], ignore=ignore)
    # 60 of 100; 60 of 110; 8 of 16, just half; 0
    assert seen.kept.tolist() == [False, False, True, True, *[True] * 4, False]
    np.testing.assert_array_equal(seen.boxes, boxes[seen.kept[:8]])
    seen = drop_hidden(mapped, [Area(0, 0, 10, 10)], ignore=ignore)
    assert seen.kept.tolist() == [False, False, False, True, False, True, False, True, False]
    assert drop_hidden(mapped, [], ignore=ignore) is mapped
