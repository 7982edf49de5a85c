"""What a run was scored on and what it detected, kept beside its metrics as two COCO files.

RUN/ground_truth.json and RUN/detections.json go together wherever the run is copied: the report, the
comparison and `detect evaluate` need neither the model nor the data set. Only the images stay where they are.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from detect.data.annotations import Annotations
from detect.data.writers.coco import image_entry
from detect.evaluation.backends import DetectionRows, GroundTruthRows, ground_truth_rows
from detect.evaluation.evaluator import CocoEvaluator
from detect.evaluation.results_file import read_detections, read_ground_truth
from detect.system.files import write_atomically

GROUND_TRUTH_FILE = "ground_truth.json"
DETECTIONS_FILE = "detections.json"


class Scored(NamedTuple):
    """A split and what a run detected on it."""

    annotations: Annotations
    ground_truth: GroundTruthRows
    detections: DetectionRows


def write_scored(folder: Path, evaluator: CocoEvaluator) -> None:
    """Write both files of a run; `evaluator` has gathered the detections of every image."""
    truth = coco_content(evaluator.annotations)
    write_atomically(folder / GROUND_TRUTH_FILE, json.dumps(truth, separators=(",", ":")))
    results = evaluator.results()
    write_atomically(folder / DETECTIONS_FILE, json.dumps(results, separators=(",", ":")))


def read_scored(folder: Path) -> Scored | None:
    """Both files of a run; None where one is missing.

    Raises:
        InputError: a file is broken; see `evaluate.read_ground_truth` and `read_detections`.
    """
    truth_file, detections_file = folder / GROUND_TRUTH_FILE, folder / DETECTIONS_FILE
    if not truth_file.is_file() or not detections_file.is_file():
        return None
    annotations = read_ground_truth(truth_file)
    root = json.loads(truth_file.read_bytes()).get("info", {}).get("image_root", folder)
    annotations = replace(annotations, root=Path(root))
    return Scored(annotations, ground_truth_rows(annotations), read_detections(detections_file, annotations))


def coco_content(annotations: Annotations) -> dict[str, Any]:
    """A split as a COCO file says it, with the data set's ids of images and categories.

    Crowd and difficult boxes are `iscrowd`, as they are scored; boxes are numbered from 1 and not rounded, as
    a data set's are in a copy: the same metrics come out of the file.
    """
    rows = ground_truth_rows(annotations)
    image_ids = [annotations.image_id(row) for row in range(len(annotations))]
    names = [name.decode() for name in annotations.file_names]
    columns = (column.tolist() for column in rows)
    return {
        "info": {"image_root": str(annotations.root.absolute()), "source": str(annotations.source)},
        "images": list(map(image_entry, image_ids, names, annotations.sizes.tolist())),
        "annotations": [
            {
                "id": number,
                "image_id": image_ids[row],
                "category_id": annotations.classes.category_id(label),
                "bbox": box_xywh,
                "area": area,
                "iscrowd": int(ignore),
            }
            for number, (row, label, box_xywh, area, ignore) in enumerate(zip(*columns, strict=True), 1)
        ],
        "categories": [
            {"id": entry["category_id"], "name": entry["name"]} for entry in annotations.classes.to_list()
        ],
    }
