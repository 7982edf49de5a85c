"""COCO folders: `annotations/instances_SPLIT.json` and `SPLIT/`. Polygons are neither read nor written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.data.writers import FileNames, short
from detect.types import ClassMap


def split_names(splits: list[str]) -> dict[str, str]:
    """Any name will do."""
    return {split: split for split in splits}


def write(folder: Path, splits: dict[str, Annotations]) -> dict[str, list[str]]:
    """A JSON file for each split; ids that are whole numbers stay, others are counted from 1."""
    (folder / "annotations").mkdir()
    places = {}
    for split, content in splits.items():
        names = FileNames().of_split(content)
        with (folder / "annotations" / f"instances_{split}.json").open("wb") as file:
            file.write(b'{"images": ')
            JsonRows(file).write_all(_images(content, names))
            file.write(b',\n"annotations": ')
            JsonRows(file).write_all(_annotations(content))
            file.write(b',\n"categories": ')
            JsonRows(file).write_all(category_entries(content.classes))
            file.write(b"}\n")
        places[split] = [f"{split}/{name}" for name in names]
    return places


class JsonRows:
    """A JSON list with one row per line, written as rows come: never all in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.count = 0
        file.write(b"[")

    def write(self, row: dict[str, Any]) -> None:
        """Add a row to the list."""
        separator = ",\n" if self.count else "\n"
        self.file.write((separator + json.dumps(row, ensure_ascii=False)).encode())
        self.count += 1

    def end(self) -> None:
        """Close the list."""
        self.file.write(b"]")

    def write_all(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add `rows`, the only or the last ones, and close the list."""
        for row in rows:
            self.write(row)
        self.end()


def image_entry(image_id: int | str, name: str, size: Sequence[int]) -> dict[str, Any]:
    """What COCO says about an image of `size` (H, W) in px."""
    height, width = size
    return {"id": image_id, "file_name": name, "width": width, "height": height}


def annotation_entry(
    annotation_id: int,
    image_id: int,
    category_id: int,
    box: Sequence[float],
    *,
    area: float | None = None,
    crowd: bool = False,
) -> dict[str, Any]:
    """What COCO says about a `box` (xyxy px); without an `area` (px^2) it has that of the box."""
    x0, y0, x1, y1 = box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [short(x0), short(y0), short(x1 - x0), short(y1 - y0)],
        "area": short((x1 - x0) * (y1 - y0) if area is None else area),
        "iscrowd": int(crowd),
    }


def category_entries(classes: ClassMap) -> list[dict[str, Any]]:
    """What COCO says about classes."""
    ids = category_ids(classes)
    return [{"id": id_, "name": name} for id_, name in zip(ids, classes.names, strict=True)]


def _images(annotations: Annotations, names: list[str]) -> Iterator[dict[str, Any]]:
    ids = _whole_ids(annotations.image_ids)
    return map(image_entry, ids, names, annotations.sizes.tolist())


def _annotations(annotations: Annotations) -> Iterator[dict[str, Any]]:
    image_ids = np.repeat(_whole_ids(annotations.image_ids), np.diff(annotations.offsets))
    categories = category_ids(annotations.classes)
    for annotation_id, image_id, label, box, crowd, area in zip(
        _whole_ids(annotations.annotation_ids),
        image_ids.tolist(),
        annotations.labels.tolist(),
        annotations.boxes.tolist(),
        annotations.ignore.tolist(),
        annotations.areas.tolist(),
        strict=True,
    ):
        yield annotation_entry(annotation_id, image_id, categories[label - 1], box, area=area, crowd=crowd)


def category_ids(classes: ClassMap) -> list[int]:
    """The data set's own where they are whole numbers, else 1..K."""
    if all(isinstance(category_id, int) for category_id in classes.category_ids):
        return [int(category_id) for category_id in classes.category_ids]
    return list(range(1, classes.num_classes + 1))


def _whole_ids(ids: NDArray[np.generic]) -> list[int]:
    """The data set's own where they are different numbers from 1 on, else 1, 2, ...: tools fail at id 0."""
    values: list[int] = ids.tolist() if ids.dtype.kind == "i" else []
    if len(set(values)) == len(ids) and min(values, default=1) > 0:
        return values
    return list(range(1, len(ids) + 1))
