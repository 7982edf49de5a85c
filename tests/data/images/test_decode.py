from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from detect.data.images import decode as image_module
from detect.data.images.decode import choose_draft_scales, load_image, load_pixels, read_header, read_size
from detect.errors import InputError
from tests.data_sets import claim_size, save_picture
from tests.mutations import png_chunk


def gradient(height: int = 40, width: int = 56) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 2 % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("behind", [b"", b"\xff\xfe\x00\x06note", b"\xff\xff\xff"])
def test_load_pixels__exif_behind_other_segments(tmp_path: Path, behind: bytes) -> None:
    """Comments and filling bytes may stand before it (ITU-T T.81, B.1.1.2 and B.2.4.5)."""
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(gradient()).save(path, quality=95, exif=exif)
    encoded = path.read_bytes()
    path.write_bytes(encoded[:2] + behind + encoded[2:])
    height, width = gradient().shape[:2]
    assert load_pixels(path).shape[:2] == (width, height)


def test_load_pixels__the_mark_of_exif_among_the_pixels_is_none(tmp_path: Path) -> None:
    path = tmp_path / "upright.jpg"
    Image.fromarray(gradient()).save(path, quality=95)
    expected = load_pixels(path)
    encoded = path.read_bytes()
    path.write_bytes(encoded + b"Exif\0\0")  # behind the end of the image
    assert np.array_equal(load_pixels(path), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_load__exif_orientation_is_applied_alike_everywhere(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(gradient()).save(path, quality=95, exif=exif)
    pixels = np.array(load_image(path))
    np.testing.assert_array_equal(load_pixels(path), pixels)
    assert read_size(path) == pixels.shape[:2]
    upright = {  # where the first row and column of the file belong, EXIF 2.32
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation](gradient())
    assert np.abs(pixels.astype(int) - upright).mean() < 8  # JPEG's loss


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("settings", [{"quality": 90}, {"quality": 75, "progressive": True}])
def test_load_pixels__equals_load_image_on_every_kind_of_jpeg(
    tmp_path: Path, mode: str, settings: dict[str, int]
) -> None:
    path = tmp_path / "picture.jpeg"
    Image.fromarray(gradient()).convert(mode).save(path, **settings)
    pixels = load_pixels(path)
    assert pixels.shape == (40, 56, 3)
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, np.array(load_image(path)))


@pytest.mark.parametrize(
    ("mode", "fill", "expected"),
    [
        ("L", 200, (200, 200, 200)),
        ("1", 1, (255, 255, 255)),
        ("LA", (200, 255), (200, 200, 200)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),  # transparent: paper shows
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("P", 7, None),
        ("I;16", 257 * 100, (100, 100, 100)),
    ],
)
def test_load_image__every_mode_becomes_rgb(
    tmp_path: Path, mode: str, fill: int | tuple[int, ...], expected: tuple[int, int, int] | None
) -> None:
    path = tmp_path / "picture.png"
    picture = Image.new(mode, (6, 4), fill)
    if mode == "P":
        picture.putpalette([channel for colour in range(256) for channel in (colour, 2 * colour % 256, 9)])
        expected = (7, 14, 9)
    picture.save(path)
    loaded = load_image(path)
    assert loaded.mode == "RGB"
    assert loaded.size == (6, 4)
    assert loaded.getpixel((3, 2)) == expected
    np.testing.assert_array_equal(load_pixels(path), np.array(loaded))


def test_load_image__palette_with_a_transparent_colour(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture = Image.new("P", (6, 4), 7)
    picture.putpalette([50] * 768)
    picture.save(path, transparency=7)
    assert load_image(path).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("value", "expected"), [(0.5, 128), (200.0, 200), (65535.0, 255)])
def test_load_image__float_tiff_by_its_range(tmp_path: Path, value: float, expected: int) -> None:
    path = tmp_path / "picture.tif"
    Image.new("F", (6, 4), value).save(path)
    assert load_image(path).getpixel((0, 0)) == (expected,) * 3


def test_load_image__sixteen_bits_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)).save(path)
    grey = np.array(load_image(path))[:, :, 0].ravel().astype(int)
    assert (np.diff(grey) >= 0).all()
    assert grey[0] == 0
    assert grey[-1] == 254  # 65280 / 257


def test_load_image__draft_scales_a_jpeg_and_nothing_else(tmp_path: Path) -> None:
    for name, size in (("picture.jpg", (351, 251)), ("picture.png", (701, 501))):
        Image.fromarray(gradient(501, 701)).save(tmp_path / name)
        assert load_image(tmp_path / name, draft_scale=2).size == size
        assert load_pixels(tmp_path / name, draft_scale=2).shape == (size[1], size[0], 3)


def test_load_pixels__a_png_that_is_named_jpg(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "picture.jpg", format="PNG")
    np.testing.assert_array_equal(load_pixels(tmp_path / "picture.jpg"), gradient())


@pytest.mark.parametrize("load", [load_image, load_pixels, read_size])
@pytest.mark.parametrize("name", ["missing.jpg", "text.jpg", "empty.png"])
def test_load__what_is_no_image_is_named(tmp_path: Path, load: object, name: str) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    assert callable(load)
    with pytest.raises(InputError, match=f"cannot read image {re.escape(str(tmp_path / name))}: "):
        load(tmp_path / name)


@pytest.mark.parametrize("load", [load_image, load_pixels])
def test_load__a_file_that_was_cut_off_is_named(tmp_path: Path, load: object) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(gradient(200, 300)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    assert callable(load)
    with pytest.raises(InputError, match=r"cut\.jpg: .*truncated"):
        load(path)


def test_load_image__a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"large\.png: Image size \(10000 pixels\) exceeds limit"):
        load_image(tmp_path / "large.png")


def test_choose_draft_scales__leaves_twice_the_input() -> None:
    sizes = np.array([[480, 640], [1279, 2000], [1280, 1281], [2560, 9000], [5120, 5120], [50000, 50000]])
    # Shorter side / scale >= 2 x 320: from 1280 px on 2, from 2560 px on 4, from 5120 px on 8.
    assert choose_draft_scales(sizes.astype(np.int32), (320, 300)).tolist() == [1, 1, 2, 4, 8, 8]
    assert choose_draft_scales(np.zeros((0, 2), dtype=np.int32), (320, 320)).shape == (0,)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P", "1"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_load_image__turned_tiff__as_shown(tmp_path: Path, mode: str, orientation: int) -> None:
    """Pillow maps plain TIFFs into memory, and those it then turns wrongly."""
    grey = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) % 251
    image = Image.fromarray(grey.astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.tif", exif=exif)
    quarters = {3: 2, 6: 3, 8: 1}[orientation]
    expected = np.rot90(np.asarray(image.convert("RGB")), quarters)
    np.testing.assert_array_equal(load_pixels(tmp_path / "a.tif"), expected)


def test_load_pixels__more_than_a_strip__equals_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detect.data.images.decode.STRIP_PIXELS", 100)
    path = save_picture(tmp_path / "a.png", (30, 47))
    np.testing.assert_array_equal(load_pixels(path), np.asarray(load_image(path)))


def test_load_image__deep_grey_of_a_tiff(tmp_path: Path) -> None:
    path = tmp_path / "picture.tif"
    for value, expected in ((25700, 100), (100, 100)):  # by the 16-bit range; 8-bit numbers stay
        Image.new("I", (6, 4), value).save(path)
        assert load_image(path).getpixel((0, 0)) == (expected,) * 3


def test_load_pixels__without_the_fast_decoder_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.jpg"
    Image.fromarray(gradient()).save(path)
    pixels = load_pixels(path)
    monkeypatch.setattr("detect.data.images.decode.simplejpeg", None)
    np.testing.assert_array_equal(load_pixels(path), pixels)


def turned_png(path: Path, *, place_before: bytes) -> Path:
    """A PNG with a chunk that turns it by 90 degrees, before the first one of a kind."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = save_picture(path, (64, 48)).read_bytes()
    place = data.index(place_before) - 4  # a chunk starts with its length
    path.write_bytes(data[:place] + png_chunk(b"eXIf", exif.tobytes()[6:]) + data[place:])
    return path


@pytest.mark.parametrize("place_before", [b"IDAT", b"IEND"])
def test_read_header__png_that_is_turned__wherever_it_says_so(tmp_path: Path, place_before: bytes) -> None:
    path = turned_png(tmp_path / "a.png", place_before=place_before)
    assert read_header(path).orientation == 6
    assert read_size(path) == load_image(path).size[::-1] == (64, 48)


def test_read_header__png__is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_picture(tmp_path / "a.png", (64, 48))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: pytest.fail("decoded"))
    assert read_header(path) == (48, 64, 1)


@pytest.mark.skipif(image_module.simplejpeg is None, reason="Pillow alone decodes, and looks at the header")
def test_load_pixels__a_jpeg_that_claims_more_than_memory_holds__is_never_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = claim_size(save_picture(tmp_path / "a.jpg"), 13_378, 13_378)
    monkeypatch.setattr(image_module.simplejpeg, "decode_jpeg", lambda data: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"a\.jpg: .*178970884 pixels\) exceeds"):
        load_pixels(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_load_image__transparent_and_more_than_a_strip__as_laid_on_white_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (47, 30, 4), dtype=np.uint8), "RGBA")
    options = {"transparency": 7} if mode == "P" else {}
    if mode != "RGBA":
        picture = picture.convert("RGB").convert("P") if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "a.png", **options)
    with Image.open(tmp_path / "a.png") as opened:
        layer = opened.convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    monkeypatch.setattr(image_module, "STRIP_PIXELS", 100)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.png")), np.asarray(expected))
