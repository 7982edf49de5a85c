"""One file per format: each writes splits into a new folder in the layout that its reader takes.

Boxes come as `Annotations` hold them, xyxy px of the upright image, and are not checked: a box that
leaves its image still does so in the copy.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Protocol

from detect.data.annotations import Annotations
from detect.data.readers import IMAGE_SUFFIXES
from detect.errors import InputError

PIXEL_DIGITS = 9
"""Decimals of a pixel: x + w, read back, is then x1 again; 4.0 is written as 4."""
MAX_STEM_BYTES = 200
"""File systems take names of 255."""


class Writer(Protocol):
    """What a module in this folder gives."""

    def split_names(self, splits: list[str]) -> dict[str, str]:
        """What each split is called in this format."""

    def write(self, folder: Path, splits: dict[str, Annotations]) -> dict[str, list[str]]:
        """Write the annotations of `splits`, all with the same classes.

        Returns:
            for each split the path of each image from `folder` on, where the caller puts it.

        Raises:
            InputError: a class name cannot be written in this format.
        """


def short(value: float) -> float | int:
    """A number of pixels as it is written."""
    rounded = round(float(value), PIXEL_DIGITS)
    return int(rounded) if rounded.is_integer() else rounded


def require_plain_names(names: tuple[str, ...], format_name: str) -> None:
    """Refuse what the text formats cannot hold.

    Raises:
        InputError: a name is empty, begins or ends with a blank, or holds what cannot be printed.
    """
    for name in names:
        if not name or name != name.strip() or not name.isprintable():
            raise InputError(f"the class name {name!r} cannot be written as {format_name}; rename the class")


class FileNames:
    """Names for images that share a folder: no two with one stem, for their annotation files go by it."""

    def __init__(self) -> None:
        self._given: dict[tuple[Path, int], str] = {}
        self._stems: set[str] = set()

    def of_split(self, annotations: Annotations) -> list[str]:
        """A name without folders for each image, as near to its own as can be.

        A file that was named in another split keeps that name. One that its split names twice, each time
        with boxes of its own, gets two.
        """
        times: Counter[Path] = Counter()
        names = []
        for row in range(len(annotations)):
            source = annotations.path(row)
            key = source, times[source]
            times[source] += 1
            if key not in self._given:
                self._given[key] = self._new(annotations.file_names[row].decode())
            names.append(self._given[key])
        return names

    def _new(self, name: str) -> str:
        stem, suffix = _split_suffix(name)
        stem = _plain_stem(stem)
        unique, number = stem, 2
        while unique.lower() in self._stems:
            unique, number = f"{stem}_{number}", number + 1
        self._stems.add(unique.lower())
        return unique + suffix


def _split_suffix(name: str) -> tuple[str, str]:
    """Stem and suffix; what is called by no known suffix becomes .jpg, for readers go by the content."""
    suffix = Path(name).suffix
    if suffix.lower() in IMAGE_SUFFIXES:
        return name.removesuffix(suffix), suffix
    return name, ".jpg"


def _plain_stem(stem: str) -> str:
    """Folders become part of the name; what a list of lines or another system cannot hold becomes "_"."""
    plain = "".join(c if c.isprintable() and c not in '\\/<>:"|?*' else "_" for c in stem).strip(" .")
    return plain.encode()[:MAX_STEM_BYTES].decode(errors="ignore") or "image"
