"""From what a program hands to a detector (a file, its bytes, a Pillow image, an array) to upright pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detect.data.images.decode import decode_bytes, load_pixels, upright_rgb
from detect.errors import InputError

ImageInput = Image.Image | Path | str | bytes | NDArray[np.uint8]
"""A Pillow image of any mode, a file, the content of a file, or (H, W, 3) uint8 pixels."""


def input_pixels(image: ImageInput, *, bgr: bool = False) -> NDArray[np.uint8]:
    """(H, W, 3) upright RGB, uint8.

    Args:
        image: an array is taken as upright; everything else is turned as its EXIF orientation says.
        bgr: the channels of an array are blue, green, red, as OpenCV has them.

    Raises:
        InputError: a file or bytes that cannot be decoded, an array of another shape or type, `bgr` of
            anything but an array, or something that is no image.
    """
    if isinstance(image, np.ndarray):
        pixels = checked_array(image)
        return np.ascontiguousarray(pixels[..., ::-1] if bgr else pixels)
    if bgr:
        raise InputError(f"bgr=True is for arrays; a {type(image).__name__} says what its channels are")
    if isinstance(image, Image.Image):
        return np.array(upright_rgb(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_bytes(bytes(image))
    if isinstance(image, Path | str):
        return load_pixels(Path(image))
    raise InputError(
        f"a {type(image).__name__} is no image; give a file, its bytes, a Pillow image, an (H, W, 3) uint8 "
        "array or a list of those"
    )


def checked_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The array itself, where it is (H, W, 3) uint8 with pixels.

    Raises:
        InputError: it is not; names its shape or type and what to do.
    """
    shape = "x".join(map(str, array.shape))
    if array.ndim == 4:
        raise InputError(f"an array of shape {shape} is a batch; give a list of (H, W, 3) arrays")
    if array.ndim == 2:
        raise InputError(f"an array of shape {shape} is grey; repeat it as np.stack([array] * 3, axis=-1)")
    if array.ndim == 3 and array.shape[2] != 3 and array.shape[0] == 3:
        raise InputError(f"an array of shape {shape} has its channels first; give array.transpose(1, 2, 0)")
    if array.ndim != 3 or array.shape[2] != 3:
        raise InputError(f"an array of shape {shape} is not (H, W, 3)")
    if array.size == 0:
        raise InputError(f"an array of shape {shape} has no pixels")
    if array.dtype != np.uint8:
        hint = "; fractions of white become (255 * array).round().astype(np.uint8)"
        raise InputError(
            f"an array of {array.dtype} is not uint8 in 0..255{hint if array.dtype.kind == 'f' else ''}"
        )
    return array
