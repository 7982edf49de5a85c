"""From detections in memory to COCO's twelve numbers: this project against pycocotools, in one run.

    python benchmarks/evaluation.py --json evaluation.json      (some minutes; --quick: a tenth of it)

Each round times all contestants one after the other on the same detections, all on one thread; `ratio` is of
CPU seconds, which on an idle machine are the seconds of the clock. pycocotools and faster-coco-eval get their
ground truth ready-made and take the detections as one array, their fastest way in; the time of this project
includes the updates by batch and its copy of the ground truth. Fails where any of the twelve numbers or of
the classes' AP differs by more than 1e-6.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detect.data.annotations import Annotations
from detect.evaluation.evaluator import CocoEvaluator
from detect.evaluation.metrics import NAMES
from detect.types import ClassMap, Detections

BATCH = 32
TOLERANCE = 1e-6
MEAN_BOXES = 7
"""Ground-truth boxes per image, as in COCO val2017."""


class Case(NamedTuple):
    """One split and what was detected on it."""

    annotations: Annotations
    detections: Detections
    """B is the number of images."""


class Outcome(NamedTuple):
    """One evaluation."""

    seconds: float
    cpu_seconds: float
    numbers: NDArray[np.float64]
    """(12 + K,) the twelve numbers and the AP of each class."""


def make_case(images: int, detections: int, classes: int, seed: int = 0) -> Case:
    """Random boxes; a third of the detections lie near a ground-truth box, most of them with its class."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(MEAN_BOXES, images)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    boxes = random_boxes(rng, offsets[-1])
    labels = rng.integers(1, classes + 1, len(boxes))
    found = random_boxes(rng, images * detections)
    found_labels = rng.integers(1, classes + 1, len(found))
    rows = np.repeat(np.arange(images), detections)
    near = (rng.random(len(found)) < 1 / 3) & (counts[rows] > 0)
    source = (offsets[rows] + rng.random(len(found)) * counts[rows]).astype(np.int64)[near]
    found[near] = boxes[source] + rng.normal(0, 0.06, (len(source), 4)) * np.tile(
        boxes[source, 2:] - boxes[source, :2], 2
    )
    found_labels[near] = np.where(rng.random(len(source)) < 0.8, labels[source], found_labels[near])
    annotations = Annotations(
        root=Path("images"),
        source=Path("random"),
        classes=ClassMap(tuple(f"class {k}" for k in range(1, classes + 1)), tuple(range(1, classes + 1))),
        file_names=np.array([f"{row}.jpg".encode() for row in range(images)]),
        image_ids=np.arange(1, images + 1),
        sizes=np.full((images, 2), 640, dtype=np.int32),
        offsets=offsets,
        boxes=boxes,
        labels=labels,
        ignore=rng.random(len(boxes)) < 0.01,
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
        annotation_ids=np.arange(1, len(boxes) + 1),
    )
    return Case(
        annotations,
        Detections(
            torch.from_numpy(found).float().reshape(images, detections, 4),
            torch.from_numpy(rng.uniform(0.01, 1, (images, detections))).float(),
            torch.from_numpy(found_labels).reshape(images, detections),
        ),
    )


def random_boxes(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count, 4) xyxy in 640 x 640 px, sides from 8 to 300 px."""
    size = np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
    corner = rng.uniform(0, 640 - size)
    return np.concatenate([corner, corner + size], axis=1)


def run_detect(case: Case) -> Callable[[], NDArray[np.float64]]:
    rows = torch.arange(len(case.annotations))

    def evaluate() -> NDArray[np.float64]:
        evaluator = CocoEvaluator(case.annotations)
        for batch in rows.split(BATCH):
            evaluator.update(batch, Detections(*(column[batch] for column in case.detections)))
        evaluator.gather()
        metrics = evaluator.compute()
        per_class = [figures.AP for figures in metrics.per_class.values()]
        return np.array([*(getattr(metrics, name) for name in NAMES), *per_class])

    return evaluate


def run_library(case: Case, coco: Any, coco_eval: Any) -> Callable[[], NDArray[np.float64]]:
    """`coco` and `coco_eval` are the two classes that both libraries have."""
    ground_truth = coco()
    ground_truth.dataset = coco_dataset(case.annotations)
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth.createIndex()
    boxes = case.detections.boxes.double().numpy().reshape(-1, 4)
    results = np.column_stack(
        [
            np.repeat(case.annotations.image_ids, case.detections.scores.shape[1]),
            boxes[:, :2],
            boxes[:, 2:] - boxes[:, :2],
            case.detections.scores.double().numpy().ravel(),
            case.detections.labels.numpy().ravel(),
        ]
    )

    def evaluate() -> NDArray[np.float64]:
        evaluation = coco_eval(ground_truth, ground_truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        precision = evaluation.eval["precision"][..., 0, 2]  # (T, R, K)
        measured = (precision > -1).any(axis=(0, 1))
        per_class = np.where(measured, precision.mean(axis=(0, 1)), -1.0)
        return np.concatenate([evaluation.stats[:12], per_class])

    return evaluate


def coco_dataset(annotations: Annotations) -> dict[str, Any]:
    boxes = annotations.boxes
    boxes_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    image_ids = np.repeat(annotations.image_ids, np.diff(annotations.offsets))
    columns = (image_ids, annotations.labels, boxes_xywh, annotations.areas, annotations.ignore.astype(int))
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        "images": [{"id": image_id} for image_id in annotations.image_ids.tolist()],
        "categories": [{"id": k, "name": name} for k, name in enumerate(annotations.classes.names, 1)],
        "annotations": [
            {"id": number, **dict(zip(keys, row, strict=True))} for number, row in enumerate(rows, 1)
        ],
    }


def timed(evaluate: Callable[[], NDArray[np.float64]]) -> Outcome:
    gc.collect()
    with contextlib.redirect_stdout(io.StringIO()):
        started, cpu_started = time.perf_counter(), time.process_time()
        numbers = evaluate()
        return Outcome(time.perf_counter() - started, time.process_time() - cpu_started, numbers)


def measure(case: Case, rounds: int, console: Console) -> dict[str, Any]:
    contestants = {
        "detect": run_detect(case),
        "faster-coco-eval": run_library(case, faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
        "pycocotools": run_library(case, pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    }
    outcomes: dict[str, list[Outcome]] = {name: [] for name in contestants}
    for number in range(1, rounds + 1):
        for name, evaluate in contestants.items():
            outcome = timed(evaluate)
            outcomes[name].append(outcome)
            console.print(
                f"round {number}: {name} {outcome.seconds:.2f} s, {outcome.cpu_seconds:.2f} s of CPU",
                highlight=False,
            )
    numbers = {name: rounds_of[-1].numbers for name, rounds_of in outcomes.items()}
    cpu_seconds = {name: [o.cpu_seconds for o in rounds_of] for name, rounds_of in outcomes.items()}
    seconds = {name: [o.seconds for o in rounds_of] for name, rounds_of in outcomes.items()}
    return {
        "ratio": paired_ratio(cpu_seconds, "detect"),
        "ratio_wall": paired_ratio(seconds, "detect"),
        "largest_difference": float(np.abs(numbers["detect"] - numbers["pycocotools"]).max()),
        "cpu_seconds": cpu_seconds,
        "seconds": seconds,
        "numbers": {name: values[:12].tolist() for name, values in numbers.items()},
    }


def paired_ratio(seconds: dict[str, list[float]], name: str) -> float:
    """Median over the rounds of pycocotools' time divided by that of `name`."""
    pairs = zip(seconds["pycocotools"], seconds[name], strict=True)
    return statistics.median(theirs / own for theirs, own in pairs)


def report(figures: dict[str, Any], console: Console) -> None:
    table = Table("evaluation", "median CPU s", "median s", "pycocotools / this (CPU)", "(wall)")
    for name in figures["seconds"]:
        table.add_row(
            name,
            f"{statistics.median(figures['cpu_seconds'][name]):.2f}",
            f"{statistics.median(figures['seconds'][name]):.2f}",
            f"{paired_ratio(figures['cpu_seconds'], name):.1f}",
            f"{paired_ratio(figures['seconds'], name):.1f}",
        )
    console.print(table)
    console.print(f"largest difference to pycocotools: {figures['largest_difference']:.1e}", highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="an image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="500 images and one round, for slow machines")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    if options.quick:
        options.images, options.rounds = 500, 1
    console = Console()
    torch.set_num_threads(1)
    case = make_case(options.images, options.detections, options.classes)
    figures = measure(case, options.rounds, console)
    figures |= {
        "images": options.images,
        "detections": options.detections,
        "classes": options.classes,
        "versions": {name: version(name) for name in ("numpy", "pycocotools", "faster-coco-eval", "torch")},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
    }
    report(figures, console)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2))
    return 0 if figures["largest_difference"] <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
