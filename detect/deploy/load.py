"""From a file to the model in it: a checkpoint, a config (random weights) or an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from detect.config.model_section import read_model_section
from detect.data.augment.view import input_batch
from detect.data.synthetic.images import generated_images
from detect.deploy.runtimes.base import Runtime, RuntimeOptions
from detect.deploy.runtimes.eager import EagerRuntime
from detect.deploy.runtimes.table import FORMATS, RUNTIMES, runtimes_of
from detect.errors import InputError
from detect.model.blocks import PredictionHead
from detect.model.checkpoint import (
    build_detector,
    build_from_checkpoint,
    build_loss,
    read_checkpoint,
    without_weights,
)
from detect.model.counts import PAPER_CLASSES
from detect.model.detector import TorchDetector
from detect.model.ssdlite import SSDLite
from detect.types import ClassMap

CONFIG_SUFFIXES = (".yaml", ".yml")
STATISTICS_IMAGES = 8
"""Generated images that set the statistics of a random network; more move its activations by little."""
LEAST_VARIANCE = 0.1
"""Least variance of a channel, as a share of its layer's mean. At 1 activations fade from layer to layer."""

PREDICTOR_SCALE = 0.2
"""Factor on the last convolutions of a random network. Its layers amplify the rounding of float32 a hundred
times as much as trained ones do: logits of torch alone are off by 1e-4, as far as an exported file may be."""


class DetectorFile(NamedTuple):
    """A detector in torch, and the checkpoint that its weights came from."""

    detector: TorchDetector
    checkpoint: Path | None
    """None: random weights."""


def exported_format(path: Path) -> str | None:
    """The format of an exported file by its name; None for a checkpoint or a config."""
    return next((format.name for format in FORMATS.values() if path.suffix == format.suffix), None)


def load_detector(path: Path) -> DetectorFile:
    """The detector of a checkpoint, or one with random weights from a config.

    Raises:
        InputError: an exported file, which torch cannot run; or see `read_checkpoint` and `build_detector`.
    """
    if exported_format(path) is not None:
        raise InputError(f"{path} is an exported file; this needs a checkpoint or a config")
    if path.suffix in CONFIG_SUFFIXES:
        return DetectorFile(detector_of_config(path), None)
    return DetectorFile(build_from_checkpoint(read_checkpoint(path)), path)


def detector_of_config(config: Path) -> TorchDetector:
    """A detector of a config with random weights: right in its shapes and its speed, not in what it finds.

    Weights of other files are not loaded. Where the config takes its classes from data, it gets as many as
    COCO has category ids.

    Raises:
        InputError: no such file, no model in it, or a wrong setting.
    """
    if not config.is_file():
        raise InputError(f"{config}: no such config")
    settings = read_model_section(config)
    if settings is None:
        raise InputError(f"{config}: has no model.backbone; an overlay alone is no model")
    return random_detector(settings)


def random_detector(settings: dict[str, Any]) -> TorchDetector:
    """As `detector_of_config`, from the plain values of a `model:` section.

    Raises:
        InputError: a wrong setting.
    """
    settings = without_weights(settings)
    num_classes = settings.get("num_classes") or PAPER_CLASSES
    loss = build_loss(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = build_detector(
            {**settings, "num_classes": num_classes},
            score_activation="softmax" if loss is None else loss.score_activation,
        )
        if loss is not None:
            detector.net.set_class_prior(loss.prior_bias(num_classes))
        set_statistics(detector.net)
        with torch.no_grad():
            for head in [*detector.net.cls_heads, *detector.net.box_heads]:
                cast(PredictionHead, head).predictor.weight *= PREDICTOR_SCALE
    labels = range(1, num_classes + 1)
    detector.classes = ClassMap(tuple(f"class {label}" for label in labels), tuple(labels))
    return detector.eval()


@torch.no_grad()
def set_statistics(net: SSDLite) -> None:
    """Give BatchNorm the statistics of generated images: activations of random weights keep a usual size.

    Without it they fade from layer to layer into denormal numbers, which make a processor many times slower.
    """
    images = input_batch(generated_images(STATISTICS_IMAGES), net.image_size, "antialias")
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0  # the statistics of one batch
    net.train()
    net(images)
    net.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        variance = norm.get_buffer("running_var")
        # On the last map, one cell wide, a channel may hardly vary: it would blow up whatever differs.
        variance.clamp_(min=LEAST_VARIANCE * variance.mean())


def open_exported(
    path: Path, runtime: str | None = None, *, options: RuntimeOptions = RuntimeOptions()
) -> Runtime:
    """Load an exported file.

    Args:
        path: the file; its suffix names the format.
        runtime: null: the format's own.
        options: threads, precision and batch.

    Raises:
        InputError: no such file, a runtime that does not read it or is not installed, or see the runtime.
    """
    format = exported_format(path)
    if format is None:
        suffixes = [known.suffix for known in FORMATS.values()]
        raise InputError(f"{path}: not an exported file; known are {', '.join(suffixes)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    able = runtimes_of(format)
    record = able[0] if runtime is None else RUNTIMES[runtime]
    if format not in record.reads:
        names = ", ".join(other.name for other in able)
        raise InputError(f"{path}: {runtime} does not read {format}; {names} does")
    return record.load(path, options)


def open_model(
    path: Path, *, options: RuntimeOptions = RuntimeOptions(), device: str | None = None
) -> Runtime:
    """Any file with a model: an exported one in its own runtime, a checkpoint or a config in torch.

    Args:
        path: the file.
        options: threads, precision and batch.
        device: for torch; null: a GPU where there is one.

    Raises:
        InputError: see `load_detector` and `open_exported`.
    """
    if exported_format(path) is not None:
        return open_exported(path, options=options)
    return EagerRuntime(load_detector(path).detector, options, device=device)
