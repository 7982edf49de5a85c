"""The network: backbone, extra levels, one class head and one box head a map. Images in, HeadOutputs out."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.model.anchors import AnchorConfig, AnchorGenerator, grid_sizes
from detect.model.backbones.base import Backbone, Rgb
from detect.model.blocks import ConvSettings, ExtraLevel, Init, PredictionHead, init_weights, normalize
from detect.types import HeadOutputs

# Channels (mid, out) of the four maps after C5 at width 1.0; counted from Table 6 of the V3 paper.
EXTRA_LEVELS = ((256, 512), (128, 256), (128, 256), (64, 128))
MIN_IMAGE_SIDE_PX = 32
MIN_STD = 1 / 255  # pixels in 0..255, as Caffe's networks take them


class SSDLite(nn.Module):
    """SSDLite on any backbone with two taps.

    Args:
        backbone: gives C4 and C5; its `width` scales the extra levels.
        num_classes: K, without background.
        image_size: (H, W) of the input in px; anchors and grids follow from it.
        anchors: style of the head and, where given, anchors by hand.
        settings: BatchNorm of extra levels and heads; null: eps 1e-3, momentum 0.03.
        mean: of each channel in 0..1, subtracted from the input; null: what the backbone was trained with.
        std: of each channel in 0..1; null: likewise.
        init: of every convolution without pretrained weights; "normal" is N(0, 0.03), as TensorFlow and
            torchvision. The last convolution of a head always is.

    Source: "Searching for MobileNetV3" section 6.3; MobileNetV2 section 6.2 (SSDLite).
    """

    anchors: Tensor
    """(A, 4) xyxy, px of the input; a buffer that no checkpoint holds, for it follows from the settings."""
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        image_size: tuple[int, int] = (320, 320),
        anchors: AnchorConfig = AnchorConfig(),
        settings: ConvSettings = ConvSettings(),
        mean: Rgb | None = None,
        std: Rgb | None = None,
        init: Init = "normal",
    ) -> None:
        super().__init__()
        _refuse_wrong_numbers(num_classes, image_size, mean=mean, std=std)
        self.num_classes = num_classes
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.backbone = backbone
        c4, c5 = backbone.out_channels

        levels: list[ExtraLevel] = []
        channels = c5
        for mid, out in EXTRA_LEVELS:
            mid, out = int(mid * backbone.width), int(out * backbone.width)
            levels.append(ExtraLevel(channels, mid, out, settings=settings))
            channels = out
        self.extra_levels = nn.ModuleList(levels)

        map_channels = [c4, c5, *(level.out_channels for level in levels)]
        self.anchor_generator = AnchorGenerator(anchors, num_levels=len(map_channels))
        per_cell = self.anchor_generator.per_cell
        pairs = list(zip(map_channels, per_cell, strict=True))
        self.cls_heads = nn.ModuleList(
            PredictionHead(c, a, num_classes + 1, settings=settings) for c, a in pairs
        )
        self.box_heads = nn.ModuleList(PredictionHead(c, a, 4, settings=settings) for c, a in pairs)

        self.register_buffer("mean", torch.tensor(mean or backbone.mean), persistent=False)
        self.register_buffer("std", torch.tensor(std or backbone.std), persistent=False)
        self.grid_sizes = grid_sizes(self.image_size, backbone.strides, num_levels=len(map_channels))
        anchor_boxes = self.anchor_generator(self.grid_sizes, self.image_size)
        self.register_buffer("anchors", anchor_boxes, persistent=False)
        self._constants = {name: getattr(self, name).clone() for name in ("mean", "std", "anchors")}
        backbone.init_weights(init)
        for part in (self.extra_levels, self.cls_heads, self.box_heads):
            init_weights(part, init)
        if init != "normal":  # wider, a fresh head's outputs would lie far from what its biases say
            for head in [*self.cls_heads, *self.box_heads]:
                init_weights(cast(PredictionHead, head).predictor, "normal")

    def restore_constants(self) -> None:
        """Set the buffers that are no weights to what they were built with.

        A moving average of weights takes in every buffer, and in float32 0.999 x + 0.001 x is not x: anchors
        would drift with the steps.
        """
        for name, value in self._constants.items():
            getattr(self, name).copy_(value)

    def forward(self, images: Tensor) -> HeadOutputs:
        """The same in training and evaluation mode; no resizing, matching, loss or NMS.

        Args:
            images: (B, 3, H, W) uint8 RGB, or float32 in the same 0..255 units.
        """
        maps = self.feature_maps(normalize(images, self.mean, self.std))
        cls_logits = torch.cat([head(x) for head, x in zip(self.cls_heads, maps, strict=True)], dim=1)
        box_deltas = torch.cat([head(x) for head, x in zip(self.box_heads, maps, strict=True)], dim=1)
        return HeadOutputs(cls_logits, box_deltas)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to six maps; at 320x320 20, 10, 5, 3, 2 and 1 cells wide."""
        c4, c5 = self.backbone(images)
        maps = [c4, c5]
        for level in self.extra_levels:
            maps.append(level(maps[-1]))
        return maps

    def set_class_prior(self, bias: Tensor) -> None:
        """Start the class heads from `bias` (K + 1,), the same for every anchor."""
        with torch.no_grad():
            for head in self.cls_heads:
                predictor = cast(PredictionHead, head).predictor
                assert predictor.bias is not None
                predictor.bias.copy_(bias.repeat(predictor.out_channels // bias.numel()))


def _refuse_wrong_numbers(
    num_classes: int, image_size: tuple[int, int], *, mean: Rgb | None, std: Rgb | None
) -> None:
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; a detector needs at least one class")
    if min(image_size) < MIN_IMAGE_SIDE_PX:
        raise InputError(
            f"image_size is {list(image_size)}; C5 has a cell for every {MIN_IMAGE_SIDE_PX} px, so each "
            f"side is at least {MIN_IMAGE_SIDE_PX}"
        )
    for name, values, low in (("mean", mean, 0.0), ("std", std, MIN_STD)):
        if values is not None and not all(low <= value <= 1 for value in values):
            raise InputError(f"{name} is {list(values)}; give fractions of white, 0..1: 0.485 and not 123.7")
