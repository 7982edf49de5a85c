"""COCO folders: `annotations/instances_SPLIT.json` with `SPLIT/`, or `SPLIT/_annotations.coco.json`.

Boxes are xywh in the file and xyxy from here on. Polygons serve only where an annotation has no box.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detect.data.checks.conventions import to_corners
from detect.data.checks.findings import Finding
from detect.data.readers import (
    MB,
    UNDIVIDED,
    RawAnnotations,
    SplitSource,
    byte_array,
    find_rows,
    id_array,
    plain_text,
    read_bytes_of_file,
)
from detect.data.readers.tails import SPLIT_FOLDERS, FoundImages, Tails
from detect.errors import InputError
from detect.system.garbage import collection_paused
from detect.types import ClassMap

NAME = "coco"
LAYOUT = (
    "annotations/instances_SPLIT.json with SPLIT/, SPLIT/_annotations.coco.json, or a JSON with COCO's lists"
)
PREFIX = "instances_"
ROBOFLOW_FILE = "_annotations.coco.json"
MEMORY_PER_BYTE = 7
"""Bytes of memory that reading a byte of JSON takes at most; measured, see docs/data.md."""


def recognises(root: Path) -> bool:
    """Whether `root` holds at least one COCO split in a usual place."""
    return bool(_usual_files(root))


def recognises_loosely(root: Path) -> bool:
    """Whether a JSON of any name has COCO's lists."""
    return bool(_other_files(root))


def find_splits(root: Path) -> list[str]:
    """The splits in `root`, sorted."""
    return sorted(_usual_files(root) or _other_files(root))


def locate(root: Path, split: str) -> SplitSource:
    """The JSON and the image folder of `split`: `SPLIT/`, `images/SPLIT/`, `images/`, or that of the JSON."""
    files = _usual_files(root) or _other_files(root)
    file = files.get(split, root / split / ROBOFLOW_FILE)
    if file.name == ROBOFLOW_FILE:
        return SplitSource(file, file.parent, root=root)
    folders = [root / split, root / "images" / split]
    if file.parent.name == "annotations":
        folders.append(root / "images")
        instead = folders[0]
    else:  # Label Studio's names are images/NAME, from the folder of the file
        instead = file.parent
    return SplitSource(file, next((folder for folder in folders if folder.is_dir()), instead), root=root)


def _usual_files(root: Path) -> dict[str, Path]:
    roboflow = {path.parent.name: path for path in root.glob(f"*/{ROBOFLOW_FILE}")}
    official = {
        path.stem.removeprefix(PREFIX): path for path in (root / "annotations").glob(f"{PREFIX}*.json")
    }
    return roboflow | official


def _other_files(root: Path) -> dict[str, Path]:
    """The JSON files with COCO's lists in `root` and one folder below, by the split that their path names."""
    files = [path for pattern in ("*.json", "*/*.json") for path in sorted(root.glob(pattern))]
    found: dict[str, Path] = {}
    for path in files:
        if has_lists(path):
            words = [*re.split(r"[^a-z0-9]+", path.stem.lower()), path.parent.name.lower()]
            name = next((word for word in words if word in SPLIT_FOLDERS), UNDIVIDED)
            found[path.stem if name in found else name] = path
    return found


def has_lists(path: Path) -> bool:
    """Whether a file names COCO's three lists anywhere; it is searched, not parsed."""
    try:
        if not path.is_file() or not os.path.getsize(path):
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return all(text.find(key) >= 0 for key in (b'"images"', b'"annotations"', b'"categories"'))
    except (OSError, ValueError):
        return False


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
        images, annotations = content["images"], content["annotations"]
        categories, notes = without_super_category(content["categories"], annotations, source.annotations)
        classes = _class_map(categories, source.annotations)
        found = FoundImages(source.images, Tails(source.root or source.images))
        folder, names = found.find_all([plain_text(image.get("file_name", "")) for image in images])
        image_ids = _ids(images, "id", source.annotations)
        box_image_ids = _ids(annotations, "image_id", source.annotations)
        box_category_ids = _ids(annotations, "category_id", source.annotations)
        areas = _numbers(annotations, "area")
        convention = source.convention or "xywh"
        return RawAnnotations(
            source=source._replace(images=folder),
            classes=classes,
            file_names=byte_array(names),
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
            notes=(*notes, *found.notes(source.annotations)),
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


def without_super_category(
    categories: list[dict[str, Any]], annotations: list[dict[str, Any]], path: Path
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The categories without the one that Roboflow puts above them: others name it, and no box has it."""
    named = {
        plain_text(category.get("supercategory", ""))
        for category in categories
        if category.get("supercategory") != category.get("name")
    }
    used = {plain_text(annotation.get("category_id")) for annotation in annotations}
    kept, notes = [], []
    for category in categories:
        if plain_text(category.get("name")) in named and plain_text(category.get("id")) not in used:
            detail = f"category {_describe(category)} is the supercategory of others and has no box"
            notes.append(
                Finding("super-category", "note", str(path), None, detail, "left out of the classes")
            )
        else:
            kept.append(category)
    return kept, notes


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
