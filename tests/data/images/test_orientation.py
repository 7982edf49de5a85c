from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from detect.data.images.orientation import boxes_drawn_as_stored, read_votes, turn_boxes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_boxes__moves_as_pillow_moves_pixels(orientation: int) -> None:
    x0, y0, x1, y1 = 3, 5, 11, 9
    stored = np.zeros((20, 30, 3), dtype=np.uint8)
    stored[y0:y1, x0:x1] = 255
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    rows, columns = np.nonzero(np.asarray(ImageOps.exif_transpose(image))[:, :, 0])
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    turned = turn_boxes(
        np.array([[x0, y0, x1, y1]], dtype=float), np.array([orientation], np.int8), np.array([[20, 30]])
    )
    assert turned.tolist() == [expected]


def test_votes__annotated_sizes_decide_and_the_rest_follows_the_most() -> None:
    stored = np.array([[20, 30]] * 4 + [[30, 30]])
    orientations = np.array([6, 6, 6, 3, 6], np.int8)
    annotated = np.array([[20, 30], [20, 30], [30, 20], [20, 30], [30, 30]])
    votes = read_votes(annotated, stored, orientations)
    assert votes.stored.tolist() == [True, True, False, False, False]
    assert votes.upright.tolist() == [False, False, True, False, False]
    # The half turn (3) and the square one say nothing and follow two against one.
    assert boxes_drawn_as_stored(votes, orientations).tolist() == [True, True, False, True, True]


def test_votes__none__boxes_stay_as_annotated() -> None:
    stored, orientations = np.array([[20, 30], [20, 30]]), np.array([6, 3], np.int8)
    votes = read_votes(np.zeros((2, 2)), stored, orientations)
    assert boxes_drawn_as_stored(votes, orientations).tolist() == [False, False]
