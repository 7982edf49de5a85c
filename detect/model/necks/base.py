"""What a neck gives a detector: the maps of the heads, made from those of the backbone's taps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from detect.model.backbones.base import Tap
from detect.model.blocks import EXTRA_LEVELS, ConvSettings
from detect.model.configurable import Configurable


class Neck(Configurable, nn.Module, ABC):
    """Layers between the taps of a backbone and the heads.

    It is made in two steps. The constructor takes what a user chooses, the `init_args` of a configuration;
    `build` takes what follows from the rest of the detector, and makes the layers.
    """

    extra_levels: Sequence[tuple[int, int]] = EXTRA_LEVELS
    """Channels (mid, out) at width 1.0 of each level that the detector adds, halved from the neck's last map;
    empty: the heads see the neck's maps alone."""

    @abstractmethod
    def build(self, taps: Sequence[Tap], settings: ConvSettings) -> Sequence[Tap]:
        """Make the layers; the detector calls it once, and draws their weights afterwards.

        Args:
            taps: channels and stride of each map that `forward` is given, from fine to coarse.
            settings: BatchNorm and padding of every block outside of the backbone.

        Returns:
            Channels and stride of each map that `forward` gives, from fine to coarse.
        """

    @abstractmethod
    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, channels, H / stride, W / stride) to maps likewise, sizes rounded up."""
