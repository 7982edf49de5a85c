"""MnasNet-A1 (arXiv 1807.11626, Figure 7a), tapped at the expansion as the V3 paper's section 6.3 says."""

from __future__ import annotations

from typing import Any

from detect.model.backbones.base import ExpansionTable
from detect.model.backbones.pretrained import Source, find_weights, load_pretrained
from detect.model.backbones.rows import ExpansionRow
from detect.model.blocks import SqueezeSettings

ROWS = (
    # t, c, n, s, k, SE
    ExpansionRow(1, 16, 1, 1),
    ExpansionRow(6, 24, 2, 2),
    ExpansionRow(3, 40, 3, 2, 5, True),
    ExpansionRow(6, 80, 4, 2),
    ExpansionRow(6, 112, 2, 1, 3, True),
    ExpansionRow(6, 160, 3, 2, 5, True),
    ExpansionRow(6, 320, 1, 1),
)

SOURCES = (Source("timm", "semnasnet_100.rmsp_in1k", SqueezeSettings(bn_eps=1e-5, squeeze_divisor=1)),)


class MnasNetA1(ExpansionTable):
    """MnasNet-A1 up to the last layer before pooling; C4 is the expansion of block 13 (672 channels).

    Args:
        width: multiplier on every channel count, the last 1x1 included.
        rows: blocks in order, each [kernel, expansion, out, SE, NL, stride] as in Tables 1 and 2 of the V3
            paper, with channels as they are: [5, 120, 40, true, RE, 1]. NL is RE, RE6 or HS.
            Null: the paper's.
        stem: channels of the first convolution. Null: the paper's 32.
        last: channels of the last 1x1, c5. Null: the paper's 1280.
        settings: BatchNorm, padding, rounding of squeeze widths. Null: those that `weights` need, else
            TensorFlow's.
        weights: of a classifier: "imagenet" (fetched once), a path or a `file://` URL. Null: from scratch.
    """

    name = "mnasnet_a1"

    def __init__(
        self,
        *,
        width: float = 1.0,
        rows: list[Any] | None = None,
        stem: int | None = None,
        last: int | None = None,
        settings: SqueezeSettings | None = None,
        weights: str | None = None,
    ) -> None:
        pretrained = find_weights(weights, SOURCES, width=width)
        settings = settings or (pretrained.source.settings if pretrained else SqueezeSettings())
        super().__init__(
            ROWS,
            rows=rows,
            stem=stem,
            last=last,
            width=width,
            nonlinearity="RE",
            settings=settings,
            gate="sigmoid",
            squeeze_divisor=settings.squeeze_divisor,
        )
        load_pretrained(self, pretrained)
