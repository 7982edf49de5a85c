from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as F

from detect.data.augment.colour import IDENTITY_COLOUR, colour_matrix, compose_colours


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def apply(matrix: tuple[float, ...], pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    table = np.array(matrix).reshape(3, 4)
    return np.clip(pixels @ table[:, :3].T + table[:, 3], 0, 255)


def test_colour_matrix__neutral_values_change_nothing() -> None:
    np.testing.assert_allclose(colour_matrix(1, 1, 1, 0), IDENTITY_COLOUR, atol=1e-12)
    np.testing.assert_allclose(colour_matrix(1, 1, 1, 1), IDENTITY_COLOUR, atol=1e-12)  # a whole turn


@pytest.mark.parametrize("factor", [0.5, 1.3])
def test_colour_matrix__brightness_and_saturation_equal_torchvision(factor: float) -> None:
    pixels = noise(20, 20)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    for matrix, expected in (
        (colour_matrix(factor, 1, 1, 0), F.adjust_brightness(planes, factor)),
        (colour_matrix(1, 1, factor, 0), F.adjust_saturation(planes, factor)),
    ):
        np.testing.assert_allclose(apply(matrix, pixels), expected.permute(1, 2, 0).numpy(), atol=1.5)


def test_colour_matrix__contrast_pulls_towards_mid_grey() -> None:
    pixels = np.array([[[0, 100, 255]]], dtype=np.uint8)
    # 127.5 + (value - 127.5) / 2
    np.testing.assert_allclose(apply(colour_matrix(1, 0.5, 1, 0), pixels), [[[63.75, 113.75, 191.25]]])


def test_colour_matrix__hue_keeps_luma_and_grey() -> None:
    matrix = np.array(colour_matrix(1, 1, 1, 0.1)).reshape(3, 4)[:, :3]
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(luma @ matrix, luma, atol=1e-9)
    np.testing.assert_allclose(matrix @ np.ones(3), np.ones(3), atol=1e-9)
    red = matrix @ np.array([1.0, 0, 0])
    assert red[1] > red[2]  # a small positive turn takes red towards yellow


def test_compose_colours__does_one_after_the_other() -> None:
    pixels = noise(8, 8).clip(80, 160)
    first, second = colour_matrix(1.1, 0.9, 1, 0), colour_matrix(1, 1, 0.5, 0.04)
    table = np.array(second).reshape(3, 4)
    step_by_step = apply(first, pixels) @ table[:, :3].T + table[:, 3]
    np.testing.assert_allclose(apply(compose_colours(first, second), pixels), step_by_step, atol=1e-9)
