"""Ground truth and results as plain COCO dicts, and what pycocotools itself says of them."""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.data.annotations import Annotations
from detect.types import ClassMap, Detections

NUMBERS = ("mAP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def coco_dict(
    boxes: list[tuple[int | str, int, list[float]]],
    *,
    image_ids: list[Any],
    category_ids: tuple[int, ...] = (1,),
    crowd: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Ground truth of (image_id, category_id, xywh); `crowd` holds positions in `boxes`."""
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 480, "width": 640} for i in image_ids],
        "categories": [{"id": c, "name": f"class {c}"} for c in category_ids],
        "annotations": [
            {
                "id": number + 1,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": box_xywh,
                "area": box_xywh[2] * box_xywh[3],
                "iscrowd": int(number in crowd),
            }
            for number, (image_id, category_id, box_xywh) in enumerate(boxes)
        ],
    }


def result(image_id: int | str, category_id: int, box_xywh: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": box_xywh, "score": score}


def annotations_of(dataset: dict[str, Any]) -> Annotations:
    """The arrays of a COCO dict, images in the order of the file."""
    image_ids = [image["id"] for image in dataset["images"]]
    category_ids = tuple(category["id"] for category in dataset["categories"])
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    entries = sorted(dataset["annotations"], key=lambda entry: row_of[entry["image_id"]])
    boxes_xywh = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    rows = [row_of[entry["image_id"]] for entry in entries]
    counts = np.bincount(np.array(rows, dtype=np.int64), minlength=len(image_ids))
    ids = [i.encode() if isinstance(i, str) else i for i in image_ids]
    return Annotations(
        root=Path("pictures"),
        source=Path("ground_truth.json"),
        classes=ClassMap(tuple(c["name"] for c in dataset["categories"]), category_ids),
        file_names=np.array([image["file_name"].encode() for image in dataset["images"]]),
        image_ids=np.array(ids),
        sizes=np.array([[image["height"], image["width"]] for image in dataset["images"]], dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1),
        labels=np.array([category_ids.index(e["category_id"]) + 1 for e in entries], dtype=np.int64),
        ignore=np.array([bool(e["iscrowd"]) for e in entries], dtype=np.bool_),
        areas=np.array([e["area"] for e in entries], dtype=np.float64),
        annotation_ids=np.array([e["id"] for e in entries], dtype=np.int64),
    )


def batch_of(
    annotations: Annotations, results: list[dict[str, Any]], rows: list[int]
) -> tuple[torch.Tensor, Detections]:
    """The detections of the images at `rows` as a padded batch, boxes xyxy."""
    per_image = []
    for row in rows:
        image_id = annotations.image_id(row)
        per_image.append([r for r in results if r["image_id"] == image_id])
    most = max((len(own) for own in per_image), default=0) + 1  # always some padding
    boxes = torch.zeros(len(rows), most, 4)
    scores = torch.zeros(len(rows), most)
    labels = torch.zeros(len(rows), most, dtype=torch.int64)
    for i, own in enumerate(per_image):
        for d, r in enumerate(own):
            x, y, w, h = r["bbox"]
            boxes[i, d] = torch.tensor([x, y, x + w, y + h], dtype=torch.float64)
            scores[i, d] = r["score"]
            labels[i, d] = annotations.classes.category_ids.index(r["category_id"]) + 1
    return torch.tensor(rows, dtype=torch.int64), Detections(boxes, scores, labels)


def pycocotools_numbers(
    dataset: dict[str, Any], results: list[dict[str, Any]]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The twelve numbers, and (AP, AP50) by class name: pycocotools by its own way in, `loadRes`."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = copy.deepcopy(dataset)
        ground_truth.createIndex()
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    precision = evaluation.eval["precision"]
    per_class = {}
    for k, category_id in enumerate(evaluation.params.catIds):
        of_class = precision[:, :, k, 0, 2]
        measured = (of_class > -1).any()
        per_class[names[category_id]] = (of_class.mean(), of_class[0].mean()) if measured else (-1.0, -1.0)
    return dict(zip(NUMBERS, evaluation.stats.tolist(), strict=True)), per_class


def random_case(
    seed: int, *, images: int = 200, classes: int = 12, string_ids: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and results with everything that real ones have.

    Ids out of order and with gaps, crowds, areas of masks, images without boxes and without detections, a
    class never annotated and one never detected, scores that are often equal, boxes without area, and one
    image with more detections of a class than count.
    """
    rng = np.random.default_rng(seed)
    numbers = rng.choice(10 * images, images, replace=False).tolist()
    image_ids = [f"shot {n}" for n in numbers] if string_ids else numbers
    category_ids = tuple(rng.permutation(classes) * 3 + 2)
    boxes = [
        (image_id, int(rng.choice(category_ids[1:])), _random_box(rng))
        for image_id in image_ids
        for _ in range(rng.integers(0, 12))
    ]
    crowd = tuple(np.flatnonzero(rng.random(len(boxes)) < 0.05).tolist())
    dataset = coco_dict(boxes, image_ids=image_ids, category_ids=tuple(map(int, category_ids)), crowd=crowd)
    for entry in dataset["annotations"]:
        entry["area"] *= rng.uniform(0.5, 1)
    results = [
        result(image_id, category_id, _moved(rng, box_xywh), _score(rng))
        for image_id, category_id, box_xywh in boxes
        for _ in range(rng.integers(0, 4))
        if category_id != category_ids[-1]
    ]
    for image_id in rng.choice(np.array(image_ids, dtype=object), images // 2):
        results += [result(image_id, int(rng.choice(category_ids[:-1])), _random_box(rng), _score(rng))]
    crowded, category_id, box_xywh = boxes[0]
    results += [result(crowded, category_id, _moved(rng, box_xywh), _score(rng)) for _ in range(150)]
    results += [result(crowded, category_id, [10.0, 10.0, 0.0, 0.0], 0.5)]
    return dataset, [results[i] for i in rng.permutation(len(results))]


def _random_box(rng: np.random.Generator) -> list[float]:
    """Whole quarters of a pixel: exact in float32, so that every route sees the same numbers."""
    size = np.exp(rng.uniform(np.log(6), np.log(300), 2))
    corner = rng.uniform(0, 400, 2)
    return (np.round(np.concatenate([corner, size]) * 4) / 4).tolist()


def _moved(rng: np.random.Generator, box_xywh: list[float]) -> list[float]:
    corner, size = np.split(np.array(box_xywh), 2)
    moved = np.concatenate([corner + size * rng.normal(0, 0.08, 2), size * rng.uniform(0.8, 1.25, 2)])
    return (np.round(moved * 4) / 4).tolist()


def _score(rng: np.random.Generator) -> float:
    """One of 64 values, exact in float32: ties within and between images."""
    return float(rng.integers(1, 65) / 64)
