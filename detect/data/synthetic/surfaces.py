"""What `data shapes --style rich` covers things with: windows of an atlas of patterns that is made once."""

from __future__ import annotations

import colorsys
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detect.data.synthetic.textures import Colour, Grid, Rng

SIDE = 640
"""Of a pattern, px; the longest window that is cut out of it."""
SEED = 2026
"""The atlas is the same for every data set; which window is taken where is drawn for each image."""
Pixels = NDArray[np.float32]
"""(H, W, 3) RGB in 0..1."""


def surface(rng: Rng, size: tuple[int, int], colour: Colour, contrast: float) -> Pixels:
    """A pattern between two tones around `colour`.

    Args:
        rng: chooses pattern, place and tones.
        size: (H, W), at most `SIDE` each.
        colour: the mean tone.
        contrast: of the two tones; 0 for none.
    """
    other = np.clip(colour + contrast * rng.uniform(-1, 1) + contrast * rng.uniform(-0.6, 0.6, 3), 0, 1)
    if contrast == 0 or rng.random() < 0.2:
        return np.broadcast_to(colour.astype(np.float32), (*size, 3))
    blend = _window(rng, size)[..., None]
    return colour.astype(np.float32) + blend * (other - colour).astype(np.float32)


def any_colour(rng: Rng, *, vivid: bool) -> Colour:
    """Any hue; vivid ones with much saturation."""
    saturation = rng.uniform(0.35, 1) if vivid else rng.uniform(0, 0.45)
    value = rng.uniform(0.35, 1) if vivid else rng.uniform(0.08, 0.95)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value))


def apart(rng: Rng, ground: Colour, *, vivid: bool, distance: float) -> Colour:
    """A colour that differs from `ground`: the first of a few that is `distance` away, else the farthest."""
    colours = [any_colour(rng, vivid=vivid) for _ in range(4)]
    away = [float(np.abs(colour - ground).sum()) for colour in colours]
    return next(
        (c for c, a in zip(colours, away, strict=True) if a >= distance), colours[int(np.argmax(away))]
    )


def _window(rng: Rng, size: tuple[int, int]) -> Grid:
    """(H, W) of some pattern, from 0 to 1, mirrored, turned and enlarged at random."""
    pattern = atlas()[rng.integers(len(atlas()))]
    if rng.random() < 0.5:
        pattern = pattern.T
    zoom = int(rng.integers(1, 3)) if max(size) <= SIDE // 2 else 1
    height, width = (side * zoom for side in size)
    top, left = rng.integers(SIDE - height + 1), rng.integers(SIDE - width + 1)
    window = pattern[top : top + height : zoom, left : left + width : zoom]
    return window[:: 1 if rng.random() < 0.5 else -1, :: 1 if rng.random() < 0.5 else -1]


@cache
def atlas() -> NDArray[np.float32]:
    """(N, SIDE, SIDE) patterns from 0 to 1."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    warp, fine = _clouds(rng, 120), _clouds(rng, 24)
    patterns = [
        *(_clouds(rng, 160), _clouds(rng, 60), fine, _clouds(rng, 8)),
        *(_steps(_clouds(rng, 90), 0.55), _steps(_clouds(rng, 30), 0.6), _steps(_clouds(rng, 12), 0.62)),
        *(np.abs(2 * warp - 1), np.abs(2 * fine - 1)),  # veins
        *(_fibres(rng, 60, 3), _fibres(rng, 140, 6), _fibres(rng, 30, 1)),
        *(_wave(x + 70 * warp, 17), _wave(x + 30 * warp, 9), _wave(x + y + 50 * warp, 31)),
        *(_wave(np.hypot(x - 200, y * 0.4) + 60 * warp, 13), _wave(np.hypot(x - 700, y - 300), 23)),
        *(_steps(_wave(x, 22), 0.5), _steps(_wave(2 * x + y, 40), 0.5), _steps(_wave(x - y, 14), 0.6)),
        *(_steps(_wave(x, 32) * _wave(y, 32), 0.3), _steps(_wave(x, 13) * _wave(y, 13), 0.25)),
        *(_checks(x, y, 16), _checks(x, y, 37), _checks(x + 9 * warp, y + 9 * fine, 9)),
        *(_weave(x, y, 6), _weave(x, y, 11), _bricks(x, y, 44, 18), _bricks(x, y, 30, 30)),
        *(_cells(rng, x, y, 24, spots=False), _cells(rng, x, y, 50, spots=False)),
        *(_cells(rng, x, y, 16, spots=True), _cells(rng, x, y, 36, spots=True)),
    ]
    return np.stack([pattern.clip(0, 1).astype(np.float32) for pattern in patterns])


def _smooth(rng: Rng, cell_x: float, cell_y: float) -> Grid:
    """Noise of one scale, from 0 to 1."""
    shape = math.ceil(SIDE / cell_y) + 3, math.ceil(SIDE / cell_x) + 3
    coarse = Image.fromarray(rng.random(shape, dtype=np.float32))
    size = round(shape[1] * cell_x), round(shape[0] * cell_y)
    return np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))[:SIDE, :SIDE]


def _clouds(rng: Rng, cell: float) -> Grid:
    """Noise of four scales, the coarsest of `cell` px, from 0 to 1 about evenly."""
    total = sum(_smooth(rng, max(1.0, cell / 2**k), max(1.0, cell / 2**k)) / 1.8**k for k in range(4))
    low, high = np.quantile(total, (0.03, 0.97))
    return np.clip((total - low) / (high - low), 0, 1)


def _fibres(rng: Rng, length: float, width: float) -> Grid:
    """Grass, fur or grain of wood."""
    return np.clip(2 * _smooth(rng, width, length) - 0.5, 0, 1)


def _steps(pattern: Grid, threshold: float) -> Grid:
    """Two tones with a narrow border."""
    return np.clip((pattern - threshold) * 12 + 0.5, 0, 1)


def _wave(position: Grid, length_px: float) -> Grid:
    return 0.5 + 0.5 * np.sin(position * np.float32(2 * math.pi / length_px))


def _checks(x: Grid, y: Grid, side_px: float) -> Grid:
    return (np.floor(x / side_px) + np.floor(y / side_px)) % 2


def _weave(x: Grid, y: Grid, side_px: float) -> Grid:
    over = _checks(x, y, side_px)
    return over * np.abs(np.sin(x * math.pi / side_px)) + (1 - over) * np.abs(np.sin(y * math.pi / side_px))


def _bricks(x: Grid, y: Grid, width_px: float, height_px: float) -> Grid:
    row = np.floor(y / height_px)
    along = (x + 0.5 * width_px * (row % 2)) % width_px
    gap = np.minimum(along, y % height_px) < 2
    tone = np.sin(row * 12.9 + np.floor((x + 0.5 * width_px * (row % 2)) / width_px) * 78.2) * 0.2 + 0.75
    return np.where(gap, 0, tone)


def _cells(rng: Rng, x: Grid, y: Grid, side_px: float, *, spots: bool) -> Grid:
    """Borders between random points (scales, dry mud), or a disc around each."""
    count = math.ceil(SIDE / side_px) + 2
    place = rng.random((2, count, count), dtype=np.float32)
    column, row = (x // side_px).astype(int), (y // side_px).astype(int)
    nearest = second = np.full_like(x, np.inf)
    for i in (0, 1, 2):
        for j in (0, 1, 2):
            px = (column + i - 1 + place[0][row + j, column + i]) * side_px
            py = (row + j - 1 + place[1][row + j, column + i]) * side_px
            away = np.hypot(x - px, y - py)
            nearest, second = np.minimum(nearest, away), np.minimum(second, np.maximum(nearest, away))
    if spots:
        return np.clip((0.32 * side_px - nearest) / 1.5, 0, 1)
    return np.clip((second - nearest) / (0.25 * side_px), 0, 1)
