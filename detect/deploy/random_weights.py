"""A detector of a config with random weights: right in its shapes and its speed, not in what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from detect.config.model_section import read_model_section
from detect.data.augment.view import input_batch
from detect.data.synthetic.images import generated_images
from detect.errors import InputError
from detect.model.blocks import PredictionHead
from detect.model.checkpoint import build_detector, build_loss, without_weights
from detect.model.counts import PAPER_CLASSES
from detect.model.detector import TorchDetector
from detect.model.ssdlite import SSDLite
from detect.model.thresholds import logit
from detect.types import ClassMap

CLASS_PRIOR = 0.002
"""Score of each class against the background. As in a trained detector few anchors may hold an object, which
post-processing need not look at: of a trained SSDLite+ 1 to 7 % at a threshold of 0.01."""
STATISTICS_IMAGES = 8
"""Generated images that set the statistics of a random network; more move its activations by little."""
LEAST_VARIANCE = 0.1
"""Least variance of a channel, as a share of its layer's mean. At 1 activations fade from layer to layer."""

PREDICTOR_SCALE = 0.2
"""Factor on the last convolutions of a random network. Its layers amplify the rounding of float32 a hundred
times as much as trained ones do: logits of torch alone are off by 1e-4, as far as an exported file may be."""


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


def random_detector(settings: dict[str, Any], *, statistics: bool = True) -> TorchDetector:
    """As `detector_of_config`, from the plain values of a `model:` section.

    Args:
        settings: the section.
        statistics: see `set_statistics`; False where its shapes alone are used.

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
        detector.net.set_class_prior(torch.tensor([0.0] + [logit(CLASS_PRIOR)] * num_classes))
        if statistics:
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
