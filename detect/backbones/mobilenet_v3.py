"""MobileNetV3 Large and Small (arXiv 1905.02244, Tables 1 and 2), with the reduced tail of section 6.3."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

from torch import Tensor, nn

from detect.backbones.base import Backbone
from detect.blocks import Activation, ConvNormAct, ConvSettings, InvertedResidual, make_divisible


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
LAST_EXPANSION = 6  # the last 1x1 widens the last block's output six times (160 -> 960, 96 -> 576)


def simplify(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The same network without squeeze-and-excite, h-swish and 5x5 kernels.

    Source: TensorFlow's slim `mobilenet_v3.py`, V3_LARGE_MINIMALISTIC and V3_SMALL_MINIMALISTIC.
    """
    return tuple(row._replace(kernel=3, squeeze=False, nonlinearity="RE") for row in rows)


def tap_index(rows: tuple[Row, ...]) -> int:
    """Index of the block that strides from 16 to 32: the last one with stride 2."""
    return max(i for i, row in enumerate(rows) if row.stride == 2)


def reduce_tail(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Halve the output channels of every block from C4 on; an expansion follows its block's *input*.

    The first of them keeps its expansion (its input is not halved), the later ones shrink with theirs.
    Source: V3 paper section 6.3; the rule for expansions from the counts of Table 6.
    """
    tap = tap_index(rows)
    return rows[:tap] + tuple(
        row._replace(out=row.out // 2, expanded=row.expanded if i == 0 else row.expanded // 2)
        for i, row in enumerate(rows[tap:])
    )


class MobileNetV3(Backbone):
    """MobileNetV3 up to the last layer before pooling.

    Args:
        size: "large" (Table 1) or "small" (Table 2).
        reduced_tail: halve the channels of the tail between C4 and C5 (paper 6.3).
        width: multiplier on every channel count.
        minimalistic: no squeeze-and-excite, no h-swish, no 5x5 kernels.
        settings: BatchNorm and padding; weights of another source need that source's.
        squeeze_divisor: squeeze widths are rounded to multiples of this; the paper's are of 8.
    """

    def __init__(
        self,
        size: Literal["large", "small"] = "large",
        *,
        reduced_tail: bool = False,
        width: float = 1.0,
        minimalistic: bool = False,
        settings: ConvSettings = ConvSettings(),
        squeeze_divisor: int = 8,
    ) -> None:
        super().__init__()
        self.width = width
        rows = TABLES[size]
        activation: Activation = "relu" if minimalistic else "hard_swish"
        if minimalistic:
            rows = simplify(rows)
        if reduced_tail:
            rows = reduce_tail(rows)
        self.tap = tap_index(rows)

        channels = make_divisible(STEM * width)
        self.stem = ConvNormAct(3, channels, kernel=3, stride=2, activation=activation, settings=settings)
        blocks: list[InvertedResidual] = []
        for row in rows:
            expanded = make_divisible(row.expanded * width)
            block = InvertedResidual(
                channels,
                expanded,
                make_divisible(row.out * width),
                kernel=row.kernel,
                stride=row.stride,
                squeeze=make_divisible(expanded / 4, squeeze_divisor) if row.squeeze else None,
                activation=NONLINEARITIES[row.nonlinearity],
                settings=settings,
            )
            blocks.append(block)
            channels = block.out_channels
        self.blocks = nn.ModuleList(blocks)
        self.last = ConvNormAct(channels, LAST_EXPANSION * channels, activation=activation, settings=settings)
        self.out_channels = (blocks[self.tap].expanded_channels, self.last.out_channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(images)
        for block in self.blocks[: self.tap]:
            x = block(x)
        tapped = cast(InvertedResidual, self.blocks[self.tap])
        c4 = tapped.expand(x)  # paper 6.3: the expansion layer at stride 16
        x = tapped.from_expanded(c4, x)
        for block in self.blocks[self.tap + 1 :]:
            x = block(x)
        return c4, self.last(x)

    def stages(self) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {"stem": self.stem}
        parts |= {f"block{i}": block for i, block in enumerate(self.blocks, 1)}
        return parts | {"last": self.last}
