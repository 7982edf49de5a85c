"""`detect pretrain`: train a classifier, and write its backbone as weights for detectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table

from detect.commands.fit import begin, log_settings, say_resumed, train
from detect.commands.fit_cli import ReadsSettings
from detect.commands.run_cli import RunCLI
from detect.data.class_data import ClassificationData
from detect.model.backbones.pretrained import transfer_table, write_backbone
from detect.model.checkpoint import read_checkpoint
from detect.model.classifier import Classifier, classifier_from_checkpoint
from detect.report.classifier_page import write_classifier_report
from detect.system.files import write_atomically
from detect.training.classification import (
    TOP,
    classification_module,
    classifier_parser,
    score_classifier,
)
from detect.training.manifest import describe_result, hash_weights, update_manifest
from detect.training.nan_report import write_nan_report
from detect.training.run_module import RunModule

WEIGHTS_FILE = "weights.safetensors"
RESULTS = (
    *(WEIGHTS_FILE, "checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.json", "metrics.csv"),
    *("config.yaml", "report.html"),
)
NO_LICENCE = "not stated; that of the training images binds"


class PretrainCLI(RunCLI):
    """`detect pretrain`: a classifier in training."""

    command, task, data_class = "pretrain", "classification", ClassificationData
    does = (
        "Train a classifier whose backbone detectors start from. "
        "Example: detect pretrain --config configs/pretrain/v3_large.yaml --data.root path/to/imagenet"
    )

    def module_function(self) -> Callable[..., RunModule]:
        return classification_module

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--task",
            type=Literal["classification"],
            default="classification",
            help="tells its configurations from those of detect fit",
        )

    def section_parser(self) -> ArgumentParser:
        return classifier_parser()

    def metric_modes(self) -> dict[str, str]:
        return dict.fromkeys(TOP, "max")


class ClassifierSettingsReader(ReadsSettings, PretrainCLI):
    """Of `detect pretrain`."""


@cache
def classifier_settings_reader() -> ClassifierSettingsReader:
    """The one reader of classifiers' runs."""
    return ClassifierSettingsReader()


def pretrain(args: list[str], *, before_training: Callable[[Path], None] | None = None) -> int:
    """Run `detect pretrain ARGS`; returns the exit code.

    Args:
        args: of the command line.
        before_training: as of `fit`.

    Raises:
        InputError: something that the user gave is wrong.
        RunStopped: the run ended before its last epoch, on a signal, a NaN or a full disk.
    """
    cli, console = begin(PretrainCLI, args)
    if cli.resume is None:
        if cli.model.net.backbone.transfer_report:
            console.print(transfer_table(cli.model.net.backbone))
        if cli.trainer.is_global_zero:
            weights = hash_weights(cli.model.net.state_dict())
            update_manifest(
                cli.run_folder, initial_weights=weights, weights_origin=cli.model.net.backbone.weights_origin
            )
    else:
        say_resumed(cli, console)
    log_settings(cli)
    if before_training is not None and cli.trainer.is_global_zero:
        before_training(cli.run_folder)
    train(cli, lambda step: write_nan_report(cli.trainer, cli.model, cli.run_folder / "nan", step=step))
    finish(cli, console)
    return 0


def finish(cli: PretrainCLI, console: Console) -> None:
    """Score the best checkpoint as it lies on the disk, on all ranks together, and write its backbone."""
    best = cli.checkpoints.best
    if not best.exists():
        console.print("no validation ran, so there is no best checkpoint")
        return
    classifier = classifier_from_checkpoint(read_checkpoint(best, task="classification"))
    data = cli.data
    assert isinstance(data, ClassificationData)
    metrics = score_classifier(classifier.to(cli.trainer.strategy.root_device), data)
    console.print(accuracy_table(metrics))
    if not cli.trainer.is_global_zero:
        return
    folder = cli.run_folder
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1))
    origin = origin_of(classifier, data, folder, top1=metrics["top1"])
    write_backbone(classifier.backbone, folder / WEIGHTS_FILE, origin)
    update_manifest(folder, result=describe_result(folder, task="classification"))
    write_classifier_report(folder)
    lines = [f"  {folder / name}" for name in RESULTS]
    lines += ["next:", f"  detect fit --config ... --model.backbone.weights {folder / WEIGHTS_FILE}"]
    for line in lines:
        console.print(line, highlight=False, markup=False)


def origin_of(
    classifier: Classifier, data: ClassificationData, folder: Path, *, top1: float
) -> dict[str, str]:
    """What the weights file says of itself, and every detector that starts from it after it.

    Weights that the classifier started from bind as well.
    """
    name = data.root.absolute().name if data.root is not None else "images"
    images = f"{len(data.train)} images of {data.classes.num_classes} classes in {name}"
    origin = {
        "weights": f"{folder.absolute().name}/{WEIGHTS_FILE}",
        "licence": data.licence or NO_LICENCE,
        "trained on": images,
        "top1": f"{top1:.4f}",
    }
    before = classifier.backbone.weights_origin
    if before is not None:
        origin["started from"] = f"{before.get('weights')} ({before.get('licence')})"
    return origin


def accuracy_table(metrics: dict[str, Any]) -> Table:
    """Top-1 and top-5 for people."""
    table = Table("metric", "value")
    for name in TOP:
        table.add_row(name, f"{metrics[name]:.4f}")
    table.add_row("images", str(metrics["images"]))
    return table
