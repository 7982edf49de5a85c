"""Context for fine maps: each gets the coarser ones added, at its own width."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from detect.model.backbones.base import Tap
from detect.model.blocks import ConvNormAct, ConvSettings
from detect.model.necks.base import Neck


class TopDown(Neck):
    """Every map keeps its channels and gets the coarser one added: 1x1, BatchNorm, nearest upsampling, sum.

    The scale of each norm starts at 0, so that a fresh detector is the one without a neck, whose heads learn
    from the taps directly. In runs of some hundred steps from random weights that was worth more than a neck
    of one width, whose layers must be learnt before the heads see anything (docs/plus.md).

    Source: the top-down path of "Feature Pyramid Networks" (arXiv 1612.03144) section 3; the scale of 0 from
    "Accurate, Large Minibatch SGD" (arXiv 1706.02677) section 5.1.
    """

    def build(self, taps: Sequence[Tap], settings: ConvSettings) -> list[Tap]:
        self.lateral = nn.ModuleList(
            ConvNormAct(coarser.channels, finer.channels, activation="none", settings=settings)
            for finer, coarser in pairwise(taps)
        )
        for layer in self.lateral:
            nn.init.zeros_(cast(nn.BatchNorm2d, cast(ConvNormAct, layer)[1]).weight)
        return list(taps)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        merged = list(maps)
        for i in reversed(range(len(merged) - 1)):
            size = merged[i].shape[-2:]
            merged[i] = merged[i] + F.interpolate(self.lateral[i](merged[i + 1]), size=size, mode="nearest")
        return merged
