"""One file a format: each finds its splits in a folder and reads one into flat arrays, unjudged.

A reader repairs nothing: it says what the files say and where. `check.clean` decides what is kept.
A new format is a module with the functions of `Reader`, and one entry in `splits.READERS`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from detect.data.checks.conventions import BoxConvention
from detect.data.checks.findings import Finding
from detect.errors import InputError
from detect.types import ClassMap

MAX_TEXT_BYTES = 512
"""Longest file name or id. Arrays of bytes are as wide as their longest entry: one hostile name must not
cost its length times the number of boxes."""
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".jfif", ".jpe", ".gif", ".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm"),
)
"""What is taken for an image in a folder, the likeliest first."""
MB = 1e6
UNDIVIDED = "default"
"""The name of the one split of a folder that nothing divides, as CVAT calls it."""


class SplitSource(NamedTuple):
    """Where one split lies on the disk."""

    annotations: Path
    """The JSON file (COCO); the list of images, or the folder where there is none (VOC); data.yaml (YOLO)."""
    images: Path
    """The folder that the image names start from."""
    split: str | None = None
    """YOLO: the split's key in data.yaml. VOC without lists: the split's folder."""
    voc_one_based: bool | None = None
    """VOC only: subtract the devkit's 1 from xmin and ymin; None: for the official sets alone."""
    convention: BoxConvention | None = None
    """How the files write boxes, where they break their format's rule; None: as the format says."""
    root: Path | None = None
    """The data set's folder, where images that are elsewhere than written are looked for; None: `images`."""


@dataclass(frozen=True)
class RawAnnotations:
    """What the files of one split say: N images and M boxes, nothing dropped, nothing repaired."""

    source: SplitSource
    classes: ClassMap
    file_names: NDArray[np.bytes_]
    """(N,) UTF-8 paths below `source.images`."""
    annotation_files: NDArray[np.bytes_]
    """(N,) UTF-8 path of the file that annotates each image; (1,) where one file holds all."""
    image_ids: NDArray[np.generic]
    """(N,) int64, or UTF-8 bytes."""
    sizes: NDArray[np.int32]
    """(N, 2) height and width as annotated; 0 where the annotation says nothing."""
    image_rows: NDArray[np.int64]
    """(M,) the row of each box's image; -1 where no image has that id."""
    box_image_ids: NDArray[np.generic]
    """(M,) the image id that each box names."""
    boxes: NDArray[np.float64]
    """(M, 4) xyxy px, by the rules of `convention`; NaN where the file has no numbers. Fractions of width and
    height where the convention is normalised."""
    labels: NDArray[np.int64]
    """(M,) 1..K; 0 where the category is not in `classes`."""
    box_category_ids: NDArray[np.generic]
    """(M,) the category that each box names."""
    ignore: NDArray[np.bool_]
    """(M,) crowd or difficult."""
    areas: NDArray[np.float64]
    """(M,) px^2; NaN where the file has none."""
    annotation_ids: NDArray[np.generic]
    """(M,) the data set's ids (COCO), the number of the object within its file (VOC), the line (YOLO)."""
    convention: BoxConvention
    """How the files write boxes, as far as their format says."""
    file_per_image: bool = False
    """Whether each image has an annotation file of its own."""
    unread: tuple[tuple[str, str], ...] = ()
    """(file, reason) of each annotation file that cannot be read; their images are not in the arrays."""
    missing_fields: tuple[tuple[str, int], ...] = ()
    """(name, count) of optional fields that annotations lack."""
    notes: tuple[Finding, ...] = ()
    """How the files were read, where that is not plain."""

    def annotation_file(self, image_row: int) -> str:
        """The file that annotates image `image_row`."""
        return self.annotation_files[image_row if self.file_per_image else 0].decode()


class Reader(Protocol):
    """What a module in this folder gives."""

    NAME: str
    LAYOUT: str
    """One sentence on what the format looks like on the disk, for messages."""

    def recognises(self, root: Path) -> bool:
        """Whether `root` looks like this format."""

    def recognises_loosely(self, root: Path) -> bool:
        """Whether a tool may have written `root` in this format, where no format's own layout is there."""

    def find_splits(self, root: Path) -> list[str]:
        """The splits in `root`, sorted."""

    def locate(self, root: Path, split: str) -> SplitSource:
        """The files of `split`; the image folder may be missing, the caller checks."""

    def read(self, source: SplitSource) -> RawAnnotations:
        """Everything that the files of one split say."""

    def watched(self, source: SplitSource) -> list[Path]:
        """The files whose change makes a cached copy of the arrays stale."""


def read_text_file(path: Path, *, limit_mb: float) -> str:
    """The text of an annotation file, which must be an ordinary file and not larger than it may be.

    Raises:
        InputError: missing, a pipe or a device, too large, or not UTF-8; names the file.
    """
    return decode_text(read_bytes_of_file(path, limit_mb=limit_mb), path)


def read_bytes_of_file(path: Path, *, limit_mb: float) -> bytes:
    """As `read_text_file`, without decoding.

    Raises:
        InputError: missing, a pipe or a device, or too large; names the file.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for its writer forever
            raise InputError(f"cannot read {path}: {'not an ordinary' if path.exists() else 'no such'} file")
        size_mb = os.stat(path).st_size / MB
        if size_mb > limit_mb:
            raise InputError(f"cannot read {path}: it has {size_mb:.3g} MB, at most {limit_mb:.3g} are read")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error


def decode_text(content: bytes, path: Path) -> str:
    """UTF-8 with or without a byte order mark.

    Raises:
        InputError: not UTF-8; names the file.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: not UTF-8 ({error})") from error


def plain_text(value: object) -> str:
    """A name or an id as text that can be written and printed, whatever a file holds in its place.

    Lists and objects are named by their type alone: they may be of any size. Half surrogates become "?".
    """
    if not isinstance(value, str | int | float) or (isinstance(value, int) and value.bit_length() > 256):
        return f"({type(value).__name__})"
    encoded = str(value).encode("utf-8", "replace")[:MAX_TEXT_BYTES]
    return encoded.decode("utf-8", "ignore")


def id_array(values: list[Any]) -> NDArray[np.generic]:
    """Ids as int64 where all are whole numbers, else as UTF-8 bytes of their text."""
    whole = [int(value) if type(value) is float and value.is_integer() else value for value in values]
    if all(type(value) is int and value.bit_length() < 64 for value in whole):
        return np.array(whole, dtype=np.int64)
    return byte_array([plain_text(value) for value in whole])


def byte_array(texts: list[str]) -> NDArray[np.bytes_]:
    """Texts as one array of UTF-8 bytes; at least one byte wide, which an empty list would not be."""
    if not texts:
        return np.zeros(0, dtype="S1")
    return np.array([plain_text(text).encode() for text in texts], dtype=np.bytes_)


def find_rows(wanted: NDArray[np.generic], known: NDArray[np.generic]) -> NDArray[np.int64]:
    """For each of `wanted` the first row of `known` that equals it, or -1; 1 and "1" are equal."""
    if len(known) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    if wanted.dtype.kind != known.dtype.kind:
        wanted, known = wanted.astype(np.bytes_), known.astype(np.bytes_)
    order = np.argsort(known, kind="stable")
    place = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    rows = order[place]
    return np.where(known[rows] == wanted, rows, -1)
