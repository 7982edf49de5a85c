from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from detect.data.augment import Mosaic
from detect.data.augment.plan import Area, Plan, single_image
from detect.errors import InputError

SIZES: NDArray[np.int32] = np.array([[120, 160], [50, 200], [300, 100], [80, 80], [64, 48]], dtype=np.int32)
IMAGES = SimpleNamespace(sizes=SIZES)
IMAGE_SIZE = (96, 128)


def draw(mosaic: Mosaic, seed: int, row: int = 2, image_size: tuple[int, int] = IMAGE_SIZE) -> Plan:
    return mosaic.tiles(row, IMAGES, image_size, np.random.default_rng(seed))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_tiles__cover_the_input_once_and_meet_at_the_drawn_point(seed: int) -> None:
    plan = draw(Mosaic(1.0), seed)
    covered = np.zeros(IMAGE_SIZE, dtype=int)
    for tile in plan:
        covered[tile.area.y0 : tile.area.y1, tile.area.x0 : tile.area.x1] += 1
    assert (covered == 1).all()
    x, y = plan[0].area.x1, plan[0].area.y1
    assert [tile.area for tile in plan] == [
        Area(0, 0, x, y),
        Area(x, 0, 128, y),
        Area(0, y, x, 96),
        Area(x, y, 128, 96),
    ]
    assert 32 <= x <= 96
    assert 24 <= y <= 72


def test_tiles__the_images_own_turn_comes_first_and_all_others_come() -> None:
    plans = [draw(Mosaic(1.0), seed) for seed in range(100)]
    assert {plan[0].row for plan in plans} == {2}
    for place in (1, 2, 3):
        assert {plan[place].row for plan in plans} == set(range(5))


@pytest.mark.parametrize("seed", range(20))
def test_tiles__show_a_part_of_the_image_in_its_own_proportions(seed: int) -> None:
    for tile in draw(Mosaic(1.0), seed):
        height, width = SIZES[tile.row].tolist()
        view, (tile_height, tile_width) = tile.view, tile.area.size
        assert -1e-9 <= view.x0 < view.x1 <= width + 1e-9
        assert -1e-9 <= view.y0 < view.y1 <= height + 1e-9
        # Px of the input per px of the file, in units of those where the image is alone.
        scale_x = tile_width / view.width * width / IMAGE_SIZE[1]
        scale_y = tile_height / view.height * height / IMAGE_SIZE[0]
        assert scale_x == pytest.approx(scale_y)
        # No more is cut off than has to be.
        assert max(view.width / width, view.height / height) == pytest.approx(1)


def test_tiles__are_a_function_of_the_random_numbers_alone() -> None:
    mosaic = Mosaic(1.0)
    plans = [draw(mosaic, seed) for seed in range(30)]
    assert [draw(Mosaic(1.0), seed) for seed in reversed(range(30))][::-1] == plans
    assert len(set(plans)) == 30


def test_tiles__probability__otherwise_the_image_alone() -> None:
    alone = single_image(2, (300, 100), IMAGE_SIZE)
    plans = [draw(Mosaic(0.3), seed) for seed in range(400)]
    assert sum(plan != alone for plan in plans) == pytest.approx(120, abs=37)  # 4 standard deviations
    assert all(draw(Mosaic(0.0), seed) == alone for seed in range(50))


def test_tiles__smallest_input__no_tile_is_empty() -> None:
    for seed in range(50):
        for tile in draw(Mosaic(1.0, centre=(0.01, 0.99)), seed, image_size=(2, 3)):
            assert min(tile.area.size) >= 1


@pytest.mark.parametrize("centre", [(0.0, 0.5), (0.6, 0.4), (0.5, 1.0)])
def test_mosaic__centre_that_is_no_range__refused(centre: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=f"centre of a Mosaic .*; got {centre[0]}, {centre[1]}"):
        Mosaic(centre=centre)


def test_mosaic__probability_that_is_none__refused() -> None:
    with pytest.raises(InputError, match=r"probability of Mosaic is 1\.5"):
        Mosaic(1.5)
