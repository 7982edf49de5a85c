"""COCO folders: `annotations/instances_SPLIT.json` with `SPLIT/`, or `SPLIT/_annotations.coco.json`.

Boxes are xywh in the file and xyxy from here on. Segmentations are never looked at.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detect.data.labels import ClassMap
from detect.data.readers import RawAnnotations, SplitSource, byte_array, find_rows, id_array
from detect.errors import InputError

NAME = "coco"
LAYOUT = "annotations/instances_SPLIT.json with SPLIT/, or SPLIT/_annotations.coco.json"
PREFIX = "instances_"
ROBOFLOW_FILE = "_annotations.coco.json"


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
    with _garbage_collection_paused():
        content = _parse(source.annotations)
        classes = _class_map(content["categories"], source.annotations)
        images, annotations = content["images"], content["annotations"]
        image_ids = _ids(images, "id", source.annotations)
        box_image_ids = _ids(annotations, "image_id", source.annotations)
        box_category_ids = _ids(annotations, "category_id", source.annotations)
        areas = _numbers(annotations, "area")
        return RawAnnotations(
            source=source,
            classes=classes,
            file_names=byte_array([str(image.get("file_name", "")) for image in images]),
            annotation_files=byte_array([str(source.annotations)]),
            image_ids=image_ids,
            sizes=_sizes(images),
            image_rows=find_rows(box_image_ids, image_ids),
            box_image_ids=box_image_ids,
            boxes=_boxes(annotations),
            labels=find_rows(box_category_ids, id_array(list(classes.category_ids))) + 1,
            box_category_ids=box_category_ids,
            ignore=np.array([entry.get("iscrowd", 0) == 1 for entry in annotations], dtype=np.bool_),
            areas=areas,
            annotation_ids=id_array([annotation.get("id", -1) for annotation in annotations]),
            missing_fields=(
                ("area", int(np.isnan(areas).sum())),
                ("iscrowd", sum("iscrowd" not in annotation for annotation in annotations)),
            ),
        )


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Millions of small objects are made and none is garbage: looking for it doubles the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, expected an object with images, annotations "
            "and categories; a list is COCO's format of results, not of ground truth"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise InputError(f"{path} has no list {key!r}; it has {', '.join(content) or 'nothing'}")
    return content


def _class_map(categories: list[dict[str, Any]], path: Path) -> ClassMap:
    """Classes in the order of their ids, so that the order of the file changes nothing."""
    for category in categories:
        if "id" not in category or "name" not in category:
            raise InputError(f"{path}: category {category} needs an id and a name")
    numeric = all(type(category["id"]) is int for category in categories)
    ordered = sorted(categories, key=lambda category: category["id"] if numeric else str(category["id"]))
    ids = [category["id"] if numeric else str(category["id"]) for category in ordered]
    try:
        return ClassMap(tuple(str(category["name"]) for category in ordered), tuple(ids))
    except InputError as error:
        raise InputError(f"{path}, categories: {error}") from error


def _ids(entries: list[dict[str, Any]], key: str, path: Path) -> NDArray[np.generic]:
    try:
        return id_array([entry[key] for entry in entries])
    except KeyError:
        entry = next(entry for entry in entries if key not in entry)
        known = {name: value for name, value in entry.items() if name != "segmentation"}
        raise InputError(f"{path}: an entry has no {key!r}: {known}") from None


def _numbers(entries: list[dict[str, Any]], key: str) -> NDArray[np.float64]:
    """(len(entries),) float64; NaN where `key` is missing or holds no number."""
    nan = float("nan")
    values = [entry.get(key, nan) for entry in entries]
    return np.array([v if isinstance(v, int | float) else nan for v in values], dtype=np.float64)


def _sizes(images: list[dict[str, Any]]) -> NDArray[np.int32]:
    size = np.stack([_numbers(images, "height"), _numbers(images, "width")], axis=1)
    return np.nan_to_num(size, nan=0, posinf=0, neginf=0).astype(np.int32)


def _boxes(annotations: list[dict[str, Any]]) -> NDArray[np.float64]:
    """(M, 4) xyxy; NaN where `bbox` is missing or is not four numbers."""
    unknown = [float("nan")] * 4
    rows = [annotation.get("bbox", unknown) for annotation in annotations]
    try:
        boxes = np.array(rows, dtype=np.float64).reshape(len(rows), 4)
    except (TypeError, ValueError):
        boxes = np.array([row if _is_box(row) else unknown for row in rows], dtype=np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _is_box(row: object) -> bool:
    return isinstance(row, list) and len(row) == 4 and all(isinstance(value, int | float) for value in row)
