from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image

from detect.data.synthetic.textures import TEXTURES, grainy, muted_colour, textured, vivid_colour


@pytest.mark.parametrize("texture", TEXTURES, ids=lambda texture: texture.__name__)
def test_texture__keeps_shape_and_range(texture: object) -> None:
    u, v = np.meshgrid(np.arange(50, dtype=np.float32), np.arange(30, dtype=np.float32))
    assert callable(texture)
    values = texture(u, v, np.random.default_rng(0))
    assert values.shape == (30, 50)
    # Bicubic interpolation overshoots a little.
    assert np.abs(values).max() <= 1.3


def test_textured__gives_width_by_height_around_the_colour() -> None:
    colour = np.array([0.8, 0.5, 0.2])
    picture = textured(np.random.default_rng(0), (40, 24), colour, contrast=0.1)
    assert picture.size == (40, 24)
    # Texture moves a tone by up to 0.13, the gradient by up to a quarter.
    assert np.asarray(picture) / 255 == pytest.approx(np.broadcast_to(colour, (24, 40, 3)), abs=0.36)


@pytest.mark.parametrize("below", [0.0, 0.5, 1.0])
def test_vivid_colour__stands_out(below: float) -> None:
    rng = np.random.default_rng(0)
    distances = [np.abs(vivid_colour(rng, np.full(3, below)) - below).sum() for _ in range(200)]
    assert min(distances) > 0.35


def test_grainy__moves_the_three_bands_alike() -> None:
    grey = Image.new("RGB", (60, 40), (100, 120, 140))
    grain = np.asarray(grainy(np.random.default_rng(0), grey)).astype(int) - (100, 120, 140)
    assert (grain == grain[..., :1]).all()
    assert 0.5 < grain.std() < 7


def test_colours__vivid_and_muted__do_not_meet() -> None:
    rng = np.random.default_rng(0)
    vivid = [colorsys.rgb_to_hsv(*vivid_colour(rng, np.full(3, 0.5)))[1] for _ in range(200)]
    muted = [colorsys.rgb_to_hsv(*muted_colour(rng))[1] for _ in range(200)]
    assert min(vivid) > 0.6 > 0.3 > max(muted)
