"""From file to pixels: any image as upright RGB uint8, or an error that names the file."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, TiffImagePlugin, features

from detect.errors import InputError, install_hint

try:
    import simplejpeg  # type: ignore[import-untyped]
except ImportError:  # no wheel for this platform: Pillow gives the same pixels, a third slower
    simplejpeg = None
try:
    import pillow_heif  # type: ignore[import-not-found]
except ImportError:  # the extra `heic`
    pillow_heif = None

TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height (EXIF 2.32, tag 0x0112)."""
DRAFT_SCALES = (2, 4, 8)
"""Reductions that a JPEG decoder gives almost for nothing, by leaving coefficients out."""
STRIP_PIXELS = 4_000_000
"""Number of pixels that are copied at once."""
BACKGROUND = (255, 255, 255, 255)
"""What shows through transparent pixels: white, as on paper."""
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe")
PLAIN_COLOUR_SPACES = ("YCbCr", "RGB")
"""Colour spaces of JPEGs that every decoder turns into the same RGB; grey and CMYK are left to Pillow."""
EXIF_MARK = b"Exif\0\0"
"""Starts the EXIF segment of a JPEG (EXIF 2.32, 4.7.2)."""
PNG_MARK = b"\x89PNG\r\n\x1a\n"
PNG_WORDS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""Chunks that can hold an orientation; Pillow reads it from text as well."""
JPEG_MARKER = b"\xff"
START_OF_SCAN = b"\xda"
if pillow_heif is not None:
    pillow_heif.register_heif_opener()
FORMATS = (
    *("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000"),
    *(("AVIF",) if features.check("avif") else ()),
    *(("HEIF",) if pillow_heif is not None else ()),
)
"""What is decoded, whatever a file is called. Pillow also knows formats that run other programs (EPS)."""
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
"""Kinds of HEIF that stand at place 8 of a file (ISO/IEC 23008-12, annex B)."""
AVIF_BRANDS = (b"avif", b"avis")


class ImageHeader(NamedTuple):
    """What the header of a file says, before a pixel is decoded."""

    height: int
    """As stored, before the orientation is applied; px."""
    width: int
    orientation: int
    """EXIF 0x0112: 1 is upright."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """(H, W) as the image is shown."""
        if self.orientation in TRANSPOSED_ORIENTATIONS:
            return self.width, self.height
        return self.height, self.width


def load_image(path: Path, *, draft_scale: int = 1) -> Image.Image:
    """Decode a file to upright RGB, whatever its mode: grey, 16 bit, palette, CMYK, transparent, rotated.

    Args:
        path: the image file.
        draft_scale: 1, 2, 4 or 8: decode a JPEG at 1 / draft_scale; other formats ignore it.

    Raises:
        InputError: missing, broken, cut off or too large; names the file and the reason.
    """
    try:
        with open_image(path) as image:
            if draft_scale > 1:
                image.draft(None, (image.width // draft_scale, image.height // draft_scale))
            return upright_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read image {path}: {_missing_decoder(_head(path)) or error}") from error


def load_pixels(path: Path, *, draft_scale: int = 1) -> NDArray[np.uint8]:
    """The pixels of `load_image` as (H, W, 3), without Pillow's copies where the file is an ordinary JPEG.

    Raises:
        InputError: as `load_image`.
    """
    if draft_scale == 1 and path.suffix.lower() in JPEG_SUFFIXES:
        with contextlib.suppress(OSError):  # Pillow complains of it
            if (pixels := _decode_plain_jpeg(path.read_bytes())) is not None:
                return pixels
    return _pixels_of(load_image(path, draft_scale=draft_scale))


def decode_bytes(encoded: bytes) -> NDArray[np.uint8]:
    """The content of an image file to the pixels that `load_pixels` gives of the file.

    Raises:
        InputError: broken, cut off, too large or not an image; names the reason.
    """
    if (pixels := _decode_plain_jpeg(encoded)) is not None:
        return pixels
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return _pixels_of(upright_rgb(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = _missing_decoder(encoded) or str(error)
        raise InputError(f"cannot read an image of {len(encoded)} bytes: {reason}") from error


def _pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) of an RGB image, strip by strip: as a whole, Pillow hands it over in three copies."""
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top, bottom in _strips(image):
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An image that is not decoded yet, of one of `FORMATS`.

    From an open file: given a path, Pillow (13) maps plain TIFFs into memory and then turns them wrongly.
    """
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        yield image


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened image as RGB uint8, turned as its EXIF orientation says."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_background(image)
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()
    return image


def _on_background(image: Image.Image) -> Image.Image:
    """An image with transparency as RGB, strip by strip: as a whole it takes five copies."""
    flat = Image.new("RGB", image.size)
    for top, bottom in _strips(image):
        layer = image.crop((0, top, image.width, bottom)).convert("RGBA")
        behind = Image.new("RGBA", layer.size, BACKGROUND)
        flat.paste(Image.alpha_composite(behind, layer).convert("RGB"), (0, top))
    return flat


def _strips(image: Image.Image) -> Iterator[tuple[int, int]]:
    """Rows of an image, from and to, `STRIP_PIXELS` or a little fewer at a time."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, min(top + rows, image.height)


def read_size(path: Path) -> tuple[int, int]:
    """(H, W) of the upright image, from the header alone.

    Raises:
        InputError: missing, or not an image; names the file and the reason.
    """
    return read_header(path).upright_size


def read_header(path: Path) -> ImageHeader:
    """Size and orientation.

    Raises:
        InputError: missing, not an ordinary file, or not an image; names the file and the reason.
    """
    if not os.path.isfile(path):  # opening a pipe would wait for its writer forever
        reason = "not an ordinary file" if os.path.lexists(path) else "no such file"
        raise InputError(f"cannot read image {path}: {reason}")
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = _stored_size(image)
            orientation = _header_exif(image, path).get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read image {path}: {_missing_decoder(_head(path)) or error}") from error
    known = isinstance(orientation, int) and 1 <= orientation <= 8
    return ImageHeader(height, width, orientation if known else 1)


def _head(path: Path) -> bytes:
    """The first bytes of a file, which say its kind; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(12)
    except OSError:
        return b""


def _missing_decoder(head: bytes) -> str:
    """What installs the decoder of a kind of file that is known and not read; "" for others."""
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS and "HEIF" not in FORMATS:
        return f"HEIC needs pillow-heif; {install_hint('heic')}"
    if head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS and "AVIF" not in FORMATS:
        return "AVIF needs Pillow 11.3 or newer"
    return ""


def _header_exif(image: Image.Image, path: Path) -> Image.Exif:
    """EXIF of an image that is not decoded; a PNG whose chunks say nothing behind the pixels stays so.

    Pillow decodes a PNG to look behind its pixels, where few programs write anything.
    """
    if isinstance(image, PngImagePlugin.PngImageFile) and not _png_says_more(path):
        return Image.Image.getexif(image)
    return image.getexif()


def _png_says_more(path: Path) -> bool:
    """Whether a PNG has EXIF or text behind its first pixels; a chunk is length, kind, content and sum."""
    with path.open("rb") as file:
        file.seek(len(PNG_MARK))
        pixels = False
        while len(head := file.read(8)) == 8:
            pixels |= head[4:] == b"IDAT"
            if pixels and head[4:] in PNG_WORDS:
                return True
            file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)
    return False


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before turning; Pillow turns TIFFs by itself and says the size that they then have."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        return int(tags[TiffImagePlugin.IMAGEWIDTH]), int(tags[TiffImagePlugin.IMAGELENGTH])
    return image.size


def choose_draft_scales(sizes: NDArray[np.int32], image_size: tuple[int, int]) -> NDArray[np.int64]:
    """The largest reductions that leave the shorter side at twice the longer input side.

    A function of the sizes alone, so that a crop of the same file always sees the same pixels. The factor 2
    keeps a crop of half the file at full sharpness.

    Args:
        sizes: (N, 2) height and width of the files.
        image_size: (H, W) of the input.

    Returns:
        (N,) 1, 2, 4 or 8.
    """
    shorter = sizes.min(axis=1, initial=np.iinfo(np.int32).max)
    scales = np.ones(len(sizes), dtype=np.int64)
    for scale in DRAFT_SCALES:
        scales[shorter // scale >= 2 * max(image_size)] = scale
    return scales


def _decode_plain_jpeg(encoded: bytes) -> NDArray[np.uint8] | None:
    """(H, W, 3) of an upright colour JPEG; None for anything that Pillow has to deal with or complain of."""
    if simplejpeg is None:
        return None
    try:
        height, width, colour_space, _ = simplejpeg.decode_jpeg_header(encoded)
        # It takes memory for all that a header claims; Pillow refuses twice its limit.
        if height * width > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
            return None
        if colour_space not in PLAIN_COLOUR_SPACES or _is_turned(encoded):
            return None
        return simplejpeg.decode_jpeg(encoded)
    except (OSError, ValueError):  # OSError: Pillow, of what the header says
        return None


def _is_turned(encoded: bytes) -> bool:
    """Whether a JPEG has an EXIF orientation other than upright."""
    if not _has_exif(encoded):  # far cheaper than to parse the header
        return False
    with Image.open(io.BytesIO(encoded)) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


def _has_exif(encoded: bytes) -> bool:
    """Whether an EXIF segment stands before the compressed pixels, which are not searched.

    Every segment is a marker of 2 bytes and a length of 2 that counts itself (ITU-T T.81, B.1.1.4).
    """
    place = 2  # behind the mark that starts the file
    while encoded[place : place + 1] == JPEG_MARKER:
        if encoded[place + 1 : place + 2] == JPEG_MARKER:  # filling
            place += 1
            continue
        if encoded[place + 1 : place + 2] == START_OF_SCAN:
            return False
        if encoded.startswith(EXIF_MARK, place + 4):
            return True
        place += 2 + int.from_bytes(encoded[place + 2 : place + 4])
    return EXIF_MARK in encoded  # not written as it should be


def _from_deep(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits: 16-bit range to 8 bits; floats of at most 1 are fractions of white."""
    values = np.asarray(image).astype(np.float32)
    highest = float(values.max(initial=0))
    if image.mode == "F" and highest <= 1:
        values *= 255
    elif image.mode.startswith("I;16") or highest > 255:
        values /= 257  # 65535 / 255
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
