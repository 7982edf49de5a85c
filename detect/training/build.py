"""From the plain values of a `model:` section to a detector in training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import class_from_function
from lightning.pytorch.cli import OptimizerCallable

from detect.config.unknown_keys import build
from detect.model.checkpoint import Checkpoint, load_weights, without_weights
from detect.model.detector import TorchDetector
from detect.training.distillation import DistillationConfig, load_teacher
from detect.training.losses import DetectionLoss, MultiBoxLoss
from detect.training.module import STATISTICS_IMAGES, DetectionModule, default_optimizer
from detect.training.parameters import ParameterConfig
from detect.training.schedules import Schedule

MODEL_DEFAULTS = {"model.schedule": {"class_path": "detect.training.schedules.WarmupCosine"}}
"""Classes that settings belong to where a configuration names none: `model.schedule: {warmup_steps: 50}`."""


def detection_module(
    *,
    loss: DetectionLoss | None = None,
    optimizer: OptimizerCallable = default_optimizer,
    schedule: Schedule | None = None,
    parameters: ParameterConfig = ParameterConfig(),
    init_from: str | None = None,
    teacher: str | None = None,
    distillation: DistillationConfig = DistillationConfig(),
    statistics_images: int = STATISTICS_IMAGES,
    compile: bool = False,
    **detector: Any,
) -> DetectionModule:
    """A fresh detector in training: the keys of a `model:` section, those of the detector first.

    Args:
        loss: class and box loss, a class of detect.training.losses; null: MultiBoxLoss.
        optimizer: a class of torch.optim with its init_args but the parameters. Its lr belongs to
            `data.total_batch_size`: change both by the same factor. Default: SGD, lr 0.025 for a total batch
            of 32, momentum 0.9, weight_decay 4e-5.
        schedule: the learning rate over the run, a class of detect.training.schedules, or arguments of
            WarmupCosine alone: {warmup_steps: 50}.
        parameters: freezing, learning rates by part, weight decay by kind.
        init_from: a checkpoint to start from; its classes may be others, heads are copied by class name. Or
            the word coco, for the published detector that fits the backbone (fetched once), or starter, for
            that of this package, trained on generated images. `detect fit` reads it, once the classes of the
            data are known.
        teacher: a checkpoint of a better detector of the same classes (a larger backbone or input) to learn
            from, beside the data. Steps take longer by its forward pass; the trained detector is the same.
        distillation: how much the teacher counts.
        statistics_images: before each validation, BatchNorm's statistics are recomputed from so many
            training images, for the weights that are validated (and kept in checkpoints): running averages
            lag behind in short runs. 0: the running averages.
        compile: run forward and loss through torch.compile; it takes minutes at the start, so for runs of
            hours.
        detector: arguments of TorchDetector.
    """
    del init_from
    if teacher is None and distillation != DistillationConfig():
        # No error: a run's config.yaml has all values, and may be older than these defaults.
        warnings.warn("model.distillation does nothing without a model.teacher", stacklevel=2)
    loss = MultiBoxLoss() if loss is None else loss
    return DetectionModule(
        TorchDetector(**detector, score_activation=loss.score_activation),
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        parameters=parameters,
        distillation=None if teacher is None else load_teacher(Path(teacher), distillation),
        statistics_images=statistics_images,
        compile=compile,
    )


def model_parser() -> ArgumentParser:
    """The parser of a `model:` section, the same for the command line and for checkpoints."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(class_from_function(detection_module), "model")
    parser.set_defaults(MODEL_DEFAULTS)
    return parser


def build_module(settings: dict[str, Any]) -> DetectionModule:
    """Build a module from the plain values of a `model:` section.

    Args:
        settings: what a YAML file holds under `model`, class paths included.

    Raises:
        InputError: an unknown key or a wrong value; the message names its path.
    """
    module: DetectionModule = build(model_parser(), {"model": settings}, what="model settings").model
    return module


def module_from_checkpoint(checkpoint: Checkpoint) -> DetectionModule:
    """The detector of a checkpoint with the loss that trained it, to compute losses again."""
    module = build_module(without_weights(checkpoint.description["model"]))
    load_weights(module.detector, checkpoint)
    return module.eval()
