"""`detect report`: gather what a run left behind and write RUN/report.html."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from detect.config.trusted_classes import refuse_foreign_classes
from detect.data.annotations import Annotations
from detect.data.datamodule import DetectionData
from detect.deploy.inference import Detector
from detect.deploy.validate import run_detector
from detect.errors import InputError
from detect.evaluation.baseline import with_baseline
from detect.evaluation.evaluator import Metrics
from detect.inspection.anchor_fit import AnchorFit, fit_anchors
from detect.inspection.anchor_layout import AnchorLayout
from detect.inspection.models import Model, count_config
from detect.model.checkpoint import build_from_checkpoint, read_checkpoint, without_weights
from detect.model.detector import TorchDetector
from detect.model.weights import describe_origin
from detect.report import sections
from detect.report.analysis import Analysis, analyse
from detect.report.classifier_page import is_classifier_run, write_classifier_report
from detect.report.data_facts import SplitFacts, open_data, split_facts
from detect.report.html import write_page
from detect.report.run_files import RunFiles, read_run
from detect.report.scored_files import write_scored
from detect.system.files import write_atomically
from detect.system.ranks import rank_by_environment

REPORT_FILE = "report.html"


class DataSummary(NamedTuple):
    """What the page says about the data set."""

    splits: dict[str, SplitFacts]
    anchors: AnchorFit | None


def write_report(folder: Path) -> Path:
    """Write RUN/report.html from what the run folder holds; returns its path.

    Raises:
        InputError: `folder` is no run folder.
    """
    run = read_run(folder)
    notices = list(run.notices)
    analysis = analyse(run.scored, class_thresholds(run)) if run.scored is not None else None
    model = read_model(run, notices)
    data = summarise_data(run, model, notices)
    metrics = run.metrics or (analysis.metrics.to_json() if analysis is not None else None)
    train = data.splits.get("train")
    path = folder / REPORT_FILE
    values = {
        "title": f"Run {run.name}",
        "subtitle": _subtitle(run, model),
        "notices": notices,
        "facts": sections.facts(run, metrics, model.counts if model else None),
        "class_rows": None
        if metrics is None
        else sections.class_rows(metrics, analysis, train.per_class if train else {}),
        "training": sections.training(run),
        "split_rows": sections.split_rows(data.splits),
        "anchor_plots": sections.anchor_plots(data.anchors),
        "reproduction": sections.reproduction(run),
    }
    write_page(path, "run.html", values | _analysed(analysis))
    return path


def class_thresholds(run: RunFiles) -> tuple[float, ...] | None:
    """The thresholds of the classes in best.ckpt, else in the configuration; None where there are none."""
    try:
        settings = read_checkpoint(run.folder / "checkpoints" / "best.ckpt").description["postprocess"]
    except InputError:
        settings = run.section("model").get("postprocess") or {}
    found = settings.get("class_thresholds")
    if run.scored is None or not found or len(found) != run.scored.annotations.classes.num_classes:
        return None
    return tuple(found)


def _analysed(analysis: Analysis | None) -> dict[str, Any]:
    """Values of the sections about single detections."""
    if analysis is None:
        return {"analysed": False}
    return {
        "analysed": True,
        "shown_scores": sections.shown_scores(analysis),
        "errors": sections.errors(analysis),
        "precision": sections.precision_and_recall(analysis),
        "confusion": sections.confusions(analysis),
        "images": sections.images(analysis),
    }


def report(folder: Path) -> int:
    """Run `detect report RUN`; returns the exit code.

    A run that was stopped before its end is scored first, if it has a checkpoint and its data is there.
    """
    if is_classifier_run(read_run(folder)):
        path = write_classifier_report(folder)
    else:
        score_if_needed(folder)
        path = write_report(folder)
    print(f"{path}  ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def score_if_needed(folder: Path) -> None:
    """Score the best checkpoint of a run that has none of the two files of `scored_files`."""
    run = read_run(folder)
    best = folder / "checkpoints" / "best.ckpt"
    if run.scored is not None or not best.is_file() or not run.config:
        return
    try:
        detector = build_from_checkpoint(read_checkpoint(best))
        data = open_data(
            run.section("data"), image_size=detector.image_size, resize_rule=detector.resize_rule
        )
    except InputError as error:
        print(f"{best} could not be scored: {error}")
        return
    print(f"scoring {best} on {len(data.val)} images of {data.val.source}")
    score_run(folder, detector, data)


def score_run(folder: Path, detector: TorchDetector, data: DetectionData) -> Metrics:
    """Score a detector on `data.val`, on all ranks together; keep metrics and detections in `folder`."""
    evaluator = run_detector(Detector(detector), data)
    metrics = evaluator.compute()
    if rank_by_environment() == 0:
        metrics = with_baseline(metrics, data.val)
        write_scored(folder, evaluator)
        write_atomically(folder / "metrics.json", json.dumps(metrics.to_json(), indent=1))
    return metrics


def read_model(run: RunFiles, notices: list[str]) -> Model | None:
    """The detector of config.yaml, counted; None, with a notice, where it cannot be built."""
    settings = without_weights(run.section("model"))  # counting needs none, and they may be gone
    if not settings:
        return None
    path = run.folder / "config.yaml"
    try:
        refuse_foreign_classes(settings, path)
        return count_config(path, settings)
    except InputError as error:
        notices.append(f"Parameters and anchors are not known: {error}")
        return None


def summarise_data(run: RunFiles, model: Model | None, notices: list[str]) -> DataSummary:
    """Both splits where the data set is still there, else the split that the run was scored on."""
    splits: dict[str, Annotations] = {}
    try:
        data = open_data(run.section("data"))
        splits = {"train": data.train, "val": data.val}
    except InputError as error:
        notices.append(f"The data set is not where it was trained from: {str(error).splitlines()[0]}")
        if run.scored is not None:
            splits = {"val": run.scored.annotations}
    facts = {name: split_facts(annotations) for name, annotations in splits.items()}
    fit = None
    if splits and model is not None:
        fit = fit_anchors(next(iter(splits.values())), AnchorLayout.of(model.net), with_advice=False)
    return DataSummary(facts, fit)


def _subtitle(run: RunFiles, model: Model | None) -> str:
    if model is None:
        return str(run.folder.absolute())
    net = model.net
    tail = ", reduced tail" if net.backbone.reduced_tail else ""
    size = "x".join(map(str, net.image_size))
    seed = "" if run.seed is None else f", seed {run.seed}"
    origin = (run.manifest or {}).get("weights_origin")
    started = f" Started from {describe_origin(origin)}." if isinstance(origin, dict) else ""
    network = f"{net.backbone.name}{tail}, input {size}, {net.num_classes} classes{seed}."
    return f"{network}{started} {run.folder.absolute()}"
