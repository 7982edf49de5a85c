"""MnasNet-A1 (arXiv 1807.11626, Figure 7a), tapped at the expansion as the V3 paper's section 6.3 says."""

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
from detect.model.blocks import ConvNormAct, InvertedResidual, SqueezeSettings, make_divisible


class Row(NamedTuple):
    """`repeats` blocks of the paper's Figure 7a, the first with `stride`. Widths are of multiplier 1.0."""

    kernel: int
    expansion: int
    out: int
    repeats: int
    stride: int
    squeeze: bool


STEM = 32

A1 = (
    # k, t, c, n, s, SE
    Row(3, 1, 16, 1, 1, False),
    Row(3, 6, 24, 2, 2, False),
    Row(5, 3, 40, 3, 2, True),
    Row(3, 6, 80, 4, 2, False),
    Row(3, 6, 112, 2, 1, True),
    Row(5, 6, 160, 3, 2, True),
    Row(3, 6, 320, 1, 1, False),
)

LAST = 1280  # scaled below width 1.0 too, as the counts of Table 6 say

SOURCES = (
    Source(
        "timm",
        "semnasnet_100.rmsp_in1k",
        SqueezeSettings(bn_eps=1e-5, squeeze_divisor=1),
        IMAGENET_MEAN,
        IMAGENET_STD,
    ),
)


class MnasNetA1(InvertedResidualBackbone):
    """MnasNet-A1 up to the last layer before pooling; C4 is the expansion of block 13 (672 channels).

    Squeeze widths are a quarter of the block's *input* (in MobileNetV3 of the expansion), gates sigmoid.

    Args:
        width: multiplier on every channel count, the last 1x1 included.
        settings: BatchNorm, padding, rounding of squeeze widths. Null: those that `weights` need, else
            TensorFlow's.
        weights: of a classifier: "imagenet" (fetched once), a path or a `file://` URL. Null: from scratch.
    """

    name = "mnasnet_a1"

    def __init__(
        self, *, width: float = 1.0, settings: SqueezeSettings | None = None, weights: str | None = None
    ) -> None:
        pretrained = find_weights(weights, SOURCES, width=width)
        settings = settings or (pretrained.source.settings if pretrained else SqueezeSettings())

        channels = make_divisible(STEM * width)
        stem = ConvNormAct(3, channels, kernel=3, stride=2, activation="relu", settings=settings)
        blocks: list[InvertedResidual] = []
        for row in A1:
            for i in range(row.repeats):
                block = InvertedResidual(
                    channels,
                    row.expansion * channels,
                    make_divisible(row.out * width),
                    kernel=row.kernel,
                    stride=row.stride if i == 0 else 1,
                    squeeze=make_divisible(channels / 4, settings.squeeze_divisor) if row.squeeze else None,
                    gate="sigmoid",
                    activation="relu",
                    settings=settings,
                )
                blocks.append(block)
                channels = block.out_channels
        last = ConvNormAct(channels, make_divisible(LAST * width), activation="relu", settings=settings)
        super().__init__(stem, blocks, last=last, width=width, settings=settings)
        if pretrained is not None:
            load_pretrained(self, pretrained)
