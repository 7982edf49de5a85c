"""How the built-in data set is coloured: tones that stand out, textures in them, the grain of a camera.

Everything is drawn from the generator that is handed in; nothing here knows what is painted where.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Colour = NDArray[np.float64]
"""(3,) RGB in 0..1."""
Grid = NDArray[np.float32]
"""(H, W) one number a pixel."""
Rng = np.random.Generator


def muted_colour(rng: Rng) -> Colour:
    """A colour for background and clutter: any hue, little saturation."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.25), rng.uniform(0.2, 0.95)))


def vivid_colour(rng: Rng, below: Colour) -> Colour:
    """A saturated colour for objects, that of a few which stands out most from the colour `below`."""
    colours = [
        np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.65, 1), rng.uniform(0.6, 1)))
        for _ in range(4)
    ]
    return max(colours, key=lambda colour: min(0.8, float(np.abs(colour - below).sum())))


def textured(rng: Rng, size: tuple[int, int], colour: Colour, *, contrast: float) -> Image.Image:
    """An RGB image of `size` (W, H): a texture between two tones around `colour`, under a gradient."""
    width, height = size
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    angle = rng.uniform(0, math.pi)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    texture = TEXTURES[rng.integers(len(TEXTURES))](x * cos + y * sin, y * cos - x * sin, rng)
    tone = rng.uniform(0.3, 1.0) * contrast * rng.choice([-1, 1]) * rng.uniform(0.5, 1.0, 3)
    slope_x, slope_y = rng.uniform(-0.25, 0.25, 2).astype(np.float32)
    light = 255 * (1 + slope_x * (x / width - 0.5) + slope_y * (y / height - 0.5))
    bands = [
        _to_uint8((texture * np.float32(t) + np.float32(c)) * light)
        for c, t in zip(colour, tone, strict=True)
    ]
    return Image.merge("RGB", [Image.fromarray(band) for band in bands])


def _to_uint8(values: Grid) -> NDArray[np.uint8]:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _plain(u: Grid, v: Grid, rng: Rng) -> Grid:
    return np.zeros_like(u)


def _stripes(u: Grid, v: Grid, rng: Rng) -> Grid:
    return np.clip(2 * np.sin(u * _frequency(rng, 7, 24)), -1, 1)


def _checks(u: Grid, v: Grid, rng: Rng) -> Grid:
    frequency = _frequency(rng, 12, 32)
    return np.clip(4 * np.sin(u * frequency) * np.sin(v * frequency), -1, 1)


def _dots(u: Grid, v: Grid, rng: Rng) -> Grid:
    frequency = _frequency(rng, 9, 20)
    return np.clip(4 * (np.cos(u * frequency) + np.cos(v * frequency)) - 3.6, -1, 1)


def _mottle(u: Grid, v: Grid, rng: Rng) -> Grid:
    height, width = u.shape
    cell = rng.uniform(4, 24)
    coarse = rng.uniform(-1, 1, (math.ceil(height / cell) + 1, math.ceil(width / cell) + 1))
    smooth = Image.fromarray(coarse.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth)


def _frequency(rng: Rng, shortest_px: float, longest_px: float) -> np.float32:
    return np.float32(2 * math.pi / rng.uniform(shortest_px, longest_px))


TEXTURES: tuple[Callable[[Grid, Grid, Rng], Grid], ...] = (_plain, _stripes, _checks, _dots, _mottle)
"""Each takes the px coordinates of a turned grid and gives values from -1 to 1."""


def grainy(rng: Rng, image: Image.Image) -> Image.Image:
    """The noise of a camera, the same in the three colours."""
    grain = rng.standard_normal((image.height, image.width), dtype=np.float32) * rng.uniform(1, 6)
    return Image.merge("RGB", [Image.fromarray(_to_uint8(np.asarray(b) + grain)) for b in image.split()])
