"""MobileNetV2 (arXiv 1801.04381, Table 2), tapped as its section 6.2 and the V3 paper's 6.3 say."""

from __future__ import annotations

from typing import Any

from detect.model.backbones.base import ExpansionTable
from detect.model.backbones.pretrained import HALF, Source, find_weights, load_pretrained
from detect.model.backbones.rows import ExpansionRow
from detect.model.blocks import ConvSettings

ROWS = (
    # t, c, n, s
    ExpansionRow(1, 16, 1, 1),
    ExpansionRow(6, 24, 2, 2),
    ExpansionRow(6, 32, 3, 2),
    ExpansionRow(6, 64, 4, 2),
    ExpansionRow(6, 96, 3, 1),
    ExpansionRow(6, 160, 3, 2),
    ExpansionRow(6, 320, 1, 1),
)

SOURCES = (
    Source("torchvision", "MobileNet_V2_Weights.IMAGENET1K_V2", ConvSettings(bn_eps=1e-5)),
    Source("timm", "mobilenetv2_100.ra_in1k", ConvSettings(bn_eps=1e-5)),
    Source("keras", "MobileNetV2", ConvSettings(padding="same"), HALF, HALF),
)


class MobileNetV2(ExpansionTable):
    """MobileNetV2 up to the last layer before pooling; C4 is the expansion of block 14 (576 channels).

    Args:
        width: multiplier on every channel count, the last 1x1 included.
        rows: blocks in order, each [kernel, expansion, out, SE, NL, stride] as in Tables 1 and 2 of the V3
            paper, with channels as they are: [3, 192, 32, false, RE6, 1]. NL is RE, RE6 or HS.
            Null: the paper's.
        stem: channels of the first convolution. Null: the paper's 32.
        last: channels of the last 1x1, c5. Null: the paper's 1280.
        settings: BatchNorm and padding. Null: those that `weights` need, else TensorFlow's.
        weights: of a classifier: "imagenet" (fetched once), a path or a `file://` URL. Null: from scratch.
    """

    name = "mobilenet_v2"

    def __init__(
        self,
        *,
        width: float = 1.0,
        rows: list[Any] | None = None,
        stem: int | None = None,
        last: int | None = None,
        settings: ConvSettings | None = None,
        weights: str | None = None,
    ) -> None:
        pretrained = find_weights(weights, SOURCES, width=width)
        settings = settings or (pretrained.source.settings if pretrained else ConvSettings())
        super().__init__(
            ROWS, rows=rows, stem=stem, last=last, width=width, nonlinearity="RE6", settings=settings
        )
        load_pretrained(self, pretrained)
