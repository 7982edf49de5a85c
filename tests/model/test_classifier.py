"""Classifiers against torchvision's and timm's of the same random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detect.errors import InputError
from detect.model.backbones import Backbone, MnasNetA1, MobileNetV1, MobileNetV2, MobileNetV3, Timm
from detect.model.blocks import SqueezeSettings
from detect.model.classifier import Classifier, build_classifier
from detect.types import ClassMap
from tests.model.backbones.test_pretrained import randomised, save

Build = Callable[..., Backbone]
CLASSES = 1000


def copy_linears(head: nn.Module, *sources: nn.Module) -> None:
    """Weights of the linear layers (timm's first is a 1x1 convolution) in their order."""
    ours = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert len(ours) == len(sources)
    with torch.no_grad():
        for layer, source in zip(ours, sources, strict=True):
            layer.weight.copy_(source.weight.flatten(1))
            layer.bias.copy_(source.bias)


@torch.no_grad()
def assert_same_logits(classifier: Classifier, source: nn.Module) -> None:
    images = torch.randint(0, 256, (2, 3, 96, 96), generator=torch.Generator().manual_seed(1))
    mean, std = (values.view(1, 3, 1, 1) for values in (classifier.mean, classifier.std))
    theirs: Tensor = source((images / 255 - mean) / std)
    ours = classifier.eval()(images.to(torch.uint8))
    assert ours.shape == (2, CLASSES)
    assert theirs.std() > 1e-3  # not all alike
    largest = theirs.abs().max().clamp(min=1)  # random weights can make logits of some tens
    torch.testing.assert_close(ours / largest, theirs / largest, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "arguments", "name"),
    [
        (MobileNetV3, {"size": "large"}, "mobilenet_v3_large"),
        (MobileNetV3, {"size": "small"}, "mobilenet_v3_small"),
        (MobileNetV2, {}, "mobilenet_v2"),
    ],
)
def test_logits_equal_torchvision(build: Build, arguments: dict[str, Any], name: str, tmp_path: Path) -> None:
    source = randomised(getattr(torchvision.models, name)(weights=None))
    backbone = build(**arguments, weights=save(source, tmp_path / "source.pth"))
    classifier = Classifier(backbone, CLASSES)
    copy_linears(classifier.head, *(m for m in source.classifier if isinstance(m, nn.Linear)))
    assert_same_logits(classifier, source)
    assert sum(p.numel() for p in classifier.parameters()) == sum(p.numel() for p in source.parameters())


@pytest.mark.parametrize(
    ("build", "arguments", "name", "layers"),
    [
        (MobileNetV1, {}, "mobilenetv1_100", ("classifier",)),
        (MnasNetA1, {}, "semnasnet_100", ("classifier",)),
        (MobileNetV3, {"size": "small"}, "mobilenetv3_small_100", ("conv_head", "classifier")),
        (
            MobileNetV3,
            {
                **{"size": "small", "width": 0.75, "expansions": "input"},
                "settings": SqueezeSettings(padding="same"),
            },
            "tf_mobilenetv3_small_075",
            ("conv_head", "classifier"),
        ),
        (
            MobileNetV3,
            {"size": "small", "minimalistic": True},
            "tf_mobilenetv3_small_minimal_100",
            ("conv_head", "classifier"),
        ),
    ],
)
def test_logits_equal_timm(
    build: Build, arguments: dict[str, Any], name: str, layers: tuple[str, ...], tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm", reason="needs the timm extra: pip install --editable .[timm]")
    source = randomised(timm.create_model(name))
    classifier = Classifier(
        build(**arguments, weights=save(source, tmp_path / "source.safetensors")), CLASSES
    )
    copy_linears(classifier.head, *(source.get_submodule(layer) for layer in layers))
    assert_same_logits(classifier, source)


@pytest.mark.parametrize(("width", "channels"), [(0.35, 1280), (1.0, 1280), (1.4, 1792)])
def test_widths_below_one_keep_the_last_layer(width: float, channels: int) -> None:
    with torch.device("meta"):
        v2, v3 = Classifier(MobileNetV2(width=width), 10), Classifier(MobileNetV3(width=width), 10)
    assert v2.backbone.taps["c5"].channels == channels
    assert [layer.in_features for layer in v2.head if isinstance(layer, nn.Linear)] == [channels]
    assert [layer.out_features for layer in v3.head if isinstance(layer, nn.Linear)] == [channels, 10]


def test_settings_build_the_same_network() -> None:
    classifier = Classifier(MobileNetV2(width=0.35), 3, image_size=(64, 64), dropout=0.1).eval()
    classifier.classes = ClassMap(("a", "b", "c"), (1, 2, 3))
    description = classifier.describe()
    assert description["task"] == "classification"
    again = build_classifier({**description["model"], "label_smoothing": 0.1}).eval()
    again.load_state_dict(classifier.state_dict())
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again(images), classifier(images))
        # float32 in the same units, as mixed images are
        assert torch.equal(again(images.float()), again(images))


def test_dropout_is_before_the_last_layer() -> None:
    head = Classifier(MobileNetV3("small", width=0.35), 3, dropout=0.3).head
    assert [type(layer) for layer in head] == [nn.Linear, nn.Hardswish, nn.Dropout, nn.Linear]
    assert head[2].p == 0.3


def test_values_that_cannot_be_are_refused() -> None:
    small = MobileNetV3("small", width=0.35)
    with pytest.raises(InputError, match="num_classes is None"):
        Classifier(small)
    with pytest.raises(InputError, match="num_classes is 1"):
        Classifier(small, 1)
    with pytest.raises(InputError, match=r"dropout is 1\.0"):
        Classifier(small, 2, dropout=1.0)
    with pytest.raises(InputError, match="knows no classes"):
        Classifier(small, 2).describe()
    with pytest.raises(InputError, match="backbone is Timm"):
        Classifier(Timm.__new__(Timm, "lcnet_050"), 2)
