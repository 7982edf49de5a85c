"""`detect validate`: COCO metrics of a detector on a split, without a trainer.

The data module brings Lightning, 2 s to import: it is imported where data are opened, which most exports
do not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import track

from detect.deploy.inference import Detector
from detect.deploy.spec import ModelSpec
from detect.evaluation.baseline import with_baseline
from detect.evaluation.evaluator import CocoEvaluator, Metrics
from detect.evaluation.metrics_table import metrics_table
from detect.system.files import write_atomically

if TYPE_CHECKING:
    from detect.data.datamodule import DetectionData


def validate_detector(
    detector: Detector, data: DetectionData, *, backend: Literal["faster", "pycocotools"] = "faster"
) -> Metrics:
    """Score a detector on `data.val`, every image once."""
    return run_detector(detector, data, backend=backend).compute()


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


def open_validation(spec: ModelSpec, data_settings: dict[str, Any]) -> DetectionData:
    """The validation split as a detector needs it: its input size, its resize rule, its labels.

    Args:
        spec: of the detector.
        data_settings: what `--data.*` sets.

    Raises:
        InputError: the split cannot be read, or has classes that the detector does not know.
    """
    from detect.data.datamodule import DetectionData, align_classes

    data = DetectionData(**data_settings, image_size=spec.image_size, resize_rule=spec.resize_rule)
    data.open(("val",))
    data.val = align_classes(data.val, spec.classes)
    return data


def validate(
    model: Path,
    data_settings: dict[str, Any],
    *,
    backend: Literal["faster", "pycocotools"],
    json_file: Path | None,
) -> int:
    """Score a checkpoint or an exported file; prints a table and writes JSON where asked for."""
    detector = Detector.load(model)
    if isinstance(detector.score_threshold, tuple):
        print(
            "the thresholds of the classes are inside this file: mAP counts what passes them alone; "
            "export with --score_threshold 0.01 to measure all",
            file=sys.stderr,
        )
    data = open_validation(detector.spec, data_settings)
    metrics = with_baseline(validate_detector(detector, data, backend=backend), data.val)
    Console().print(metrics_table(metrics))
    if json_file is not None:
        write_atomically(json_file, json.dumps(metrics.to_json(), indent=1))
    return 0
