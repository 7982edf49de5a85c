"""MobileNetV1 (arXiv 1704.04861, Table 1): depthwise-separable blocks, no expansion to tap."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from detect.model.backbones.base import Backbone
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

TAP = 11  # blocks up to C4: the last output at stride 16 (512 channels), for there is no expansion to tap

SOURCES = (Source("timm", "mobilenetv1_100.ra4_e3600_r224_in1k", ConvSettings(bn_eps=1e-5), HALF, HALF),)


class MobileNetV1(Backbone):
    """MobileNetV1 up to the last layer before pooling.

    Args:
        width: multiplier on every channel count.
        settings: BatchNorm and padding. Null: those that `weights` need, else TensorFlow's.
        weights: of a classifier: "imagenet" (fetched once), a path or a `file://` URL. Null: from scratch.
    """

    name = "mobilenet_v1"
    c4_from = f"output of block{TAP}"

    def __init__(
        self, *, width: float = 1.0, settings: ConvSettings | None = None, weights: str | None = None
    ) -> None:
        super().__init__()
        pretrained = find_weights(weights, SOURCES, width=width)
        settings = settings or (pretrained.source.settings if pretrained else ConvSettings())

        channels = make_divisible(STEM * width)
        self.stem = ConvNormAct(3, channels, kernel=3, stride=2, activation="relu6", settings=settings)
        blocks: list[DepthwiseSeparable] = []
        for row in ROWS:
            block = DepthwiseSeparable(
                channels,
                make_divisible(row.out * width),
                stride=row.stride,
                activation="relu6",
                settings=settings,
            )
            blocks.append(block)
            channels = block.out_channels
        self.blocks = nn.ModuleList(blocks)
        self.width = width
        self.settings = settings
        self.out_channels = (blocks[TAP - 1].out_channels, channels)
        init_weights(self, "kaiming")
        if pretrained is not None:
            load_pretrained(self, pretrained)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(images)
        for block in self.blocks[:TAP]:
            x = block(x)
        c4 = x
        for block in self.blocks[TAP:]:
            x = block(x)
        return c4, x

    def stages(self) -> dict[str, nn.Module]:
        return {"stem": self.stem} | {f"block{i}": block for i, block in enumerate(self.blocks, 1)}
