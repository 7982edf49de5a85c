"""Images and XML files as a labelling tool leaves them, without lists of what is for training."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from detect.data.readers import IMAGE_SUFFIXES
from detect.data.readers.foreign import foreign_format
from detect.errors import InputError

XML_FOLDERS = ("", "Annotations", "annotations", "xml")
IMAGE_FOLDERS = ("", "JPEGImages", "images", "Images")
"""Where they are looked for below the folder that is given; "" is that folder itself."""
NAMED = 5
"""Files that a message names."""


class Pair(NamedTuple):
    """An image and the file that annotates it."""

    image: Path
    xml: Path


class Collected(NamedTuple):
    """Images and the XML files that annotate them."""

    pairs: dict[str, Pair]
    """By their stem, sorted."""
    without_xml: list[Path]
    """Images that nobody has annotated: left out, since nothing says that they are empty."""
    without_image: list[Path]
    """XML files whose image is not there."""

    @property
    def left_out(self) -> list[str]:
        """What was left out, for a person."""
        return [
            f"{len(files)} {what} left out: {', '.join(path.name for path in files[:NAMED])}"
            + (", ..." if len(files) > NAMED else "")
            for what, files in (
                ("images without an XML file", self.without_xml),
                ("XML files without an image", self.without_image),
            )
            if files
        ]


def collect(source: Path) -> Collected:
    """Images and XML files of one stem, side by side or in folders such as JPEGImages and Annotations.

    Raises:
        InputError: fewer than two annotated images, or two images of one name.
    """
    found, files = _images(source), _xml_files(source)
    pairs = {stem: Pair(found[stem], files[stem]) for stem in sorted(found.keys() & files.keys())}
    if len(pairs) < 2:
        if foreign := foreign_format(source):
            raise InputError(f"{source} cannot be divided{foreign}")
        raise InputError(
            f"{source} has {len(found)} images and {len(files)} XML files, {len(pairs)} of one name: "
            "at least two are needed. They are looked for in the folder itself and in "
            f"{', '.join(name for name in XML_FOLDERS + IMAGE_FOLDERS if name)}"
        )
    return Collected(
        pairs,
        without_xml=[path for stem, path in sorted(found.items()) if stem not in files],
        without_image=[path for stem, path in sorted(files.items()) if stem not in found],
    )


def _images(source: Path) -> dict[str, Path]:
    """Stem to image.

    Raises:
        InputError: two images differ in their suffix alone: which one is annotated cannot be told.
    """
    found: dict[str, Path] = {}
    for path in _files_in(source, IMAGE_FOLDERS):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            if path.stem in found:
                raise InputError(f"{found[path.stem]} and {path} have one name: rename or remove one of them")
            found[path.stem] = path
    return found


def _xml_files(source: Path) -> dict[str, Path]:
    return {path.stem: path for path in _files_in(source, XML_FOLDERS) if path.suffix.lower() == ".xml"}


def _files_in(source: Path, folders: tuple[str, ...]) -> list[Path]:
    """The files of those folders that exist; on disks that do not tell a from A a folder counts once."""
    existing = {(source / name).resolve(): None for name in folders if (source / name).is_dir()}
    return [path for folder in existing for path in sorted(folder.iterdir()) if path.is_file()]
