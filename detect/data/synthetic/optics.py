"""What a camera does to a scene of `data shapes --style rich`: light, lens, sensor."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from detect.data.synthetic.surfaces import Pixels
from detect.data.synthetic.textures import Rng

JPEG_QUALITIES = (40, 96)
BLUR_PX = 1.6
"""Largest radius of defocus."""
LONGEST_SMEAR_PX = 8
NOISE = 0.05
"""Largest standard deviation, of the brightest pixel."""


def photograph(rng: Rng, scene: Pixels) -> Image.Image:
    """The image that a camera takes of a scene; geometry stays."""
    image = _lens(rng, _lit(rng, scene))
    if rng.random() < 0.85:
        return _to_image(_sensor(rng, np.asarray(image).astype(np.float32) / np.float32(255)))
    return image


def _lit(rng: Rng, scene: Pixels) -> Pixels:
    """A gradient of light, darker corners, a cast of colour, exposure and contrast; some images are grey."""
    height, width = scene.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope_x, slope_y = rng.normal(0, 0.15, 2).clip(-0.4, 0.4)
    vignette = rng.uniform(0, 0.25) if rng.random() < 0.4 else 0.0
    light = (1 + slope_x * x + slope_y * y - vignette * (x * x + y * y)).astype(np.float32)
    cast = np.exp(rng.normal(0, 0.09, 3) + rng.normal(0, 0.15))
    lit = scene * light[..., None] * cast.astype(np.float32)
    lit = 0.5 + (lit - 0.5) * np.float32(rng.uniform(0.55, 1.15)) + np.float32(rng.normal(0, 0.04))
    if rng.random() < 0.08:
        lit = np.broadcast_to(lit.mean(axis=2, keepdims=True), lit.shape)
    return lit


def _lens(rng: Rng, lit: Pixels) -> Image.Image:
    """Defocus, motion or too few pixels, or none of them."""
    image, kind = _to_image(lit), rng.random()
    if kind < 0.35:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, BLUR_PX)))
    if kind < 0.47:
        return _smeared(rng, image)
    if kind < 0.6:
        share = rng.uniform(0.45, 0.8)
        small = round(image.width * share), round(image.height * share)
        return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR)
    return image


def _smeared(rng: Rng, image: Image.Image) -> Image.Image:
    """The mean of copies along a line, its middle in place."""
    length, angle = rng.uniform(2, LONGEST_SMEAR_PX), rng.uniform(0, math.pi)
    steps = np.arange(math.ceil(length)) - (math.ceil(length) - 1) / 2
    margin = LONGEST_SMEAR_PX // 2 + 1
    padded = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    total = np.zeros((image.height, image.width, 3), np.float32)
    for step in steps:
        top, left = margin + round(step * math.sin(angle)), margin + round(step * math.cos(angle))
        total += padded[top : top + image.height, left : left + image.width]
    return Image.fromarray(np.rint(total / len(steps)).astype(np.uint8))


def _sensor(rng: Rng, image: Pixels) -> Pixels:
    """Noise that grows with the root of the light, part of it alike in the three colours."""
    strength = NOISE * rng.random() ** 2
    height, width = image.shape[:2]
    grain = rng.standard_normal((height, width, 1), dtype=np.float32)
    if rng.random() < 0.5:
        grain = 0.8 * grain + 0.6 * rng.standard_normal((height, width, 3), dtype=np.float32)
    return image + np.float32(strength) * np.sqrt(0.1 + image) * grain


def _to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.rint(pixels.clip(0, 1) * 255).astype(np.uint8))
