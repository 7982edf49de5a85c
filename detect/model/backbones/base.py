"""What a backbone gives a detector: maps at named taps; and what most families share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor, nn

from detect.errors import InputError
from detect.model.backbones.rows import (
    NONLINEARITIES,
    ExpansionRow,
    Nonlinearity,
    Row,
    channels_at,
    read_rows,
    scale_rows,
    unroll,
)
from detect.model.blocks import (
    Activation,
    ConvNormAct,
    ConvSettings,
    Gate,
    Init,
    InvertedResidual,
    NormSettings,
    init_weights,
    make_divisible,
)
from detect.model.configurable import Configurable

Rgb = tuple[float, float, float]
Action = Literal["copied", "sliced", "fresh"]

TAP_NAMES = {8: "c3", 16: "c4", 32: "c5"}
"""The tap of the papers at each stride, in input px per cell."""
OUTPUT_NAMES = {8: "out3", 16: "out4", 32: "out5"}
"""The output of the last block at each stride: fewer channels than an expansion, for necks."""


OWN_ROWS = "own_rows"
"""Behind the name of a family where a configuration gives another table than its paper."""


class Tap(NamedTuple):
    """A map that can be taken from a backbone, or that a neck gives."""

    channels: int
    stride: int
    """Input px per cell."""
    source: str = ""
    """The place where it is taken, in words, by the names of `stages`: "expansion of block13"."""


class Transfer(NamedTuple):
    """What pretrained weights did to one layer: a convolution and its BatchNorm, or a squeeze-and-excite."""

    layer: str
    action: Action
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None
    """Null where the source has no such layer."""


class Backbone(Configurable, nn.Module, ABC):
    """A classification network without its classifier, tapped at strides 8, 16 and 32.

    `c3` and `c4` are the expansion layers (after norm and activation) of the blocks that stride from 8 to 16
    and from 16 to 32, `c5` is the last layer before pooling. Source: "Searching for MobileNetV3" section 6.3,
    MobileNetV2 6.2. `out3`, `out4` and `out5`, where there are any, are the outputs of the last blocks at
    those strides.
    """

    name: str
    """Family and size, for tables: "mobilenet_v3_large"."""
    taps: dict[str, Tap]
    """The maps that a detector may take, by name, from the finest to the coarsest."""
    width: float = 1.0
    """The width multiplier; the extra levels of a detector scale with it (paper Table 6, 0.35 and 0.5)."""
    reduced_tail: bool = False
    """Channels between c4 and c5 halved (V3 paper 6.3)."""
    settings: NormSettings
    """As chosen: given by the user, or by the source of the weights."""
    mean: Rgb = (0.5, 0.5, 0.5)
    """Mean of each channel in 0..1; a detector normalises its input with it unless told otherwise."""
    std: Rgb = (0.5, 0.5, 0.5)
    weights_origin: dict[str, str] | None = None
    """Name, licence and hash of pretrained weights, for checkpoints; null where there are none."""
    transfer_report: Sequence[Transfer] = ()
    """What became of each layer when pretrained weights were loaded."""
    classifier_layer: tuple[int, Activation] | None = None
    """Outputs and activation of the 1x1 that a classifier has behind its pooling; null: there is none."""

    def resolved_args(self) -> dict[str, Any]:
        """Constructor arguments that pretrained weights decided; they build the network without them."""
        return {"settings": asdict(self.settings)}

    def network_settings(self) -> dict[str, Any]:
        """`{class_path, init_args}` that build this network without other weights, in plain values."""
        given = self.to_settings()
        if "weights" in given["init_args"]:
            given["init_args"]["weights"] = None
        if self.weights_origin is not None:
            given["init_args"] |= self.resolved_args()
        return given

    def init_weights(self, scheme: Init) -> None:
        """Draw every convolution anew, unless pretrained weights were loaded."""
        if self.weights_origin is None:
            init_weights(self, scheme)

    def trim(self, taps: Sequence[str]) -> None:
        """Delete the layers after the last of `taps`: they would learn nothing."""

    def widen_for_classes(self) -> None:
        """Give the last layer the width that a classifier has, where a detector's is narrower."""

    @abstractmethod
    def forward(self, images: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """The maps of the named taps, in the order of their names.

        Args:
            images: normalised (B, 3, H, W).
            taps: names in `self.taps`, from fine to coarse; the last is one of the coarsest.

        Returns:
            (B, channels, H / stride, W / stride) each, sizes rounded up.
        """

    @abstractmethod
    def stages(self) -> dict[str, nn.Module]:
        """Named parts from input to output, for freezing and for learning rates by depth."""


class InvertedResidualBackbone(Backbone):
    """A stem, inverted residual blocks and a last 1x1: MobileNetV2, MobileNetV3 and MnasNet.

    Args:
        rows: of the blocks in order; four of stride 2. Their widths are meant as they are.
        stem: channels of the first convolution, stride 2.
        last: channels of the 1x1 before pooling, whose output is c5.
        width: the multiplier that the channels were made with.
        activation: of the stem and of the last 1x1.
        settings: of every block.
        gate: of squeeze-and-excite.
        squeeze_of: a squeeze width is a quarter of this, rounded.
        squeeze_divisor: to multiples of so many.
    """

    rows: tuple[Row, ...]
    """The blocks as they are, for who prints or changes the network."""

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        stem: int,
        last: int,
        width: float,
        activation: Activation,
        settings: ConvSettings,
        gate: Gate = "hard_sigmoid",
        squeeze_of: Literal["expansion", "input"] = "expansion",
        squeeze_divisor: int = 8,
    ) -> None:
        super().__init__()
        _refuse_no_channels(stem=stem, last=last)
        self.rows = tuple(rows)
        self.stem = ConvNormAct(3, stem, kernel=3, stride=2, activation=activation, settings=settings)
        blocks: list[InvertedResidual] = []
        channels = stem
        for row in rows:
            squeezed = row.expansion if squeeze_of == "expansion" else channels
            block = InvertedResidual(
                channels,
                row.expansion,
                row.out,
                kernel=row.kernel,
                stride=row.stride,
                squeeze=make_divisible(squeezed / 4, squeeze_divisor) if row.squeeze else None,
                gate=gate,
                activation=NONLINEARITIES[row.nonlinearity],
                settings=settings,
            )
            blocks.append(block)
            channels = row.out
        self.blocks = nn.ModuleList(blocks)
        self.last: ConvNormAct | None = ConvNormAct(channels, last, activation=activation, settings=settings)
        self.width = width
        self.settings = settings
        self._find_taps(blocks, last)
        init_weights(self, "kaiming")

    def _find_taps(self, blocks: Sequence[InvertedResidual], last: int) -> None:
        self.taps = {}
        self.expansions: dict[int, str] = {}
        """The tap at each block whose expansion is one, by index into `blocks`."""
        self.outputs: dict[int, str] = {}
        """The tap at each block whose output is one."""
        stride = 2  # of the stem
        for i, block in enumerate(blocks):
            if block.stride == 2 and stride in TAP_NAMES:
                self._tap_output(i - 1, stride)
                name = self.expansions[i] = TAP_NAMES[stride]
                self.taps[name] = Tap(block.expanded_channels, stride, source=f"expansion of block{i + 1}")
            stride *= block.stride
        self._tap_output(len(blocks) - 1, stride)
        self.taps["c5"] = Tap(last, stride, source="last")

    def _tap_output(self, i: int, stride: int) -> None:
        name = self.outputs[i] = OUTPUT_NAMES[stride]
        block = cast(InvertedResidual, self.blocks[i])
        self.taps[name] = Tap(block.out_channels, stride, source=f"output of block{i + 1}")

    def note_own_rows(self, rows: Sequence[Row], *, stem: int, last: int) -> None:
        """Give a network another name than its paper's where its table is another."""
        first, final = self.stem, self.last
        assert final is not None
        if (self.rows, first.out_channels, final.out_channels) != (tuple(rows), stem, last):
            self.name = f"{self.name}_{OWN_ROWS}"

    def trim(self, taps: Sequence[str]) -> None:
        """Delete the last 1x1 where the output of the last block is the coarsest map."""
        if "c5" not in taps:
            self.last = None

    def forward(self, images: Tensor, taps: Sequence[str]) -> list[Tensor]:
        maps: dict[str, Tensor] = {}
        x = self.stem(images)
        for i, module in enumerate(self.blocks):
            block = cast(InvertedResidual, module)
            name = self.expansions.get(i)
            # V3 paper 6.3, V2 paper 6.2: the expansion layer, before its block strides.
            if name is not None and name in taps:
                maps[name] = block.expand(x)
                x = block.from_expanded(maps[name], x)
            else:
                x = block(x)
            if i in self.outputs:
                maps[self.outputs[i]] = x
        if self.last is not None:
            maps["c5"] = self.last(x)
        return [maps[name] for name in taps]

    def stages(self) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {"stem": self.stem}
        parts |= {f"block{i}": block for i, block in enumerate(self.blocks, 1)}
        return parts if self.last is None else parts | {"last": self.last}


def _refuse_no_channels(**widths: int) -> None:
    for name, channels in widths.items():
        if channels < 1:
            raise InputError(f"backbone.{name} is {channels}; give a number of channels, at least 1")


class ExpansionTable(InvertedResidualBackbone):
    """A network that its paper states as a table of expansion factors: MobileNetV2 and MnasNet.

    Args:
        table: the paper's.
        rows: of a configuration, in place of the table; None: the paper's.
        stem: of a configuration, likewise.
        last: of a configuration, likewise.
        width: multiplier on all of them.
        nonlinearity: of every block of the paper's, of the stem and of the last 1x1.
        settings: of every block.
        gate: of squeeze-and-excite.
        squeeze_divisor: see `InvertedResidualBackbone`; a squeeze width is of the block's *input*.
    """

    stem_channels = 32
    last_channels = 1280
    """Scaled below width 1.0 too, as the counts of Table 6 say; a classification network's are not."""

    def __init__(
        self,
        table: Sequence[ExpansionRow],
        *,
        rows: list[Any] | None,
        stem: int | None,
        last: int | None,
        width: float,
        nonlinearity: Nonlinearity,
        settings: ConvSettings,
        gate: Gate = "hard_sigmoid",
        squeeze_divisor: int = 8,
    ) -> None:
        paper_stem = make_divisible(self.stem_channels * width)
        paper_rows = unroll(table, stem=paper_stem, width=width, nonlinearity=nonlinearity)
        super().__init__(
            paper_rows if rows is None else scale_rows(read_rows(rows), width),
            stem=paper_stem if stem is None else channels_at(width, stem),
            last=make_divisible(self.last_channels * width) if last is None else channels_at(width, last),
            width=width,
            activation=NONLINEARITIES[nonlinearity],
            settings=settings,
            gate=gate,
            squeeze_of="input",
            squeeze_divisor=squeeze_divisor,
        )
        self._own_last = last is not None
        self._activation = NONLINEARITIES[nonlinearity]
        self.note_own_rows(paper_rows, stem=paper_stem, last=make_divisible(self.last_channels * width))

    def widen_for_classes(self) -> None:
        """Below width 1.0 a classifier keeps all 1280 channels of the last 1x1 (V2 paper, section 5).

        A layer that is made for it is fresh. A width that was given is kept.
        """
        settings = self.settings
        assert isinstance(settings, ConvSettings)
        if self.width < 1 and not self._own_last:
            channels = cast(InvertedResidual, self.blocks[-1]).out_channels
            self.last = ConvNormAct(
                channels, self.last_channels, activation=self._activation, settings=settings
            )
            init_weights(self.last, "kaiming")
            self.taps["c5"] = self.taps["c5"]._replace(channels=self.last_channels)
