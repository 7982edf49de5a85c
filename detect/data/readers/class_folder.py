"""Folders of classes, as ImageNet comes: ROOT/SPLIT/NAME/*. Each image is one box that covers all of it.

Read by `detect pretrain` alone: no detector learns from boxes that nobody has drawn.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from detect.data.checks.findings import Finding
from detect.data.readers import IMAGE_SUFFIXES, RawAnnotations, SplitSource, byte_array
from detect.errors import InputError
from detect.types import ClassMap

NAME = "class folders"
LAYOUT = "SPLIT/NAME/* with the images of each class in a folder of its own"


def recognises(root: Path) -> bool:
    """Whether a folder of `root` has folders with images."""
    return bool(find_splits(root))


def recognises_loosely(root: Path) -> bool:
    """Whether `root` looks like it, if nothing else; as `recognises`."""
    return recognises(root)


def find_splits(root: Path) -> list[str]:
    """Folders of `root` with folders with images, sorted.

    Raises:
        InputError: no folder.
    """
    if not root.is_dir():
        raise InputError(f"no data folder {root}")
    return sorted(
        split.name for split in root.iterdir() if split.is_dir() and any(map(_has_image, _folders(split)))
    )


def locate(root: Path, split: str) -> SplitSource:
    """The folder of `split`."""
    return SplitSource(root / split, root / split)


def read(source: SplitSource) -> RawAnnotations:
    """Every image of every class, by class and name; classes are sorted by name.

    Raises:
        InputError: no folder has an image.
    """
    folders = {folder.name: _images(folder) for folder in _folders(source.annotations)}
    names = [name for name, images in folders.items() if images]
    if not names:
        raise InputError(f"{source.annotations} has no folder with images; looked for {LAYOUT}")
    files = [f"{name}/{image}" for name in names for image in folders[name]]
    labels = np.repeat(np.arange(1, len(names) + 1), [len(folders[name]) for name in names])
    rows = np.arange(len(files), dtype=np.int64)
    return RawAnnotations(
        source=source,
        classes=ClassMap(tuple(names), tuple(range(1, len(names) + 1))),
        file_names=byte_array(files),
        annotation_files=byte_array(files),
        image_ids=rows,
        sizes=np.zeros((len(files), 2), dtype=np.int32),
        image_rows=rows,
        box_image_ids=rows,
        boxes=np.tile([0.0, 0.0, 1.0, 1.0], (len(files), 1)),
        labels=labels.astype(np.int64),
        box_category_ids=labels,
        ignore=np.zeros(len(files), dtype=np.bool_),
        areas=np.full(len(files), np.nan),
        annotation_ids=rows,
        convention="xyxy_normalised",
        file_per_image=True,
        notes=tuple(
            Finding(
                "class-empty", "warning", str(source.annotations / name), None, "no image in it", "no class"
            )
            for name, images in folders.items()
            if not images
        ),
    )


def watched(source: SplitSource) -> list[Path]:
    """The folders whose change makes a cached copy stale."""
    return [source.annotations, *_folders(source.annotations)]


def _folders(split: Path) -> list[Path]:
    return sorted(path for path in split.iterdir() if path.is_dir()) if split.is_dir() else []


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES))


def _has_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in entries)
