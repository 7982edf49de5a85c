"""YOLO folders: `data.yaml`, `images/SPLIT/`, `labels/SPLIT/`, and our own `crowds/SPLIT/`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.data.checks.conventions import from_corners
from detect.data.readers.yolo import CROWDS, IMAGES, LABELS
from detect.data.writers import FileNames, require_plain_names
from detect.types import ClassMap

USUAL_NAMES = {"train2017": "train", "val2017": "val", "valid": "val", "test2017": "test"}
"""Other programs look for train, val and test."""
HEADER = "# Classes and splits for detect and other programs that read YOLO folders.\n"


def split_names(splits: list[str]) -> dict[str, str]:
    """The usual names, where no other split has them."""
    return {
        split: split if USUAL_NAMES.get(split, split) in splits else USUAL_NAMES.get(split, split)
        for split in splits
    }


def write(folder: Path, splits: dict[str, Annotations]) -> dict[str, list[str]]:
    """One label file per image, empty where it has no boxes; an image of several splits is in each of them.

    Raises:
        InputError: a class name cannot be written.
    """
    lines = [f"{split}: {IMAGES}/{split}\n" for split in splits]
    classes = next(iter(splits.values())).classes
    require_plain_names(classes.names, "YOLO")
    (folder / "data.yaml").write_text(HEADER + "".join(lines) + class_lines(classes), encoding="utf-8")
    places = {}
    for split, content in splits.items():
        (folder / LABELS / split).mkdir(parents=True)
        names = FileNames().of_split(content)
        for row, name in enumerate(names):
            _write_labels(folder, content, row, Path(split, name).with_suffix(".txt"))
        places[split] = [f"{IMAGES}/{split}/{name}" for name in names]
    return places


def class_lines(classes: ClassMap) -> str:
    """The part of data.yaml that names the classes."""
    # A JSON string is a YAML string in double quotes.
    names = (json.dumps(name, ensure_ascii=False) for name in classes.names)
    return "names:\n" + "".join(f"  {i}: {name}\n" for i, name in enumerate(names))


def _write_labels(folder: Path, annotations: Annotations, row: int, name: Path) -> None:
    rows, size = annotations.rows(row), annotations.sizes[row].tolist()
    boxes, labels, ignore = annotations.boxes[rows], annotations.labels[rows], annotations.ignore[rows]
    (folder / LABELS / name).write_text(label_lines(labels[~ignore], boxes[~ignore], size), encoding="utf-8")
    if ignore.any():
        (folder / CROWDS / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / CROWDS / name).write_text(
            label_lines(labels[ignore], boxes[ignore], size), encoding="utf-8"
        )


def label_lines(labels: NDArray[np.int64], boxes: NDArray[np.float64], size: Sequence[int]) -> str:
    """One line per box: class counted from 0, centre and size as fractions of the image.

    12 digits are a billionth of a pixel.

    Args:
        labels: (G,) 1..K.
        boxes: (G, 4) xyxy px.
        size: (H, W) of the image in px.
    """
    height, width = size
    fractions = from_corners(boxes / (width, height, width, height), "cxcywh")
    return "".join(
        f"{label - 1} {cx:.12g} {cy:.12g} {w:.12g} {h:.12g}\n"
        for label, (cx, cy, w, h) in zip(labels.tolist(), fractions.tolist(), strict=True)
    )
