"""A backbone with the classifier of its paper, for pretraining: images in, a logit per class out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detect.config.unknown_keys import build
from detect.errors import InputError
from detect.model.backbones import Backbone, Timm
from detect.model.blocks import ACTIVATIONS, Activation, normalize
from detect.model.checkpoint import TRAINING_KEYS, Checkpoint, without_weights
from detect.model.checkpoint_format import describe_network
from detect.types import ClassMap

INPUT_SIZE = (224, 224)
"""(H, W) px: the papers'."""
LINEAR_STD = 0.01
"""Of fresh linear layers, as torchvision's MobileNets have it."""
OWN_TRAINING_KEYS = TRAINING_KEYS | {"label_smoothing", "mixup_alpha", "cutmix_alpha"}
"""Keys of a `model:` section that say how a classifier is trained, not what it is."""


class Classifier(nn.Module):
    """A classification network.

    The head is the published one: the mean over the map, in MobileNetV3 a 1x1 with bias and h-swish, dropout,
    and a linear layer.

    Args:
        backbone: a class of detect.model.backbones but Timm.
        num_classes: K; null: taken from the data by the command line.
        image_size: height and width of the input in px.
        dropout: share of the last layer's inputs that is left out in training; the papers' is 0.2.
        channels_last: hold images and weights in the memory layout that convolutions are faster in.

    Raises:
        InputError: a number is out of range, or the backbone is timm's.

    Source: V3 paper Tables 1 and 2, and its section 5.1; V2 paper Table 2; V1 paper Table 1.
    """

    classes: ClassMap | None = None
    """Names; null until trained or loaded."""

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int | None = None,
        *,
        image_size: tuple[int, int] = INPUT_SIZE,
        dropout: float = 0.2,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if num_classes is None or num_classes < 2:
            raise InputError(f"model.num_classes is {num_classes}: give 2 or more, or data to take it from")
        if not 0 <= dropout < 1:
            raise InputError(f"model.dropout is {dropout}: give a share of 0 or more, below 1")
        if isinstance(backbone, Timm):
            raise InputError("model.backbone is Timm: timm has scripts of its own that train its networks")
        self.image_size = image_size
        self.num_classes, self.dropout, self.channels_last = num_classes, dropout, channels_last
        backbone.widen_for_classes()
        self.backbone = backbone
        self.head = make_head(
            backbone.taps["c5"].channels, backbone.classifier_layer, num_classes, dropout=dropout
        )
        self.register_buffer("mean", torch.tensor(backbone.mean), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std), persistent=False)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    mean: Tensor
    std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """(B, K) logits of (B, 3, H, W) images, uint8 or float32 in the same 0..255 units."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        (c5,) = self.backbone(normalize(images, self.mean, self.std), ["c5"])
        logits: Tensor = self.head(c5.mean(dim=(2, 3)))
        return logits

    def to_settings(self) -> dict[str, Any]:
        """Arguments that build this network without other weights, in plain values."""
        return {
            "backbone": self.backbone.network_settings(),
            "num_classes": self.num_classes,
            "image_size": list(self.image_size),
            "dropout": self.dropout,
            "channels_last": self.channels_last,
        }

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must say so that it can be used alone: plain values only.

        Raises:
            InputError: the classifier does not know its classes yet.
        """
        shared = describe_network(
            "classifier",
            self.backbone,
            self.classes,
            model=self.to_settings(),
            input={
                "image_size": list(self.image_size),
                "mean": self.mean.tolist(),
                "std": self.std.tolist(),
            },
        )
        return shared | {"task": "classification"}


def make_head(
    channels: int, layer: tuple[int, Activation] | None, num_classes: int, *, dropout: float
) -> nn.Sequential:
    """(B, channels) means of the last map to (B, K) logits.

    Args:
        channels: of the last map.
        layer: outputs and activation of the 1x1 before dropout, on one cell a linear layer; None: none.
        num_classes: K.
        dropout: see `Classifier`.
    """
    layers: list[nn.Module] = []
    if layer is not None:
        layers += [nn.Linear(channels, layer[0]), ACTIVATIONS[layer[1]]()]
        channels = layer[0]
    layers += [nn.Dropout(dropout), nn.Linear(channels, num_classes)]
    for module in layers:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=LINEAR_STD)
            nn.init.zeros_(module.bias)
    return nn.Sequential(*layers)


def build_classifier(settings: dict[str, Any]) -> Classifier:
    """Build a classifier from the plain values of a `model:` section; keys that only train it are left out.

    Raises:
        InputError: a key or value that the classifier does not take; the message names its path.
    """
    # Here and not above: a file that is only read needs no parser.
    from jsonargparse import ArgumentParser

    own = {key: value for key, value in settings.items() if key not in OWN_TRAINING_KEYS}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Classifier, "model")
    classifier: Classifier = build(parser, {"model": own}, what="model settings").model
    return classifier


def classifier_from_checkpoint(checkpoint: Checkpoint) -> Classifier:
    """The classifier of a checkpoint in evaluation mode; no other weights are read or downloaded.

    Raises:
        InputError: weights and settings in the file do not fit each other.
    """
    classifier = build_classifier(without_weights(checkpoint.description["model"]))
    classifier.classes = checkpoint.classes
    classifier.backbone.weights_origin = checkpoint.description.get("weights_origin")
    try:
        classifier.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise InputError(
            f"{checkpoint.path}: weights do not fit the settings in the file: {error}"
        ) from error
    return classifier.eval()
