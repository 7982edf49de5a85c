"""MobileNetV1 (arXiv 1704.04861, Table 1): depthwise-separable blocks, no expansion to tap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from detect.model.backbones.base import Backbone, Tap
from detect.model.backbones.pretrained import HALF, Source, find_weights, load_pretrained
from detect.model.blocks import ConvNormAct, ConvSettings, DepthwiseSeparable, init_weights, make_divisible


class Row(NamedTuple):
    """One depthwise-separable block of the paper's Table 1. Widths are those of multiplier 1.0."""

    out: int
    stride: int


STEM = 32

ROWS = (
    Row(64, 1),
    Row(128, 2),
    Row(128, 1),
    Row(256, 2),
    Row(256, 1),
    Row(512, 2),
    *[Row(512, 1)] * 5,
    Row(1024, 2),
    Row(1024, 1),
)

# Blocks up to each tap: there is no expansion, so it is the last output at its stride.
TAPPED = {5: "c3", 11: "c4", 13: "c5"}

SOURCES = (
    Source("timm", "mobilenetv1_100.ra4_e3600_r224_in1k", ConvSettings(bn_eps=1e-5), HALF, HALF),
    Source("keras", "MobileNet", ConvSettings(padding="same"), HALF, HALF),
)


class MobileNetV1(Backbone):
    """MobileNetV1 up to the last layer before pooling.

    Args:
        width: multiplier on every channel count.
        settings: BatchNorm and padding. Null: those that `weights` need, else TensorFlow's.
        weights: of a classifier: "imagenet" (fetched once), a path or a `file://` URL. Null: from scratch.
    """

    name = "mobilenet_v1"

    def __init__(
        self, *, width: float = 1.0, settings: ConvSettings | None = None, weights: str | None = None
    ) -> None:
        super().__init__()
        pretrained = find_weights(weights, SOURCES, width=width)
        settings = settings or (pretrained.source.settings if pretrained else ConvSettings())

        channels, stride = make_divisible(STEM * width), 2
        self.taps = {}
        self.stem = ConvNormAct(3, channels, kernel=3, stride=2, activation="relu6", settings=settings)
        blocks: list[DepthwiseSeparable] = []
        for i, row in enumerate(ROWS, 1):
            block = DepthwiseSeparable(
                channels,
                make_divisible(row.out * width),
                stride=row.stride,
                activation="relu6",
                settings=settings,
            )
            blocks.append(block)
            channels, stride = block.out_channels, stride * row.stride
            if i in TAPPED:
                self.taps[TAPPED[i]] = Tap(channels, stride, source=f"output of block{i}")
        self.blocks = nn.ModuleList(blocks)
        self.width = width
        self.settings = settings
        init_weights(self, "kaiming")
        load_pretrained(self, pretrained)

    def forward(self, images: Tensor, taps: Sequence[str]) -> list[Tensor]:
        maps: dict[str, Tensor] = {}
        x = self.stem(images)
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if i in TAPPED:
                maps[TAPPED[i]] = x
        return [maps[name] for name in taps]

    def stages(self) -> dict[str, nn.Module]:
        return {"stem": self.stem} | {f"block{i}": block for i, block in enumerate(self.blocks, 1)}
