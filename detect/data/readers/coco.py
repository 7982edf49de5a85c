"""COCO folders: `annotations/instances_SPLIT.json` with `SPLIT/`, or `SPLIT/_annotations.coco.json`.

Boxes are xywh in the file and xyxy from here on. Polygons serve only where an annotation has no box.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detect.data.checks.conventions import to_corners
from detect.data.readers import (
    MB,
    RawAnnotations,
    SplitSource,
    byte_array,
    find_rows,
    id_array,
    plain_text,
    read_bytes_of_file,
)
from detect.errors import InputError
from detect.system.garbage import collection_paused
from detect.types import ClassMap

NAME = "coco"
LAYOUT = "annotations/instances_SPLIT.json with SPLIT/, or SPLIT/_annotations.coco.json"
PREFIX = "instances_"
ROBOFLOW_FILE = "_annotations.coco.json"
MEMORY_PER_BYTE = 7
"""Bytes of memory that reading a byte of JSON takes at most; measured, see docs/data.md."""


def recognises(root: Path) -> bool:
    """Whether `root` holds at least one COCO split."""
    return bool(find_splits(root))


def find_splits(root: Path) -> list[str]:
    """The splits in `root`, sorted."""
    official = {path.stem.removeprefix(PREFIX) for path in (root / "annotations").glob(f"{PREFIX}*.json")}
    roboflow = {path.parent.name for path in root.glob(f"*/{ROBOFLOW_FILE}")}
    return sorted(official | roboflow)


def locate(root: Path, split: str) -> SplitSource:
    """The JSON and the image folder of `split`: `SPLIT/`, else `images/SPLIT/`, else `images/`."""
    official = root / "annotations" / f"{PREFIX}{split}.json"
    if not official.is_file():
        return SplitSource(root / split / ROBOFLOW_FILE, root / split)
    folders = [root / split, root / "images" / split, root / "images"]
    return SplitSource(official, next((folder for folder in folders if folder.is_dir()), folders[0]))


def watched(source: SplitSource) -> list[Path]:
    """The JSON alone."""
    return [source.annotations]


def read(source: SplitSource) -> RawAnnotations:
    """Parse one JSON file.

    Raises:
        InputError: not JSON, not an object, or without images, annotations or categories.
    """
    with collection_paused():
        content = parse(source.annotations)
        classes = _class_map(content["categories"], source.annotations)
        images, annotations = content["images"], content["annotations"]
        image_ids = _ids(images, "id", source.annotations)
        box_image_ids = _ids(annotations, "image_id", source.annotations)
        box_category_ids = _ids(annotations, "category_id", source.annotations)
        areas = _numbers(annotations, "area")
        convention = source.convention or "xywh"
        return RawAnnotations(
            source=source,
            classes=classes,
            file_names=byte_array([image.get("file_name", "") for image in images]),
            annotation_files=byte_array([str(source.annotations)]),
            image_ids=image_ids,
            sizes=_sizes(images),
            image_rows=find_rows(box_image_ids, image_ids),
            box_image_ids=box_image_ids,
            boxes=to_corners(_bboxes(annotations), convention),
            labels=find_rows(box_category_ids, id_array(list(classes.category_ids))) + 1,
            box_category_ids=box_category_ids,
            ignore=np.array([entry.get("iscrowd", 0) == 1 for entry in annotations], dtype=np.bool_),
            areas=areas,
            annotation_ids=id_array([annotation.get("id", -1) for annotation in annotations]),
            convention=convention,
            missing_fields=(
                ("area", int(np.isnan(areas).sum())),
                ("iscrowd", sum("iscrowd" not in annotation for annotation in annotations)),
                ("bbox", sum(annotation.get(FROM_POLYGON) is True for annotation in annotations)),
            ),
        )


def parse(path: Path) -> dict[str, Any]:
    """The content of a COCO file; its lists hold objects, and nothing else of it is known.

    Polygons are dropped one by one as they are read, which takes half the memory.

    Raises:
        InputError: not JSON, not an object, or without images, annotations or categories.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    data = read_bytes_of_file(path, limit_mb=memory / MEMORY_PER_BYTE / MB)
    try:
        content = json.loads(data, object_hook=_without_polygons)
    except RecursionError:
        raise InputError(f"cannot read {path} as JSON: it is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"cannot read {path} as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, expected an object with images, annotations "
            "and categories; a list is COCO's format of results, not of ground truth"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            found = ", ".join(plain_text(name) for name in list(content)[:20])
            raise InputError(f"{path} has no list {key!r}; it has {found or 'nothing'}")
        for place, entry in enumerate(content[key]):
            if not isinstance(entry, dict):
                raise InputError(f"{path}: {key}[{place}] is a {type(entry).__name__}, expected an object")
    return content


FROM_POLYGON = "bbox_from_polygon"
"""Marks an annotation without a box that got one from its polygons."""


def _without_polygons(entry: dict[str, Any]) -> dict[str, Any]:
    polygons = entry.pop("segmentation", None)
    if polygons and "bbox" not in entry and "category_id" in entry:
        box = _extent(polygons)
        if box is not None:
            entry["bbox"], entry[FROM_POLYGON] = box, True
    return entry


def _extent(polygons: object) -> list[float] | None:
    """The box around the polygons [[x, y, x, y, ...], ...] as xywh, None where they are not such."""
    if not isinstance(polygons, list) or not all(isinstance(part, list) for part in polygons):
        return None
    try:
        points = np.array([value for part in polygons for value in part], dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        return None
    if not len(points):
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def _class_map(categories: list[dict[str, Any]], path: Path) -> ClassMap:
    """Classes in the order of their ids, so that the order of the file changes nothing."""
    for category in categories:
        if "id" not in category or "name" not in category:
            raise InputError(f"{path}: a category needs an id and a name; this has {_describe(category)}")
    numeric = all(type(category["id"]) is int for category in categories)
    ordered = sorted(
        categories, key=lambda category: category["id"] if numeric else plain_text(category["id"])
    )
    ids = [category["id"] if numeric else plain_text(category["id"]) for category in ordered]
    try:
        return ClassMap(tuple(plain_text(category["name"]) for category in ordered), tuple(ids))
    except InputError as error:
        raise InputError(f"{path}, categories: {error}") from error


def _ids(entries: list[dict[str, Any]], key: str, path: Path) -> NDArray[np.generic]:
    try:
        return id_array([entry[key] for entry in entries])
    except KeyError:
        place = next(place for place, entry in enumerate(entries) if key not in entry)
        raise InputError(
            f"{path}: entry {place} has no {key!r}; it has {_describe(entries[place])}"
        ) from None


def _describe(entry: dict[str, Any]) -> str:
    return ", ".join(f"{plain_text(key)} {plain_text(value)}" for key, value in entry.items()) or "nothing"


def _numbers(entries: list[dict[str, Any]], key: str) -> NDArray[np.float64]:
    """(len(entries),) float64; NaN where `key` is missing or holds no number."""
    return np.array([_number(entry.get(key)) for entry in entries], dtype=np.float64)


def _number(value: object) -> float:
    """The number, NaN for what is none; JSON may hold whole numbers that no float reaches."""
    if not isinstance(value, int | float):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _sizes(images: list[dict[str, Any]]) -> NDArray[np.int32]:
    """(N, 2) height and width; 0 where they are missing."""
    size = np.stack([_numbers(images, "height"), _numbers(images, "width")], axis=1)
    return np.clip(np.nan_to_num(size), 0, np.iinfo(np.int32).max).astype(np.int32)


def _bboxes(annotations: list[dict[str, Any]]) -> NDArray[np.float64]:
    """(M, 4) as written; NaN where `bbox` is missing or is not four numbers."""
    unknown = [float("nan")] * 4
    rows = [annotation.get("bbox", unknown) for annotation in annotations]
    try:
        return np.array(rows, dtype=np.float64).reshape(len(rows), 4)
    except (TypeError, ValueError, OverflowError):
        numbers = [[_number(v) for v in row] if _is_box(row) else unknown for row in rows]
        return np.array(numbers, dtype=np.float64).reshape(len(rows), 4)


def _is_box(row: object) -> bool:
    return isinstance(row, list) and len(row) == 4
