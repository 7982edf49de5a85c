"""`detect evaluate`: COCO metrics of a results file; no model is involved."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from detect.data.annotations import Annotations
from detect.data.readers import RawAnnotations, SplitSource, byte_array, coco, find_rows, id_array
from detect.errors import InputError
from detect.evaluation.backends import Backend, DetectionRows, select
from detect.evaluation.baseline import with_baseline
from detect.evaluation.diagnostics import NEAR_ZERO_MAP, explain_zero_map
from detect.evaluation.evaluator import compute_metrics
from detect.evaluation.metrics_table import metrics_table
from detect.system.files import require_writable, write_atomically
from detect.system.garbage import collection_paused

RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
SHOWN = 5
"""Examples in a message."""
logger = logging.getLogger(__name__)


def evaluate(
    annotations: Path, detections: Path, *, backend: Backend = "faster", json_file: Path | None = None
) -> int:
    """Print the metrics of a results file, and write them as JSON where asked for.

    Raises:
        InputError: see `read_ground_truth` and `read_detections`; or there is no folder for `json_file`.
    """
    require_writable(json_file)
    ground_truth = read_ground_truth(annotations)
    rows = read_detections(detections, ground_truth)
    metrics = with_baseline(compute_metrics(ground_truth, rows, backend=backend), ground_truth)
    console = Console()
    console.print(metrics_table(metrics))
    if 0 <= metrics.mAP < NEAR_ZERO_MAP:
        for check in explain_zero_map(ground_truth, rows):
            console.print(str(check), highlight=False, markup=False, soft_wrap=True)
    if json_file is not None:
        write_atomically(json_file, json.dumps(metrics.to_json(), indent=2))
    return 0


def read_ground_truth(path: Path) -> Annotations:
    """The boxes of a COCO file exactly as it has them: none clipped, none without area left out.

    Boxes of images or categories that the file does not list are left out with a warning: pycocotools never
    sees them either.

    Raises:
        InputError: not a COCO file, no images in it, or a box that is not four finite numbers.
    """
    raw = coco.read(SplitSource(path, path.parent))
    if len(raw.file_names) == 0:
        raise InputError(f"{path} lists no images")
    bad = np.flatnonzero(~np.isfinite(raw.boxes).all(axis=1))
    if bad.size:
        raise InputError(
            f"{path}: the bbox of annotation {_plain(raw.annotation_ids[bad[0]])!r} is not four finite "
            f"numbers ({bad.size} such boxes); correct or remove them"
        )
    listed = (raw.image_rows >= 0) & (raw.labels > 0)
    if not listed.all():
        logger.warning(
            "%s: %d of %d boxes name an image or category that the file does not list; left out",
            path,
            (~listed).sum(),
            len(listed),
        )
    return _as_annotations(raw, np.flatnonzero(listed))


def _as_annotations(raw: RawAnnotations, box_rows: NDArray[np.int64]) -> Annotations:
    """The boxes at `box_rows`, those of each image together and in the file's order."""
    box_rows = box_rows[np.argsort(raw.image_rows[box_rows], kind="stable")]
    boxes, areas = raw.boxes[box_rows], raw.areas[box_rows]
    box_areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return Annotations(
        root=raw.source.images,
        source=raw.source.annotations,
        classes=raw.classes,
        file_names=raw.file_names,
        image_ids=raw.image_ids,
        sizes=raw.sizes,
        offsets=np.searchsorted(raw.image_rows[box_rows], np.arange(len(raw.file_names) + 1)),
        boxes=boxes,
        labels=raw.labels[box_rows],
        ignore=raw.ignore[box_rows],
        areas=np.where(np.isnan(areas), box_areas, areas),
        annotation_ids=raw.annotation_ids[box_rows],
    )


def read_detections(path: Path, annotations: Annotations) -> DetectionRows:
    """A file in COCO's results format as rows of `annotations`.

    `image_id` is the data set's id, or the name of the image file as `detect predict` writes it.
    Detections whose score or box is NaN or infinite are left out with a warning.

    Raises:
        InputError: not a list of results; an entry lacks a key or has a bbox that is not four numbers or a
            score that is not one; an image or category that `annotations` does not have. Names the entry.
    """
    columns = _read_columns(path)
    boxes_xywh = _as_numbers(path, "bbox", columns["bbox"], (4,))
    scores = _as_numbers(path, "score", columns["score"], ())
    rows = DetectionRows(
        _image_rows(path, columns["image_id"], annotations),
        _labels(path, columns["category_id"], annotations),
        boxes_xywh,
        scores,
    )
    finite = np.isfinite(boxes_xywh).all(axis=1) & np.isfinite(scores)
    if not finite.all():
        logger.warning(
            "%s: %d of %d detections have a NaN or infinity in score or bbox; left out",
            path,
            (~finite).sum(),
            len(finite),
        )
    return select(rows, finite)


def _read_columns(path: Path) -> dict[str, list[Any]]:
    with collection_paused():
        try:
            entries = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"cannot read {path} as JSON: {error}") from error
        if not isinstance(entries, list):
            raise InputError(
                f"{path} holds a {type(entries).__name__}, expected a list of results, each with "
                f"{', '.join(RESULT_KEYS)}; an object with images and annotations is ground truth"
            )
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not all(key in entry for key in RESULT_KEYS):
                raise InputError(
                    f"{path}: result {number} (counted from 0) is {str(entry)[:200]}; "
                    f"expected an object with {', '.join(RESULT_KEYS)}"
                )
        return {key: [entry[key] for entry in entries] for key in RESULT_KEYS}


def _as_numbers(path: Path, key: str, values: list[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(N, *shape) float64."""
    expected = "four numbers: left, top, width, height in px" if shape else "one number"
    if not values:
        return np.zeros((0, *shape))
    try:
        return _number_array(values, shape)
    except ValueError:
        number = next(i for i, value in enumerate(values) if not _is_number_array(value, shape))
        raise InputError(
            f"{path}: {key} of result {number} (counted from 0) is {values[number]!r}; expected {expected}"
        ) from None


def _number_array(values: list[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.array(values)
    if array.shape[1:] != shape or array.dtype.kind not in "iuf":
        raise ValueError(f"{array.dtype} array of shape {array.shape}")
    return array.astype(np.float64)


def _is_number_array(value: Any, shape: tuple[int, ...]) -> bool:
    try:
        _number_array([value], shape)
    except ValueError:
        return False
    return True


def _image_rows(path: Path, image_ids: list[Any], annotations: Annotations) -> NDArray[np.int64]:
    rows = find_rows(id_array(image_ids), annotations.image_ids)
    names = byte_array([Path(name.decode()).name for name in annotations.file_names])
    if len(np.unique(names)) == len(names):
        by_name = find_rows(byte_array([str(image_id) for image_id in image_ids]), names)
        rows = np.where(rows < 0, by_name, rows)
    if (rows < 0).any():
        known = [annotations.image_id(row) for row in range(min(SHOWN, len(annotations)))]
        raise InputError(
            f"{path}: {_unknown('image_id', image_ids, rows < 0)}; {annotations.source} has "
            f"{len(annotations)} images with ids like {_listed(known)}. Do both belong to the same split?"
        )
    return rows


def _labels(path: Path, category_ids: list[Any], annotations: Annotations) -> NDArray[np.int64]:
    classes = annotations.classes
    labels = find_rows(id_array(category_ids), id_array(list(classes.category_ids))) + 1
    if (labels == 0).any():
        raise InputError(
            f"{path}: {_unknown('category_id', category_ids, labels == 0)}; {annotations.source} has "
            f"{_listed(list(classes.category_ids))}. Results carry the data set's category ids, not labels"
        )
    return labels


def _unknown(key: str, values: list[Any], unknown: NDArray[np.bool_]) -> str:
    wrong = list({repr(values[row]): values[row] for row in np.flatnonzero(unknown)}.values())
    return f"{unknown.sum()} of {len(values)} results have an unknown {key}: {_listed(wrong)}"


def _listed(values: list[Any], most: int = SHOWN) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(repr(value) for value in values[:most]) + more


def _plain(value: np.generic) -> int | str:
    return value.decode() if isinstance(value, bytes) else int(value)
