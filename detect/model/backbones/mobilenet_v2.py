"""MobileNetV2 (arXiv 1801.04381, Table 2), tapped as its section 6.2 and the V3 paper's 6.3 say."""

from __future__ import annotations

from typing import NamedTuple

from detect.model.backbones.base import InvertedResidualBackbone
from detect.model.backbones.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Source,
    find_weights,
    load_pretrained,
)
from detect.model.blocks import ConvNormAct, ConvSettings, InvertedResidual, make_divisible


class Row(NamedTuple):
    """`repeats` blocks of the paper's Table 2, the first with `stride`. Widths are of multiplier 1.0."""

    expansion: int
    out: int
    repeats: int
    stride: int


STEM = 32

ROWS = (
    # t, c, n, s
    Row(1, 16, 1, 1),
    Row(6, 24, 2, 2),
    Row(6, 32, 3, 2),
    Row(6, 64, 4, 2),
    Row(6, 96, 3, 1),
    Row(6, 160, 3, 2),
    Row(6, 320, 1, 1),
)

LAST = 1280  # scaled below width 1.0 too, as the counts of Table 6 say; the classification network's is not

SOURCES = (
    Source(
        "torchvision",
        "MobileNet_V2_Weights.IMAGENET1K_V2",
        ConvSettings(bn_eps=1e-5),
        IMAGENET_MEAN,
        IMAGENET_STD,
    ),
    Source("timm", "mobilenetv2_100.ra_in1k", ConvSettings(bn_eps=1e-5), IMAGENET_MEAN, IMAGENET_STD),
)


class MobileNetV2(InvertedResidualBackbone):
    """MobileNetV2 up to the last layer before pooling; C4 is the expansion of block 14 (576 channels).

    Args:
        width: multiplier on every channel count, the last 1x1 included.
        settings: BatchNorm and padding. Null: those that `weights` need, else TensorFlow's.
        weights: of a classifier: "imagenet" (fetched once), a path or a `file://` URL. Null: from scratch.
    """

    name = "mobilenet_v2"

    def __init__(
        self, *, width: float = 1.0, settings: ConvSettings | None = None, weights: str | None = None
    ) -> None:
        pretrained = find_weights(weights, SOURCES, width=width)
        settings = settings or (pretrained.source.settings if pretrained else ConvSettings())

        channels = make_divisible(STEM * width)
        stem = ConvNormAct(3, channels, kernel=3, stride=2, activation="relu6", settings=settings)
        blocks: list[InvertedResidual] = []
        for row in ROWS:
            for i in range(row.repeats):
                block = InvertedResidual(
                    channels,
                    row.expansion * channels,
                    make_divisible(row.out * width),
                    kernel=3,
                    stride=row.stride if i == 0 else 1,
                    squeeze=None,
                    activation="relu6",
                    settings=settings,
                )
                blocks.append(block)
                channels = block.out_channels
        last = ConvNormAct(channels, make_divisible(LAST * width), activation="relu6", settings=settings)
        super().__init__(stem, blocks, last=last, width=width, settings=settings)
        if pretrained is not None:
            load_pretrained(self, pretrained)
