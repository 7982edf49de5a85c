"""A light path aggregation network: information goes down to the fine maps and up again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detect.errors import InputError
from detect.model.backbones.base import Tap
from detect.model.blocks import Activation, ConvNormAct, ConvSettings, DepthwiseSeparable
from detect.model.necks.base import Neck

ACTIVATION: Activation = "hard_swish"


class LCPAN(Neck):
    """Every map at one width, merged from coarse to fine and back, and one more level of half the coarsest.

    Maps are merged by concatenation and a depthwise-separable convolution. Its maps are all that the heads
    see: with the taps out3, out4 and out5 those of strides 8, 16, 32 and 64.

    Args:
        channels: of every map that it gives; 64 to 128.
        kernel: side of the depthwise convolutions, odd.
        convs: depthwise-separable convolutions on each map after the merging, which the class head and the
            box head of that map share.

    Raises:
        InputError: a value is out of range.

    Source: PP-PicoDet (arXiv 2111.00902) section 3.1; PaddleDetection's `lc_pan.py` and, for `convs`,
    `pico_head.py`.
    """

    extra_levels = ()

    def __init__(self, channels: int = 64, *, kernel: int = 5, convs: int = 1) -> None:
        super().__init__()
        if channels < 1 or convs < 0 or kernel < 1 or kernel % 2 == 0:
            raise InputError(
                f"LCPAN: channels is {channels}, kernel {kernel}, convs {convs}; at least 1, an odd number, "
                "and at least 0"
            )
        self.channels = channels
        self.kernel = kernel
        self.convs = convs

    def build(self, taps: Sequence[Tap], settings: ConvSettings) -> list[Tap]:
        width, merges = self.channels, range(len(taps) - 1)

        def separable(channels: int, stride: int = 1) -> nn.Module:
            return DepthwiseSeparable(
                channels,
                width,
                kernel=self.kernel,
                stride=stride,
                activation=ACTIVATION,
                settings=settings,
            )

        self.lateral = nn.ModuleList(
            ConvNormAct(tap.channels, width, activation=ACTIVATION, settings=settings) for tap in taps
        )
        self.top_down = nn.ModuleList(separable(2 * width) for _ in merges)
        ratios = [coarser.stride // finer.stride for finer, coarser in pairwise(taps)]
        self.down = nn.ModuleList(separable(width, stride=ratio) for ratio in ratios)
        self.bottom_up = nn.ModuleList(separable(2 * width) for _ in merges)
        self.top_of_tap, self.top_of_map = separable(width, stride=2), separable(width, stride=2)
        maps = [Tap(width, tap.stride) for tap in taps]
        maps.append(Tap(width, 2 * taps[-1].stride))
        self.towers = nn.ModuleList(
            nn.Sequential(*(separable(width) for _ in range(self.convs))) for _ in maps
        )
        return maps

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        laterals = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        merged = [laterals[-1]]
        for finer, layer in zip(reversed(laterals[:-1]), self.top_down, strict=True):
            coarser = F.interpolate(merged[0], size=finer.shape[-2:], mode="nearest")
            merged.insert(0, layer(torch.cat([coarser, finer], dim=1)))
        given = [merged[0]]
        for coarser, down, layer in zip(merged[1:], self.down, self.bottom_up, strict=True):
            given.append(layer(torch.cat([down(given[-1]), coarser], dim=1)))
        given.append(self.top_of_tap(laterals[-1]) + self.top_of_map(given[-1]))
        return [tower(x) for tower, x in zip(self.towers, given, strict=True)]
