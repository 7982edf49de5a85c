from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detect.data.augment import CopyPaste
from detect.data.augment.plan import Area, Plan, single_image
from detect.errors import InputError

IMAGE_SIZE = (96, 128)
IMAGES = SimpleNamespace(
    sizes=np.array([[120, 160], [50, 200], [300, 100]], dtype=np.int32),
    offsets=np.array([0, 2, 2, 4]),
    boxes=np.array([[10.0, 20, 50, 60], [-5, 0, 30, 20], [20, 100, 80, 280], [0, 0, 100, 300]]),
    ignore=np.array([False, False, False, True]),
)


def draw(step: CopyPaste, seed: int, row: int = 1, images: Any = IMAGES) -> Plan:
    return step.tiles(row, images, IMAGE_SIZE, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(30))
def test_tiles__the_image_below_and_objects_of_others_on_top(seed: int) -> None:
    below, *pasted = draw(CopyPaste(1.0), seed)
    assert (below,) == single_image(1, (50, 200), IMAGE_SIZE)
    assert len(pasted) <= 3
    for tile in pasted:
        assert tile.fixed
        assert tile.opacity == 1
        assert tile.row in (0, 2)  # the other has no box
        assert 0 <= tile.area.x0 < tile.area.x1 <= 128
        assert 0 <= tile.area.y0 < tile.area.y1 <= 96
        height, width = IMAGES.sizes[tile.row].tolist()
        view, holds = tile.view, []
        assert 0 <= view.x0 < view.x1 <= width
        assert 0 <= view.y0 < view.y1 <= height
        for index in range(*IMAGES.offsets[tile.row : tile.row + 2]):
            x0, y0, x1, y1 = np.clip(IMAGES.boxes[index], 0, (width, height, width, height))
            around = np.array([x0 - view.x0, y0 - view.y0, view.x1 - x1, view.y1 - y1])
            most = 0.2 * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0]) + 1e-9
            holds.append(not IMAGES.ignore[index] and ((around >= 0) & (around <= most)).all())
        assert any(holds)


def test_tiles__size__that_of_the_object_alone_times_the_factor() -> None:
    step = CopyPaste(1.0, 1, scale=(0.5, 0.5), margin=0)
    areas = {tile.area.size for seed in range(60) for tile in draw(step, seed)[1:]}
    # In px of the input, width x height: 40 x 40 of 160 x 120 px is 32 x 32; -5..30 x 20 cut to the image
    # is 24 x 16; 60 x 180 of 100 x 300 is 76.8 x 57.6. Halved, rounded, as (H, W):
    assert areas == {(16, 16), (8, 12), (29, 38)}
    largest = CopyPaste(1.0, 1, scale=(50, 50), margin=0)
    found = {tile.area.size for seed in range(60) for tile in draw(largest, seed)[1:]}
    assert found == {(96, 96), (85, 128), (96, 128)}  # in proportion, as large as the input holds
    gone = CopyPaste(1.0, 1, scale=(0.005, 0.005))
    assert all(len(draw(gone, seed)) == 1 for seed in range(20))


def test_tiles__are_a_function_of_the_random_numbers_alone__all_objects_and_places_come() -> None:
    plans = [draw(CopyPaste(1.0), seed) for seed in range(80)]
    assert [draw(CopyPaste(1.0), seed) for seed in reversed(range(80))][::-1] == plans
    pasted = [tile for plan in plans for tile in plan[1:]]
    assert {tile.row for tile in pasted} == {0, 2}
    assert {len(plan) for plan in plans} == {1, 2, 3, 4}
    assert {min(tile.area.x0 * 4 // 128, 3) for tile in pasted} == {0, 1, 2, 3}


def test_tiles__probability_and_a_split_without_boxes__the_image_alone() -> None:
    alone = single_image(1, (50, 200), IMAGE_SIZE)
    assert all(draw(CopyPaste(0.0), seed) == alone for seed in range(20))
    some = sum(draw(CopyPaste(0.5, 8), seed) != alone for seed in range(400))
    assert some == pytest.approx(200 * (1 - 1 / 8 * sum(0.25**n for n in range(1, 9))), abs=40)
    nothing = SimpleNamespace(sizes=IMAGES.sizes, boxes=np.zeros((0, 4)))
    assert draw(CopyPaste(1.0), 0, images=nothing) == alone


def test_tiles__a_box_outside_of_its_image__not_pasted() -> None:
    outside = SimpleNamespace(**vars(IMAGES) | {"boxes": IMAGES.boxes + 1000})
    assert all(draw(CopyPaste(1.0), seed, images=outside)[1:] == () for seed in range(20))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 2}, "probability of CopyPaste is 2"),
        ({"objects": 0}, "objects of a CopyPaste are 1 or more, got 0"),
        ({"scale": (0, 1)}, "scale of a CopyPaste .* got 0, 1"),
        ({"scale": (2, 1)}, "scale of a CopyPaste .* got 2, 1"),
        ({"margin": -0.1}, r"margin of a CopyPaste is 0 or more, got -0\.1"),
    ],
)
def test_copy_paste__what_cannot_be__refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CopyPaste(**settings)


def test_area__meets() -> None:
    area = Area(10, 10, 20, 20)
    assert area.meets(Area(19, 19, 30, 30))
    assert area.meets(Area(0, 0, 100, 100))
    assert not area.meets(Area(20, 10, 30, 20))
    assert not area.meets(Area(10, 0, 20, 10))
