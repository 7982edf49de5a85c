"""Feature pyramid (arXiv 1612.03144) with depthwise-separable convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from detect.errors import InputError
from detect.model.backbones.base import Tap
from detect.model.blocks import ConvNormAct, ConvSettings, DepthwiseSeparable
from detect.model.necks.base import Neck


class FPN(Neck):
    """Every map gets the coarser ones added: 1x1, nearest upsampling, sum, 3x3 depthwise with 1x1.

    The maps keep their strides.

    Args:
        channels: of every map that it gives.

    Raises:
        InputError: `channels` is below 1.

    Source: "Feature Pyramid Networks for Object Detection" section 3, its 3x3 made separable as in SSDLite.
    """

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        if channels < 1:
            raise InputError(f"FPN: channels is {channels}; at least 1")
        self.channels = channels

    def build(self, taps: Sequence[Tap], settings: ConvSettings) -> list[Tap]:
        self.lateral = nn.ModuleList(
            ConvNormAct(tap.channels, self.channels, activation="none", settings=settings) for tap in taps
        )
        self.smooth = nn.ModuleList(
            DepthwiseSeparable(self.channels, self.channels, stride=1, activation="relu6", settings=settings)
            for _ in taps
        )
        return [Tap(self.channels, tap.stride) for tap in taps]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        merged = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            size = merged[i].shape[-2:]
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=size, mode="nearest")
        return [layer(x) for layer, x in zip(self.smooth, merged, strict=True)]
