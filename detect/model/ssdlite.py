"""The network: backbone, neck, extra levels, a class and a box head per map. Images in, HeadOutputs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.model.anchors import AnchorConfig, AnchorGenerator, grid_sizes
from detect.model.backbones.base import Backbone, Rgb, Tap
from detect.model.blocks import (
    EXTRA_LEVELS,
    ConvSettings,
    ExtraLevel,
    Init,
    PredictionHead,
    init_weights,
    normalize,
)
from detect.model.box_bins import BoxBins
from detect.model.necks.base import Neck
from detect.types import INPUT_SIZE, HeadOutputs

TAPS = ("c4", "c5")
"""The taps of every detector of the MobileNet papers."""
MIN_STD = 1 / 255  # pixels in 0..255, as Caffe's networks take them


class LevelAnchors(NamedTuple):
    """The anchors of an input size."""

    boxes: Tensor
    """(A, 4) xyxy, px of the input."""
    levels: tuple[int, ...]
    """Anchors of each map, which follow each other in `boxes`; their sum is A."""


class SSDLite(nn.Module):
    """SSDLite on the taps of any backbone.

    Args:
        backbone: gives a map per tap; its `width` scales the extra levels.
        num_classes: K, without background.
        image_size: (H, W) of the input in px; anchors and grids follow from it.
        taps: of the backbone, from fine to coarse; the last is its coarsest.
        neck: between taps and heads; null: none.
        extra_levels: channels (mid, out) of each map after the last, as they are. Null: those of the papers
            (or of the neck) times the backbone's `width`.
        anchors: style of the head and, where given, anchors by hand.
        settings: BatchNorm and padding of neck, extra levels and heads.
        mean: of each channel in 0..1, subtracted from the input; null: what the backbone was trained with.
        std: of each channel in 0..1; null: likewise.
        box_bins: bins of each box delta, which is then the expectation of a distribution; null: none.
        init: of every convolution without pretrained weights; "normal" is N(0, 0.03), as TensorFlow and
            torchvision. The last convolution of a head always is.

    Raises:
        InputError: a value is out of range, the backbone has no such taps, or lists of `anchors` do not fit
            the number of maps.

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
        image_size: tuple[int, int] = INPUT_SIZE,
        taps: Sequence[str] = TAPS,
        neck: Neck | None = None,
        extra_levels: Sequence[tuple[int, int]] | None = None,
        anchors: AnchorConfig = AnchorConfig(),
        settings: ConvSettings = ConvSettings(),
        mean: Rgb | None = None,
        std: Rgb | None = None,
        box_bins: int | None = None,
        init: Init = "normal",
    ) -> None:
        super().__init__()
        _refuse_wrong_numbers(num_classes, mean=mean, std=std)
        self.num_classes = num_classes
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.backbone = backbone
        self.taps = tuple(taps)
        self.neck = neck
        self.own_extra_levels = extra_levels is not None
        levels = self._add_levels(extra_levels, settings)
        self.strides = [level.stride for level in levels]
        """Input px per cell of each map."""
        self.grid_sizes = grid_sizes(self.image_size, self.strides)
        self.anchor_generator = AnchorGenerator(anchors, self.strides)
        self.box_bins = None if box_bins is None else BoxBins(box_bins)
        self._add_heads([level.channels for level in levels], settings)

        self.register_buffer("mean", torch.tensor(mean or backbone.mean), persistent=False)
        self.register_buffer("std", torch.tensor(std or backbone.std), persistent=False)
        anchors_of_input, self.level_sizes = self._make_anchors(self.image_size)
        self.register_buffer("anchors", anchors_of_input, persistent=False)
        """Anchors of each map, which follow each other in `anchors`."""
        self._other_anchors: dict[tuple[int, int], LevelAnchors] = {}
        constants = ("mean", "std", "anchors", *(() if box_bins is None else ("box_bins.values",)))
        self._constants = {name: self.get_buffer(name).clone() for name in constants}
        self._init_weights(init)

    def _add_levels(self, given: Sequence[tuple[int, int]] | None, settings: ConvSettings) -> list[Tap]:
        """The maps that have heads: taps, through the neck where there is one, and extra levels."""
        levels = _choose_taps(self.backbone, self.taps)
        _refuse_small_images(self.image_size, levels[-1].stride)
        papers: Sequence[tuple[int, int]] = EXTRA_LEVELS
        if self.neck is not None:
            levels, papers = [*self.neck.build(levels, settings)], self.neck.extra_levels
        width = self.backbone.width
        scaled = [(int(mid * width), int(out * width)) for mid, out in papers]
        self.extra_levels = nn.ModuleList()
        for number, (mid, out) in enumerate(scaled if given is None else given, 1):
            if min(mid, out) < 1:
                raise InputError(
                    f"extra_levels: level {number} is {[mid, out]}; give channels [mid, out], at least 1 each"
                )
            self.extra_levels.append(ExtraLevel(levels[-1].channels, mid, out, settings=settings))
            levels.append(Tap(out, 2 * levels[-1].stride))
        return levels

    def _add_heads(self, channels: Sequence[int], settings: ConvSettings) -> None:
        pairs = list(zip(channels, self.anchor_generator.per_cell, strict=True))
        columns = self.num_classes + 1
        per_box = 4 if self.box_bins is None else 4 * self.box_bins.count
        self.cls_heads = nn.ModuleList(PredictionHead(c, a, columns, settings=settings) for c, a in pairs)
        self.box_heads = nn.ModuleList(PredictionHead(c, a, per_box, settings=settings) for c, a in pairs)

    def _init_weights(self, init: Init) -> None:
        self.backbone.init_weights(init)
        if self.neck is not None:
            init_weights(self.neck, init)
        for part in (self.extra_levels, self.cls_heads, self.box_heads):
            init_weights(part, init)
        if init != "normal":  # wider, a fresh head's outputs would lie far from what its biases say
            for head in [*self.cls_heads, *self.box_heads]:
                init_weights(cast(PredictionHead, head).predictor, "normal")

    def anchors_of(self, image_size: Sequence[int]) -> LevelAnchors:
        """The anchors of an input of any (H, W), made once: training may have several sizes."""
        size = (int(image_size[0]), int(image_size[1]))
        if size == self.image_size:
            return LevelAnchors(self.anchors, self.level_sizes)
        known = self._other_anchors.get(size)
        if known is None or known.boxes.device != self.anchors.device:
            boxes, levels = self._make_anchors(size)
            known = LevelAnchors(boxes.to(self.anchors.device), levels)
            self._other_anchors[size] = known
        return known

    def _make_anchors(self, image_size: tuple[int, int]) -> LevelAnchors:
        grids = grid_sizes(image_size, self.strides)
        per_cell = zip(grids, self.anchor_generator.per_cell, strict=True)
        levels = tuple(rows * columns * k for (rows, columns), k in per_cell)
        return LevelAnchors(self.anchor_generator(grids, image_size), levels)

    def restore_constants(self) -> None:
        """Set the buffers that are no weights to what they were built with.

        A moving average of weights takes in every buffer, and in float32 0.999 x + 0.001 x is not x: anchors
        would drift with the steps.
        """
        for name, value in self._constants.items():
            self.get_buffer(name).copy_(value)

    def forward(self, images: Tensor) -> HeadOutputs:
        """The same in training and evaluation mode; no resizing, matching, loss or NMS.

        Args:
            images: (B, 3, H, W) uint8 RGB, or float32 in the same 0..255 units.
        """
        maps = self.feature_maps(normalize(images, self.mean, self.std))
        cls_logits = torch.cat([head(x) for head, x in zip(self.cls_heads, maps, strict=True)], dim=1)
        boxes = torch.cat([head(x) for head, x in zip(self.box_heads, maps, strict=True)], dim=1)
        if self.box_bins is None:
            return HeadOutputs(cls_logits, boxes)
        box_logits = boxes.unflatten(-1, (4, self.box_bins.count))
        return HeadOutputs(cls_logits, self.box_bins(box_logits), box_logits)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to one map per level, of `grid_sizes`."""
        maps = self.backbone(images, self.taps)
        if self.neck is not None:
            maps = self.neck(maps)
        for level in self.extra_levels:
            maps.append(level(maps[-1]))
        return maps

    def set_class_prior(self, bias: Tensor) -> None:
        """Start the class heads from `bias` (K + 1,), the same for every anchor."""
        with torch.no_grad():
            for head in self.cls_heads:
                predictor = cast(PredictionHead, head).predictor
                predictor.get_parameter("bias").copy_(bias.repeat(predictor.out_channels // bias.numel()))


def _choose_taps(backbone: Backbone, names: Sequence[str]) -> list[Tap]:
    known = list(backbone.taps)
    coarsest = [name for name in known if backbone.taps[name].stride == backbone.taps[known[-1]].stride]
    if list(names) != [name for name in known if name in names] or not set(coarsest) & set(names):
        raise InputError(
            f"model.taps is {list(names)}; give some of {', '.join(known)}, each once and in this order, "
            f"with {' or '.join(coarsest)}: layers after the last tap would learn nothing"
        )
    backbone.trim(names)
    return [backbone.taps[name] for name in names]


def _refuse_small_images(image_size: tuple[int, int], stride: int) -> None:
    if min(image_size) < stride:
        raise InputError(
            f"image_size is {list(image_size)}; the last tap has a cell for every {stride} px, so each side "
            f"is at least {stride}"
        )


def _refuse_wrong_numbers(num_classes: int, *, mean: Rgb | None, std: Rgb | None) -> None:
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; a detector needs at least one class")
    for name, values, low in (("mean", mean, 0.0), ("std", std, MIN_STD)):
        if values is not None and not all(low <= value <= 1 for value in values):
            raise InputError(f"{name} is {list(values)}; give fractions of white, 0..1: 0.485 and not 123.7")
