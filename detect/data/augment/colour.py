"""Changes of colour as 3 x 4 matrices, which compose before a pixel is touched.

A matrix is twelve numbers row by row: RGB out = three factors of RGB in, and a constant in 0..255.
"""

from __future__ import annotations

import math

import numpy as np

IDENTITY_COLOUR = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
"""NTSC 1953; row 0 is luma, rows 1 and 2 span the plane in which hue is an angle."""
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)
MID_GREY = 127.5


def colour_matrix(brightness: float, contrast: float, saturation: float, hue: float) -> tuple[float, ...]:
    """3 x 4, row by row: brightness, then contrast, saturation and hue.

    Factors of 1 and a hue of 0 turns change nothing.
    """
    angle = -2 * math.pi * hue  # from red over yellow to green, as in HSV
    turn = np.array(
        [[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]]
    )
    luma = np.tile(RGB_TO_YIQ[0], (3, 1))
    saturate = saturation * np.eye(3) + (1 - saturation) * luma
    linear = YIQ_TO_RGB @ turn @ RGB_TO_YIQ @ saturate * (contrast * brightness)
    # Saturation and hue leave grey as it is, so the constant of the contrast passes through them.
    constant = np.full((3, 1), (1 - contrast) * MID_GREY)
    return tuple(np.concatenate([linear, constant], axis=1).ravel().tolist())


def compose_colours(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, ...]:
    """The 3 x 4 matrix that does `first`, then `second`."""
    bottom = [[0.0, 0.0, 0.0, 1.0]]
    product = np.array(second).reshape(3, 4) @ np.concatenate([np.array(first).reshape(3, 4), bottom])
    return tuple(product.ravel().tolist())
