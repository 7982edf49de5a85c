"""The crops of classification."""

from __future__ import annotations

import numpy as np
import pytest

from detect.data.augment.crops import CentreCrop, RandomResizedCrop
from detect.data.augment.view import View
from detect.errors import InputError

NO_BOXES = np.zeros((0, 4))
VIEW = View(0.0, 0.0, 400.0, 300.0)


def test_crops_lie_in_the_image_and_keep_to_their_ranges() -> None:
    rng = np.random.default_rng(0)
    crop = RandomResizedCrop(0.1, 0.5)
    views = [crop(VIEW, NO_BOXES, rng) for _ in range(300)]
    areas = np.array([view.width * view.height for view in views]) / (400 * 300)
    ratios = np.array([view.width / view.height for view in views])
    assert all(v.x0 >= 0 and v.y0 >= 0 and v.x1 <= 400 and v.y1 <= 300 for v in views)
    assert areas.min() >= 0.1
    assert areas.max() <= 0.5
    assert areas.std() > 0.05
    assert ratios.min() >= 3 / 4
    assert ratios.max() <= 4 / 3
    assert len({view.x0 for view in views}) > 250


def test_a_panorama_gives_its_middle() -> None:
    view = RandomResizedCrop(0.9, 1.0)(View(0.0, 0.0, 1000.0, 100.0), NO_BOXES, np.random.default_rng(0))
    assert (view.y0, view.y1) == (pytest.approx(0), pytest.approx(100))
    assert view.width == pytest.approx(100 * 4 / 3)
    assert view.x0 + view.x1 == pytest.approx(1000)


def test_the_centre_crop_has_the_inputs_shape() -> None:
    view = CentreCrop(0.5, aspect_ratio=2.0)(VIEW, NO_BOXES, np.random.default_rng(0))
    # the largest 2:1 rectangle is 400 x 200
    assert (view.x0, view.y0, view.x1, view.y1) == (100, 100, 300, 200)


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="min_area <= max_area"):
        RandomResizedCrop(0.5, 0.1)
    with pytest.raises(InputError, match="min_aspect_ratio"):
        RandomResizedCrop(min_aspect_ratio=2.0)
    with pytest.raises(InputError, match="above 0 and at most 1"):
        CentreCrop(1.5)
