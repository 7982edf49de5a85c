"""The page of a run of `detect pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from detect.config.model_section import is_classifier
from detect.config.trusted_classes import refuse_foreign_classes
from detect.errors import InputError
from detect.evaluation.metrics import show_metric
from detect.inspection.classifiers import MILLION, CountedClassifier, count_classifier
from detect.model.checkpoint import without_weights
from detect.model.weights import describe_origin
from detect.report.html import count, write_page
from detect.report.plots import Plot, Series, line_chart, plot
from detect.report.run_files import RunFiles, read_run
from detect.report.sections import Rows, reproduction

METRICS = ("top1", "top5")


def is_classifier_run(run: RunFiles) -> bool:
    """Whether `detect pretrain` wrote it."""
    return is_classifier(run.config)


def write_classifier_report(folder: Path) -> Path:
    """Write RUN/report.html from what the run folder holds; returns its path."""
    run = read_run(folder)
    notices = [notice for notice in run.notices if "detections.json" not in notice]
    counted = count_run(run, notices)
    values = {
        "title": f"Run {run.name}",
        "subtitle": _subtitle(run, counted),
        "notices": notices,
        "facts": _facts(run, counted),
        "class_rows": _class_rows(run.metrics or {}),
        "training": _training(run),
        "reproduction": reproduction(run),
    }
    path = folder / "report.html"
    write_page(path, "classifier.html", values)
    return path


def count_run(run: RunFiles, notices: list[str]) -> CountedClassifier | None:
    """The classifier of config.yaml, counted; None, with a notice, where it cannot be built."""
    settings, path = without_weights(run.section("model")), run.folder / "config.yaml"
    try:
        refuse_foreign_classes(settings, path)
        return count_classifier(path, settings)
    except InputError as error:
        notices.append(f"Parameters are not known: {error}")
        return None


def _facts(run: RunFiles, counted: CountedClassifier | None) -> list[tuple[str, str]]:
    metrics = run.metrics or {}
    values = [(name, show_metric(metrics.get(name))) for name in METRICS]
    if counted is not None:
        values += [
            ("params", f"{counted.counts.params / MILLION:.2f} M"),
            ("MAdds", f"{counted.counts.madds / MILLION:.1f} M"),
        ]
    if "images" in metrics:
        values.append(("validation images", count(metrics["images"])))
    epochs = run.curves.get("epoch")
    if epochs is not None:
        values.append(("epochs", f"{len(epochs)} of {run.section('trainer').get('max_epochs') or '?'}"))
    return values


def _subtitle(run: RunFiles, counted: CountedClassifier | None) -> str:
    if counted is None:
        return str(run.folder.absolute())
    size = "x".join(map(str, counted.image_size))
    seed = "" if run.seed is None else f", seed {run.seed}"
    origin = (run.manifest or {}).get("weights_origin")
    started = f" Started from {describe_origin(origin)}." if isinstance(origin, dict) else ""
    network = f"{counted.backbone.name}, width {counted.backbone.width:g}, input {size}{seed}."
    return f"{network}{started} {run.folder.absolute()}"


def _class_rows(metrics: dict[str, Any]) -> Rows:
    """Top-1 of every class, the worst first."""
    known = [(name, row) for name, row in metrics.get("per_class", {}).items() if row["top1"] is not None]
    return [
        (name, show_metric(row["top1"]), count(row["images"]))
        for name, row in sorted(known, key=lambda item: item[1]["top1"])
    ]


def _training(run: RunFiles) -> list[Plot]:
    """Loss, accuracy and learning rate over the epochs."""
    curves = run.curves
    if "epoch" not in curves:
        return []
    charts = (
        ("Loss", {"train/loss": "train", "val/loss": "val"}, "loss"),
        ("Accuracy", {f"val/{name}": name for name in METRICS}, "share of the images"),
        ("Learning rate", {"lr": "learning rate"}, "learning rate"),
    )
    plots = []
    for title, names, unit in charts:
        series = [
            Series(label, curves["epoch"], curves[name])
            for name, label in names.items()
            if name in curves and np.isfinite(curves[name]).any()
        ]
        if series:
            draw = line_chart(series, x_label="epoch", y_label=unit, from_zero=title != "Loss")
            plots.append(plot(title, draw))
    return plots
