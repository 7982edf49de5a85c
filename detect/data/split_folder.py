"""`detect data split`: images and XML files as a labelling tool leaves them, divided into a VOC folder.

Labelling tools write one XML file per image and no lists of what is for training and what for validation.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from detect.data.readers import IMAGE_SUFFIXES
from detect.data.writers import voc
from detect.errors import InputError
from detect.system.output_folder import ImagePlacement, new_folder, place_image

XML_FOLDERS = ("", "Annotations", "annotations", "xml")
IMAGE_FOLDERS = ("", "JPEGImages", "images", "Images")
"""Where they are looked for below the folder that is given; "" is that folder itself."""
NAMED = 5
"""Files that a message names."""


class Pair(NamedTuple):
    """An image and the file that annotates it."""

    image: Path
    xml: Path


class Divided(NamedTuple):
    """What was written, and what was not."""

    train: list[str]
    """Stems, sorted."""
    val: list[str]
    without_xml: list[Path]
    """Images that nobody has annotated: left out, since nothing says that they are empty."""
    without_image: list[Path]
    """XML files whose image is not there."""

    @property
    def left_out(self) -> str:
        """What was left out, for a person; "" where nothing was."""
        return "\n".join(
            f"{len(files)} {what} left out: {', '.join(path.name for path in files[:NAMED])}"
            + (", ..." if len(files) > NAMED else "")
            for what, files in (
                ("images without an XML file", self.without_xml),
                ("XML files without an image", self.without_image),
            )
            if files
        )


def divide(
    source: Path, output: Path, *, val_share: float, seed: int = 0, images: ImagePlacement = "link"
) -> Divided:
    """Write `output` as a VOC folder with the splits train and val; `source` is only read.

    Which image is for validation is decided by a hash of its name and the seed: neither the order of the
    files nor the machine matters.

    Args:
        source: holds images and XML files side by side, or in folders such as JPEGImages and Annotations.
        output: a new or empty folder outside of it.
        val_share: of the images, rounded, but at least one image is in each split.
        seed: gives another division.
        images: how images are put there.

    Raises:
        InputError: fewer than two annotated images, two images of one name, or a wrong share or folder.
    """
    if not 0 < val_share < 1:
        raise InputError(f"--val_share {val_share}: a share of the images, above 0 and below 1, such as 0.2")
    if not source.is_dir():
        raise InputError(f"no folder {source}")
    found, files = _images(source), _xml_files(source)
    pairs = {stem: Pair(found[stem], files[stem]) for stem in sorted(found.keys() & files.keys())}
    if len(pairs) < 2:
        raise InputError(
            f"{source} has {len(found)} images and {len(files)} XML files, {len(pairs)} of one name: "
            "at least two are needed. They are looked for in the folder itself and in "
            f"{', '.join(name for name in XML_FOLDERS + IMAGE_FOLDERS if name)}"
        )
    ranked = sorted(pairs, key=lambda stem: hashlib.sha256(f"{seed} {stem}".encode()).digest())
    count = min(max(1, round(val_share * len(ranked))), len(ranked) - 1)
    splits = {"train": sorted(ranked[count:]), "val": sorted(ranked[:count])}
    with new_folder(output, source) as folder:
        for stem, pair in pairs.items():
            place_image(pair.xml, folder / "Annotations" / f"{stem}.xml", "copy")
            place_image(pair.image, folder / "JPEGImages" / pair.image.name, images)
        for name, stems in splits.items():
            voc.write_list(folder, name, stems)
    return Divided(
        **splits,
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
