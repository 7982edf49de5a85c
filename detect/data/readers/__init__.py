"""One file a format: each finds its splits in a folder and reads one into flat arrays, unjudged.

A reader repairs nothing: it says what the files say and where. `check.clean` decides what is kept.
A new format is a module with the functions of `Reader`, and one entry in `splits.READERS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from detect.data.labels import ClassMap


class SplitSource(NamedTuple):
    """Where one split lies on the disk."""

    annotations: Path
    """The JSON file (COCO), the list of images (VOC)."""
    images: Path
    """The folder that the image names start from."""
    voc_one_based: bool | None = None
    """VOC only: subtract the devkit's 1 from xmin and ymin; None: for the official sets alone."""


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
    """(M, 4) xyxy px; NaN where the file has no numbers."""
    labels: NDArray[np.int64]
    """(M,) 1..K; 0 where the category is not in `classes`."""
    box_category_ids: NDArray[np.generic]
    """(M,) the category that each box names."""
    ignore: NDArray[np.bool_]
    """(M,) crowd or difficult."""
    areas: NDArray[np.float64]
    """(M,) px^2; NaN where the file has none."""
    annotation_ids: NDArray[np.generic]
    """(M,) the data set's ids (COCO) or the number of the object within its file (VOC)."""
    unread: tuple[tuple[str, str], ...] = ()
    """(file, reason) of each annotation file that cannot be read; their images are not in the arrays."""
    missing_fields: tuple[tuple[str, int], ...] = ()
    """(name, count) of optional fields that annotations lack."""

    def annotation_file(self, image_row: int) -> str:
        """The file that annotates image `image_row`."""
        row = image_row if len(self.annotation_files) == len(self.file_names) else 0
        return self.annotation_files[row].decode()


class Reader(Protocol):
    """What a module in this folder gives."""

    NAME: str
    LAYOUT: str
    """One sentence on what the format looks like on the disk, for messages."""

    def recognises(self, root: Path) -> bool:
        """Whether `root` looks like this format."""

    def find_splits(self, root: Path) -> list[str]:
        """The splits in `root`, sorted."""

    def locate(self, root: Path, split: str) -> SplitSource:
        """The files of `split`; the image folder may be missing, the caller checks."""

    def read(self, source: SplitSource) -> RawAnnotations:
        """Everything that the files of one split say."""

    def watched(self, source: SplitSource) -> list[Path]:
        """The files whose change makes a cached copy of the arrays stale."""


def id_array(values: list[Any]) -> NDArray[np.generic]:
    """Ids as int64 where all are whole numbers, else as UTF-8 bytes of their text."""
    if all(type(value) is int for value in values):
        return np.array(values, dtype=np.int64)
    return byte_array([str(value) for value in values])


def byte_array(texts: list[str]) -> NDArray[np.bytes_]:
    """Texts as one array of UTF-8 bytes; at least one byte wide, which an empty list would not be."""
    return np.array([text.encode() for text in texts], dtype=np.bytes_) if texts else np.zeros(0, dtype="S1")


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
