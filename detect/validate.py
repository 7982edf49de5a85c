"""`detect validate`: COCO metrics of a detector on a split, without a trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track

from detect.api import Detector
from detect.checkpoint import build_from_checkpoint, read_checkpoint
from detect.coco_eval import CocoEvaluator, Metrics
from detect.data.datamodule import DetectionData, align_classes
from detect.metrics_table import metrics_table
from detect.module import DetectionModule
from detect.run_folder import write_atomically


def validate_module(
    module: DetectionModule, data: DetectionData, *, backend: Literal["faster", "pycocotools"] = "faster"
) -> Metrics:
    """Score a module on `data.val`, every image once."""
    return run_detector(Detector(module), data, backend=backend).compute()


def run_detector(
    detector: Detector, data: DetectionData, *, backend: Literal["faster", "pycocotools"] = "faster"
) -> CocoEvaluator:
    """Detect on every image of `data.val` once; the evaluator has gathered the detections of all ranks."""
    evaluator = CocoEvaluator(data.val, backend=backend)
    loader = data.val_dataloader()
    for batch in track(loader, description="validation", transient=True, disable=not Console().is_terminal):
        evaluator.update(batch.sample_idx, detector.detect(batch.images, batch.orig_size))
    evaluator.gather()
    return evaluator


def validate(
    ckpt_path: Path,
    data_settings: dict[str, Any],
    *,
    backend: Literal["faster", "pycocotools"],
    json_file: Path | None,
) -> int:
    """Score a checkpoint; prints a table and writes JSON where asked for."""
    module = build_from_checkpoint(read_checkpoint(ckpt_path))
    data = DetectionData(**data_settings, image_size=module.net.image_size, resize_rule=module.resize_rule)
    data.open(("val",))
    assert module.classes is not None
    data.val = align_classes(data.val, module.classes)
    console = Console()
    metrics = validate_module(module, data, backend=backend)
    console.print(metrics_table(metrics))
    if json_file is not None:
        write_atomically(json_file, json.dumps(metrics.to_json(), indent=1))
    return 0
