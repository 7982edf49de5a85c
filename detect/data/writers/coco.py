"""COCO folders: `annotations/instances_SPLIT.json` and `SPLIT/`. Polygons are neither read nor written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
        with (folder / "annotations" / f"instances_{split}.json").open("w", encoding="utf-8") as file:
            _write_list(file.write, '{"images": [', _images(content, names))
            _write_list(file.write, '],\n"annotations": [', _annotations(content))
            _write_list(file.write, '],\n"categories": [', _categories(content.classes))
            file.write("]}\n")
        places[split] = [f"{split}/{name}" for name in names]
    return places


def _write_list(write: Callable[[str], object], head: str, records: Iterator[dict[str, Any]]) -> None:
    """One record a line, so that a person can read and search; never all in memory."""
    write(head)
    comma = "\n"
    for record in records:
        write(comma + json.dumps(record, ensure_ascii=False))
        comma = ",\n"


def _images(annotations: Annotations, names: list[str]) -> Iterator[dict[str, Any]]:
    ids = _whole_ids(annotations.image_ids)
    for image_id, name, (height, width) in zip(ids, names, annotations.sizes.tolist(), strict=True):
        yield {"id": image_id, "file_name": name, "width": width, "height": height}


def _annotations(annotations: Annotations) -> Iterator[dict[str, Any]]:
    image_ids = np.repeat(_whole_ids(annotations.image_ids), np.diff(annotations.offsets))
    category_ids = _category_ids(annotations.classes)
    for annotation_id, image_id, label, box, ignore, area in zip(
        _whole_ids(annotations.annotation_ids),
        image_ids.tolist(),
        annotations.labels.tolist(),
        annotations.boxes.tolist(),
        annotations.ignore.tolist(),
        annotations.areas.tolist(),
        strict=True,
    ):
        x0, y0, x1, y1 = box
        yield {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": category_ids[label - 1],
            "bbox": [short(x0), short(y0), short(x1 - x0), short(y1 - y0)],
            "area": short(area),
            "iscrowd": int(ignore),
        }


def _categories(classes: ClassMap) -> Iterator[dict[str, Any]]:
    for category_id, name in zip(_category_ids(classes), classes.names, strict=True):
        yield {"id": category_id, "name": name}


def _category_ids(classes: ClassMap) -> list[int]:
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
