import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.deploy.image_input import input_pixels
from detect.errors import InputError
from tests.detector_cases import photo


@pytest.fixture(params=["a.jpg", "turned.jpg", "a.png", "grey.png", "clear.webp"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    image, exif = photo(), Image.Exif()
    if request.param == "turned.jpg":
        exif[0x0112] = 6
    mode = {"grey": "L", "clear": "RGBA"}.get(request.param.partition(".")[0], "RGB")
    image.convert(mode).save(tmp_path / request.param, exif=exif)
    return tmp_path / request.param


def test_input_pixels__path_bytes_image_array_and_bgr_are_one(file: Path) -> None:
    of_path = input_pixels(file)
    assert of_path.shape == ((200, 150, 3) if file.name == "turned.jpg" else (150, 200, 3))
    content = file.read_bytes()
    with Image.open(file) as image:
        others = [str(file), content, memoryview(content), image, of_path]
        for other in others:
            np.testing.assert_array_equal(input_pixels(other), of_path)  # type: ignore[arg-type]
    np.testing.assert_array_equal(input_pixels(of_path[..., ::-1], bgr=True), of_path)
    assert input_pixels(of_path[::2, ::-1, ::-1]).flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 3)), r"of float64 is not uint8 in 0\.\.255; fractions of white become"),
        (np.zeros((4, 5, 3), np.int64), r"of int64 is not uint8 in 0\.\.255$"),
        (np.zeros((4, 5), np.uint8), r"of shape 4x5 is grey; repeat it"),
        (np.zeros((3, 4, 5), np.uint8), r"3x4x5 has its channels first; give array\.transpose\(1, 2, 0\)"),
        (np.zeros((4, 5, 4), np.uint8), r"4x5x4 is not \(H, W, 3\)"),
        (np.zeros(3, np.uint8), r"shape 3 is not"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"2x4x5x3 is a batch; give a list"),
        (np.zeros((0, 5, 3), np.uint8), r"0x5x3 has no pixels"),
        (7, r"a int is no image; give a file, its bytes"),
        (None, r"a NoneType is no image"),
        (b"no image", r"cannot read an image of 8 bytes: cannot identify image file"),
        (b"", r"cannot read an image of 0 bytes"),
    ],
)
def test_input_pixels__what_is_no_image_is_refused_in_a_sentence(array: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        input_pixels(array)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1


def test_input_pixels__bytes_that_are_cut_off_or_claim_too_much() -> None:
    whole = io.BytesIO()
    photo().save(whole, "JPEG")
    cut = whole.getvalue()[: len(whole.getvalue()) // 3]
    with pytest.raises(InputError, match=r"cannot read an image of \d+ bytes: image file is truncated"):
        input_pixels(cut)
    heic = b"\0\0\0\x18ftypheic" + bytes(40)
    with pytest.raises(InputError, match=r"HEIC needs pillow-heif|of 52 bytes"):
        input_pixels(heic)


@pytest.mark.parametrize("image", [Path("a.jpg"), b"a", photo()])
def test_input_pixels__bgr_is_for_arrays(image: object) -> None:
    with pytest.raises(InputError, match="bgr=True is for arrays"):
        input_pixels(image, bgr=True)  # type: ignore[arg-type]
