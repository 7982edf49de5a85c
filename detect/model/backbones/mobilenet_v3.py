"""MobileNetV3 Large and Small (arXiv 1905.02244, Tables 1 and 2), with the reduced tail of section 6.3."""

from __future__ import annotations

from typing import Any, Literal

from detect.errors import InputError
from detect.model.backbones.base import InvertedResidualBackbone
from detect.model.backbones.pretrained import HALF, Source, find_weights, load_pretrained
from detect.model.backbones.rows import Row, channels_at, read_rows, scale_rows, widen_by_input
from detect.model.blocks import Activation, SqueezeSettings, make_divisible

Size = Literal["large", "small"]
Expansions = Literal["input"]


STEM = 16

LARGE = (
    # kernel, expansion, out, SE, NL, stride
    Row(3, 16, 16, False, "RE", 1),
    Row(3, 64, 24, False, "RE", 2),
    Row(3, 72, 24, False, "RE", 1),
    Row(5, 72, 40, True, "RE", 2),
    Row(5, 120, 40, True, "RE", 1),
    Row(5, 120, 40, True, "RE", 1),
    Row(3, 240, 80, False, "HS", 2),
    Row(3, 200, 80, False, "HS", 1),
    Row(3, 184, 80, False, "HS", 1),
    Row(3, 184, 80, False, "HS", 1),
    Row(3, 480, 112, True, "HS", 1),
    Row(3, 672, 112, True, "HS", 1),
    Row(5, 672, 160, True, "HS", 2),
    Row(5, 960, 160, True, "HS", 1),
    Row(5, 960, 160, True, "HS", 1),
)

SMALL = (
    Row(3, 16, 16, True, "RE", 2),
    Row(3, 72, 24, False, "RE", 2),
    Row(3, 88, 24, False, "RE", 1),
    Row(5, 96, 40, True, "HS", 2),
    Row(5, 240, 40, True, "HS", 1),
    Row(5, 240, 40, True, "HS", 1),
    Row(5, 120, 48, True, "HS", 1),
    Row(5, 144, 48, True, "HS", 1),
    Row(5, 288, 96, True, "HS", 2),
    Row(5, 576, 96, True, "HS", 1),
    Row(5, 576, 96, True, "HS", 1),
)

TABLES = {"large": LARGE, "small": SMALL}
CLASSIFIER_CHANNELS: dict[Size, int] = {"large": 1280, "small": 1024}
LAST_EXPANSION = 6  # the last 1x1 widens the last block's output six times (160 -> 960, 96 -> 576)

NO_SQUEEZE = (
    "settings.squeeze_divisor is {}, but a minimalistic network has no squeeze-and-excite: leave it out"
)

Sources = dict[Size, tuple[Source[SqueezeSettings], ...]]

SOURCES: Sources = {
    "large": (
        Source("torchvision", "MobileNet_V3_Large_Weights.IMAGENET1K_V2", SqueezeSettings()),
        Source("timm", "mobilenetv3_large_100.ra_in1k", SqueezeSettings(bn_eps=1e-5)),
        Source("keras", "MobileNetV3Large", SqueezeSettings(padding="same"), HALF, HALF),
    ),
    "small": (
        Source("torchvision", "MobileNet_V3_Small_Weights.IMAGENET1K_V1", SqueezeSettings()),
        Source("timm", "mobilenetv3_small_100.lamb_in1k", SqueezeSettings(bn_eps=1e-5)),
        Source("keras", "MobileNetV3Small", SqueezeSettings(padding="same"), HALF, HALF),
    ),
}
# Converted from TensorFlow's own checkpoints, hence its padding.
MINIMALISTIC_SOURCES: Sources = {
    size: (
        Source(
            "timm", f"tf_mobilenetv3_{size}_minimal_100.in1k", SqueezeSettings(padding="same"), HALF, HALF
        ),
        Source("keras", f"MobileNetV3{size.capitalize()}", SqueezeSettings(padding="same"), HALF, HALF),
    )
    for size in ("large", "small")
}


def simplify(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The same network without squeeze-and-excite, h-swish and 5x5 kernels.

    Source: TensorFlow's slim `mobilenet_v3.py`, V3_LARGE_MINIMALISTIC and V3_SMALL_MINIMALISTIC.
    """
    return tuple(row._replace(kernel=3, squeeze=False, nonlinearity="RE") for row in rows)


def reduce_tail(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Halve the output channels of every block from C4 on; an expansion follows its block's *input*.

    The first of them keeps its expansion (its input is not halved), the later ones shrink with theirs.
    Source: V3 paper section 6.3; the rule for expansions from the counts of Table 6.
    """
    tap = max(i for i, row in enumerate(rows) if row.stride == 2)  # strides from 16 to 32
    return rows[:tap] + tuple(
        row._replace(out=row.out // 2, expansion=row.expansion if i == 0 else row.expansion // 2)
        for i, row in enumerate(rows[tap:])
    )


class MobileNetV3(InvertedResidualBackbone):
    """MobileNetV3 up to the last layer before pooling.

    C4 is the expansion of block 13 in Large (672 channels), of block 9 in Small (288).

    Args:
        size: "large" (Table 1) or "small" (Table 2).
        reduced_tail: halve the channels of the tail between C4 and C5 (paper 6.3).
        width: multiplier on every channel count.
        expansions: how other widths than 1.0 widen a block. Null: the table's expansion times the width, as
            in torchvision. "input": its ratio times the rounded channels of the block's input, as in
            TensorFlow's slim, timm and the paper's counts.
        minimalistic: no squeeze-and-excite, no h-swish, no 5x5 kernels; with `rows`, a ReLU in the first
            and the last convolution.
        rows: blocks in order, each [kernel, expansion, out, SE, NL, stride] as in Tables 1 and 2, with
            channels as they are: [5, 240, 40, true, HS, 1]. SE is true or false, NL is RE, RE6 or HS. Null:
            the paper's.
        stem: channels of the first convolution. Null: the paper's 16.
        last: channels of the last 1x1, c5. Null: the paper's, six times the last block's output.
        settings: BatchNorm, padding, rounding of squeeze widths. Null: those that `weights` need, else
            TensorFlow's.
        weights: of a classifier: "imagenet" (fetched once), a path or a `file://` URL. Null: from scratch.

    Raises:
        InputError: a squeeze divisor for a minimalistic network, wrong `rows`; besides, see `find_weights`.
    """

    def __init__(
        self,
        size: Size = "large",
        *,
        reduced_tail: bool = False,
        width: float = 1.0,
        expansions: Expansions | None = None,
        minimalistic: bool = False,
        rows: list[Any] | None = None,
        stem: int | None = None,
        last: int | None = None,
        settings: SqueezeSettings | None = None,
        weights: str | None = None,
    ) -> None:
        sources = (MINIMALISTIC_SOURCES if minimalistic else SOURCES)[size]
        pretrained = find_weights(weights, sources, width=width)
        settings = settings or (pretrained.source.settings if pretrained else SqueezeSettings())
        if minimalistic and settings.squeeze_divisor != SqueezeSettings.squeeze_divisor:
            raise InputError(NO_SQUEEZE.format(settings.squeeze_divisor))
        if rows is not None and reduced_tail:
            raise InputError("backbone.rows states the tail itself: leave reduced_tail out")
        activation: Activation = "relu" if minimalistic else "hard_swish"
        tables = _paper_rows(size, reduced_tail=reduced_tail, minimalistic=minimalistic)
        paper, paper_last = _at_width(tables, width, expansions)
        own, usual_last = paper, paper_last
        if rows is not None:
            own, usual_last = _at_width(read_rows(rows), width, expansions, stem=stem or STEM)
        paper_stem = make_divisible(STEM * width)
        super().__init__(
            own,
            stem=paper_stem if stem is None else channels_at(width, stem),
            last=usual_last if last is None else channels_at(width, last),
            width=width,
            activation=activation,
            settings=settings,
            squeeze_divisor=settings.squeeze_divisor,
        )
        self.name = f"mobilenet_v3_{size}" + ("_minimalistic" if minimalistic else "")
        self.note_own_rows(paper, stem=paper_stem, last=paper_last)
        self.reduced_tail = reduced_tail
        # As in MobileNetV2, width multipliers below 1 leave the last layer before the classes alone.
        self.classifier_layer = (make_divisible(CLASSIFIER_CHANNELS[size] * max(1.0, width)), activation)
        load_pretrained(self, pretrained)


def _at_width(
    table: tuple[Row, ...], width: float, expansions: Expansions | None, *, stem: int = STEM
) -> tuple[tuple[Row, ...], int]:
    """The rows at a width, and the channels of the last 1x1 where none are given."""
    if expansions is None:
        rows = scale_rows(table, width)
        return rows, LAST_EXPANSION * rows[-1].out
    # slim's table has the channels of the last 1x1, not a ratio
    return widen_by_input(table, stem=stem, width=width), channels_at(width, LAST_EXPANSION * table[-1].out)


def _paper_rows(size: Size, *, reduced_tail: bool, minimalistic: bool) -> tuple[Row, ...]:
    rows = simplify(TABLES[size]) if minimalistic else TABLES[size]
    return reduce_tail(rows) if reduced_tail else rows
