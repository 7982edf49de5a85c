import numpy as np
import pytest

from detect.data.augment.view import input_batch
from detect.data.images.resize import input_array

SIZES = [(150, 200), (480, 640), (96, 128), (1, 1), (300, 50), (1080, 33), (96, 400), (7, 128)]
"""Smaller than the input and larger, as large along one axis or both."""


def noise(size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(size[0])
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_input_array__antialiased_as_torch_to_the_bit(size: tuple[int, int]) -> None:
    pixels = noise(size)
    ours = input_array([pixels, 255 - pixels], (96, 128), "antialias")
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, input_batch([pixels, 255 - pixels], (96, 128), "antialias").numpy())


@pytest.mark.parametrize("size", SIZES)
def test_input_array__by_the_rule_of_torchvision_within_rounding(size: tuple[int, int]) -> None:
    ours = input_array([noise(size)], (96, 128), "torchvision")
    assert ours.dtype == np.float32
    wanted = input_batch([noise(size)], (96, 128), "torchvision").numpy()
    np.testing.assert_allclose(ours, wanted, atol=2e-3)


def test_input_array__white_stays_white() -> None:
    white = np.full((333, 777, 3), 255, np.uint8)
    assert (input_array([white], (32, 32), "antialias") == 255).all()
