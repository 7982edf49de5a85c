"""What training refuses, before any work: settings that cannot give the run that they ask for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback

from detect.errors import InputError, install_hint
from detect.model.checkpoint import build_detector, read_checkpoint, without_weights
from detect.model.weights import refuse_other_backbone
from detect.training.averaging import AveragedWeights

REFUSED = {
    "barebones": (
        False,
        "`trainer.logger false` and `trainer.enable_progress_bar false` leave out what costs time",
    ),
    "enable_checkpointing": (True, "its two checkpoints are what a run is for"),
    "max_time": (None, "stop the run with SIGTERM (`timeout -s TERM 8h detect fit ...`); it saves and ends"),
    "overfit_batches": (0.0, "give a data set of a few images"),
    "reload_dataloaders_every_n_epochs": (0, "the loader is the same in every epoch"),
    "use_distributed_sampler": (False, "the samplers of detect split the data themselves"),
    "val_check_interval": (None, "validation ends an epoch; trainer.check_val_every_n_epoch may skip some"),
}
"""Trainer settings that would break what a checkpoint promises: the harmless value, what to do instead."""

LOGGER_PACKAGES = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
"""What a logger of Lightning imports; the extra of pyproject.toml has the same name."""


def refuse_trainer_settings(trainer: Namespace, command: str) -> None:
    """Check the `trainer:` section of a command before any work.

    Raises:
        InputError: a setting would break a run's promises, or there is no end to the schedule.
    """
    for key, (harmless, instead) in REFUSED.items():
        if (value := trainer.get(key)) not in (harmless, None):
            raise InputError(f"trainer.{key} is {value}, which detect {command} does not take: {instead}")
    if (epochs := trainer.max_epochs) is None or epochs < 1:
        raise InputError(f"trainer.max_epochs is {epochs}: the cosine needs an end, give 1 or more")
    if (steps := trainer.max_steps) < 1 and steps != -1:
        raise InputError(f"trainer.max_steps is {steps}: give 1 or more, or leave it out")


def refuse_frozen_noise(model: Namespace) -> None:
    """Parts that keep their weights must have got some: random ones would stay random.

    Raises:
        InputError: `model.parameters.freeze` names parts, and nothing gives them weights.
    """
    arguments = model.backbone.get("init_args") or {}
    if model.parameters.freeze and not (model.get("init_from") or arguments.get("weights")):
        kept = ", ".join(model.parameters.freeze)
        raise InputError(
            f"model.parameters.freeze keeps {kept} as they are, and they are "
            "random: give a detector to start from (--model.init_from detector.ckpt, or coco) or a "
            "classifier's weights (--model.backbone.weights imagenet), or train every part: "
            "--model.parameters.freeze '[]'"
        )


def refuse_running_averages(callback: Callback, statistics_images: int) -> None:
    """Averaged weights need BatchNorm statistics of their own.

    Raises:
        InputError: the callback averages, and no images are shown to recompute them.
    """
    if isinstance(callback, AveragedWeights) and not statistics_images:
        raise InputError(
            "model.statistics_images is 0: AveragedWeights would be validated with BatchNorm's "
            "statistics of the raw weights; leave it out, or give 2 or more"
        )


def refuse_start(model: dict[str, Any], start: Path) -> None:
    """Look, before there is a run folder, whether the checkpoint `start` fits; shapes alone are built.

    Raises:
        InputError: it is no checkpoint of ours, or its backbone is another.
    """
    with torch.device("meta"):
        net = build_detector(without_weights(model)).net
    refuse_other_backbone(net, read_checkpoint(start))


def check_monitor(
    callback: Callback,
    *,
    train_losses: Sequence[str],
    val_losses: Sequence[str],
    metrics: dict[str, str],
) -> None:
    """Look, before any work, at what a callback such as EarlyStopping waits for.

    Args:
        callback: of the trainer's settings.
        train_losses: names of the losses that training logs.
        val_losses: of those that validation logs.
        metrics: that validation logs, and the mode of each.

    Raises:
        InputError: it is never logged, or the callback takes it for better where it is worse.
    """
    monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
    if monitor is None:
        return
    modes = {f"val/{name}": better for name, better in metrics.items()}
    stages = {"val": val_losses, "train": train_losses, "train_step": train_losses}
    modes |= {f"{stage}/{name}": "min" for stage, losses in stages.items() for name in losses}
    what = f"trainer.callbacks: {type(callback).__name__} has the monitor {monitor!r}"
    if monitor not in modes:
        raise InputError(f"{what}, which is not logged; there are {', '.join(modes)}")
    if mode not in (None, modes[monitor]):
        raise InputError(
            f"{what} and the mode {mode!r}, for which worse is better: give mode {modes[monitor]}"
        )


def refuse_loggers(loggers: Any) -> None:
    """Check the `trainer.logger` settings before any work.

    Raises:
        InputError: a package is not installed, or MLflow would refuse its store.
    """
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        settings = logger if isinstance(logger, (dict, Namespace)) else {}
        name = settings.get("class_path", "").rpartition(".")[2]
        package = LOGGER_PACKAGES.get(name)
        if package is not None and importlib.util.find_spec(package) is None:
            raise InputError(f"trainer.logger needs {package}: {install_hint(package)}")
        addresses = (settings.get("init_args") or {}).get("tracking_uri"), os.getenv("MLFLOW_TRACKING_URI")
        if name == "MLFlowLogger" and not any((*addresses, os.getenv("MLFLOW_ALLOW_FILE_STORE"))):
            raise InputError(
                "MLFlowLogger has no tracking_uri, and MLflow refuses the folder of files that it would "
                "take then: give init_args.tracking_uri, such as sqlite:///mlflow.db"
            )
