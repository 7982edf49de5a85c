"""`detect thresholds`: one score threshold for each class, found on a split and written into a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from detect.deploy.inference import Detector
from detect.deploy.load import exported_format
from detect.deploy.spec import PREDICTION_THRESHOLD
from detect.deploy.validate import open_validation, run_detector
from detect.errors import InputError
from detect.evaluation.class_thresholds import ClassThreshold, Goal, find_class_thresholds
from detect.model.checkpoint import read_checkpoint, write_checkpoint
from detect.system.files import write_atomically


def find_thresholds(
    model: Path, data_settings: dict[str, Any], goal: Goal, *, out: Path, json_file: Path | None = None
) -> int:
    """Find a threshold for each class on the validation split and write a copy of the checkpoint with them.

    Args:
        model: a checkpoint.
        data_settings: what `--data.*` sets.
        goal: what each threshold is to reach.
        out: the copy; what is exported from it carries the thresholds as well.
        json_file: gets the figures; null: nowhere.

    Returns:
        0, or 1 where a class keeps the default; it is named with the reason.

    Raises:
        InputError: not a checkpoint, or the split cannot be read.
    """
    goal.check()
    if exported_format(model) is not None:
        raise InputError(
            f"{model} is an exported file: find the thresholds on its checkpoint and export the copy"
        )
    checkpoint = read_checkpoint(model)
    detector = Detector.load(model)
    data = open_validation(detector.spec, data_settings)
    evaluator = run_detector(detector, data)
    found = find_class_thresholds(data.val, evaluator.detections, goal, default=PREDICTION_THRESHOLD)
    write_with_thresholds(out, checkpoint.raw, [one.threshold for one in found])
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(threshold_table(found))
    for one in found:
        if one.notice:
            console.print(f"{one.name} keeps {one.threshold}: {one.notice}")
    console.print(f"written to {out}; predictions and exported files use them")
    if json_file is not None:
        write_atomically(json_file, json.dumps([one._asdict() for one in found], indent=1))
    return 1 if any(one.notice for one in found) else 0


def write_with_thresholds(out: Path, raw: dict[str, Any], thresholds: list[float]) -> None:
    """Write a checkpoint, as read, with the thresholds of its classes."""
    described = raw["detect"]
    model = described["model"]
    settings = {**(model.get("postprocess") or {}), "class_thresholds": thresholds}
    described = {
        **described,
        "model": {**model, "postprocess": settings},
        "postprocess": {**described["postprocess"], "class_thresholds": thresholds},
    }
    write_checkpoint(out, {**raw, "detect": described})


def threshold_table(found: list[ClassThreshold]) -> Table:
    """The threshold of each class, with what it gives on the split at IoU 0.5."""
    table = Table("class", "threshold", "precision", "recall", "boxes")
    for one in found:
        shares = ("-" if share is None else f"{share:.3f}" for share in (one.precision, one.recall))
        table.add_row(one.name, f"{one.threshold:.3f}", *shares, str(one.boxes))
    return table
