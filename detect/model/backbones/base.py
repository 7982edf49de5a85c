"""What a backbone owes a detector: two maps, their channels and strides; and what most families share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor, nn

from detect.model.blocks import ConvNormAct, ConvSettings, Init, InvertedResidual, init_weights
from detect.model.configurable import Configurable

Rgb = tuple[float, float, float]
Action = Literal["copied", "sliced", "fresh"]


class Transfer(NamedTuple):
    """What pretrained weights did to one layer: a convolution and its BatchNorm, or a squeeze-and-excite."""

    layer: str
    action: Action
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None
    """Null where the source has no such layer."""


class Backbone(Configurable, nn.Module, ABC):
    """A classification network without its classifier, tapped twice.

    `c4` is the expansion layer of the last block that strides from 16 to 32 (after norm and activation),
    `c5` the last layer before pooling. Source: "Searching for MobileNetV3" section 6.3, MobileNetV2 6.2.
    """

    name: str
    """Family and size, for tables: "mobilenet_v3_large"."""
    out_channels: tuple[int, int]
    """Channels of c4 and c5."""
    strides: tuple[int, int] = (16, 32)
    """Input pixels per cell of c4 and c5."""
    width: float = 1.0
    """The width multiplier; the extra levels of a detector scale with it (paper Table 6, 0.35 and 0.5)."""
    c4_from: str = ""
    """Where c4 is taken, in words, by the names of `stages`."""
    reduced_tail: bool = False
    """Channels between c4 and c5 halved (V3 paper 6.3)."""
    settings: ConvSettings
    """As chosen: given by the user, or by the source of the weights."""
    mean: Rgb = (0.5, 0.5, 0.5)
    """Of each channel in 0..1; what a detector normalises its input with unless told otherwise."""
    std: Rgb = (0.5, 0.5, 0.5)
    weights_origin: dict[str, str] | None = None
    """Name, licence and hash of pretrained weights, for checkpoints; null where there are none."""
    transfer_report: Sequence[Transfer] = ()
    """What became of each layer when pretrained weights were loaded."""

    def resolved_args(self) -> dict[str, Any]:
        """Constructor arguments that pretrained weights decided; they build the network without them."""
        return {"settings": asdict(self.settings)}

    def init_weights(self, scheme: Init) -> None:
        """Draw every convolution anew, unless pretrained weights were loaded."""
        if self.weights_origin is None:
            init_weights(self, scheme)

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) to c4 (B, C4, H / 16, W / 16) and c5 (B, C5, H / 32, W / 32).

        Sizes are rounded up.
        """

    @abstractmethod
    def stages(self) -> dict[str, nn.Module]:
        """Named parts from input to output, for freezing and for learning rates by depth."""


class InvertedResidualBackbone(Backbone):
    """A stem, inverted residual blocks and a last 1x1: MobileNetV2, MobileNetV3 and MnasNet.

    Args:
        stem: the first convolution, stride 2.
        blocks: all blocks in order.
        last: the 1x1 before pooling; its output is c5.
        tap: index into `blocks` of the one that strides from 16 to 32; its expansion is c4.
        width: the multiplier that the channels were made with.
        settings: what the blocks were made with.
    """

    def __init__(
        self,
        stem: ConvNormAct,
        blocks: Sequence[InvertedResidual],
        *,
        last: ConvNormAct,
        tap: int,
        width: float,
        settings: ConvSettings,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.last = last
        self.tap = tap
        self.width = width
        self.settings = settings
        self.out_channels = (blocks[tap].expanded_channels, last.out_channels)
        self.c4_from = f"expansion of block{tap + 1}"
        init_weights(self, "kaiming")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(images)
        for block in self.blocks[: self.tap]:
            x = block(x)
        tapped = cast(InvertedResidual, self.blocks[self.tap])
        c4 = tapped.expand(x)  # V3 paper 6.3, V2 paper 6.2: the expansion layer at stride 16
        x = tapped.from_expanded(c4, x)
        for block in self.blocks[self.tap + 1 :]:
            x = block(x)
        return c4, self.last(x)

    def stages(self) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {"stem": self.stem}
        parts |= {f"block{i}": block for i, block in enumerate(self.blocks, 1)}
        return parts | {"last": self.last}


def last_strided(strides: Sequence[int]) -> int:
    """Index of the last block with stride 2: the one that strides from 16 to 32, where C4 is tapped."""
    return max(i for i, stride in enumerate(strides) if stride == 2)
