"""What a backbone owes a detector: two maps, their channels and strides."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A classification network without its classifier, tapped twice.

    `c4` is the expansion layer of the last block that strides from 16 to 32 (after norm and activation),
    `c5` the last layer before pooling. Source: "Searching for MobileNetV3" section 6.3, MobileNetV2 6.2.
    """

    out_channels: tuple[int, int]
    """Channels of c4 and c5."""
    strides: tuple[int, int] = (16, 32)
    """Input pixels per cell of c4 and c5."""
    width: float = 1.0
    """The width multiplier; the extra levels of a detector scale with it (paper Table 6, 0.35 and 0.5)."""

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) to c4 (B, C4, H / 16, W / 16) and c5 (B, C5, H / 32, W / 32).

        Sizes are rounded up.
        """

    @abstractmethod
    def stages(self) -> dict[str, nn.Module]:
        """Named parts from input to output, for freezing and for learning rates by depth."""
