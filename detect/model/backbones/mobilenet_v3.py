"""MobileNetV3 Large and Small (arXiv 1905.02244, Tables 1 and 2), with the reduced tail of section 6.3."""

from __future__ import annotations

from typing import Literal, NamedTuple

from detect.errors import InputError
from detect.model.backbones.base import InvertedResidualBackbone
from detect.model.backbones.pretrained import HALF, Source, find_weights, load_pretrained
from detect.model.blocks import Activation, ConvNormAct, InvertedResidual, SqueezeSettings, make_divisible

Size = Literal["large", "small"]


class Row(NamedTuple):
    """One block of the paper's Table 1 or 2. Widths are those of multiplier 1.0."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    nonlinearity: Literal["RE", "HS"]
    stride: int


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
NONLINEARITIES: dict[str, Activation] = {"RE": "relu", "HS": "hard_swish"}
CLASSIFIER_CHANNELS: dict[Size, int] = {"large": 1280, "small": 1024}
LAST_EXPANSION = 6  # the last 1x1 widens the last block's output six times (160 -> 960, 96 -> 576)

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
        row._replace(out=row.out // 2, expanded=row.expanded if i == 0 else row.expanded // 2)
        for i, row in enumerate(rows[tap:])
    )


class MobileNetV3(InvertedResidualBackbone):
    """MobileNetV3 up to the last layer before pooling.

    C4 is the expansion of block 13 in Large (672 channels), of block 9 in Small (288).

    Args:
        size: "large" (Table 1) or "small" (Table 2).
        reduced_tail: halve the channels of the tail between C4 and C5 (paper 6.3).
        width: multiplier on every channel count.
        minimalistic: no squeeze-and-excite, no h-swish, no 5x5 kernels.
        settings: BatchNorm, padding, rounding of squeeze widths. Null: those that `weights` need, else
            TensorFlow's.
        weights: of a classifier: "imagenet" (fetched once), a path or a `file://` URL. Null: from scratch.

    Raises:
        InputError: a squeeze divisor for a minimalistic network; besides, see `find_weights`.
    """

    def __init__(
        self,
        size: Size = "large",
        *,
        reduced_tail: bool = False,
        width: float = 1.0,
        minimalistic: bool = False,
        settings: SqueezeSettings | None = None,
        weights: str | None = None,
    ) -> None:
        sources = (MINIMALISTIC_SOURCES if minimalistic else SOURCES)[size]
        pretrained = find_weights(weights, sources, width=width)
        settings = settings or (pretrained.source.settings if pretrained else SqueezeSettings())
        if minimalistic and settings.squeeze_divisor != SqueezeSettings.squeeze_divisor:
            raise InputError(
                f"settings.squeeze_divisor is {settings.squeeze_divisor}, but a minimalistic network has no "
                "squeeze-and-excite: leave it out"
            )
        activation: Activation = "relu" if minimalistic else "hard_swish"
        rows = simplify(TABLES[size]) if minimalistic else TABLES[size]
        channels = make_divisible(STEM * width)
        stem = ConvNormAct(3, channels, kernel=3, stride=2, activation=activation, settings=settings)
        blocks = _blocks(reduce_tail(rows) if reduced_tail else rows, channels, width, settings)
        channels = blocks[-1].out_channels
        last = ConvNormAct(channels, LAST_EXPANSION * channels, activation=activation, settings=settings)
        super().__init__(stem, blocks, last=last, width=width, settings=settings)
        self.name = f"mobilenet_v3_{size}" + ("_minimalistic" if minimalistic else "")
        self.reduced_tail = reduced_tail
        # As in MobileNetV2, width multipliers below 1 leave the last layer before the classes alone.
        self.classifier_layer = (make_divisible(CLASSIFIER_CHANNELS[size] * max(1.0, width)), activation)
        load_pretrained(self, pretrained)


def _blocks(
    rows: tuple[Row, ...], channels: int, width: float, settings: SqueezeSettings
) -> list[InvertedResidual]:
    """The blocks of a table, the first on `channels`."""
    blocks = []
    for row in rows:
        expanded = make_divisible(row.expanded * width)
        block = InvertedResidual(
            channels,
            expanded,
            make_divisible(row.out * width),
            kernel=row.kernel,
            stride=row.stride,
            squeeze=make_divisible(expanded / 4, settings.squeeze_divisor) if row.squeeze else None,
            activation=NONLINEARITIES[row.nonlinearity],
            settings=settings,
        )
        blocks.append(block)
        channels = block.out_channels
    return blocks
