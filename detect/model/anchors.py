"""Anchors (SSD's "default boxes"): grid sizes, scales and ratios to boxes in pixels of the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from detect.errors import InputError

HeadStyle = Literal["paper", "torchvision", "points"]

AUTO: Literal["auto"] = "auto"

# TensorFlow's ssd_anchor_generator: even steps from the first map, which is at stride 16, to the last one.
LOWEST_SCALE, HIGHEST_SCALE = 0.2, 0.95
LOWEST_SCALE_STRIDE = 16
# TensorFlow's `reduce_boxes_in_lowest_layer`: the first map has half the smallest scale once, and two more.
REDUCED_LOWEST_SCALE = 0.1
POINT_CELLS = 3
"""Side of the one anchor of a cell, in cells. PP-PicoDet has 5: in short runs too much for boxes of two."""
DIGITS = 3  # of a scale: 0.35 and not 0.35000000000000003


@dataclass(frozen=True)
class AnchorConfig:
    """Plain values behind the anchors; what is null follows from the style of the head."""

    style: HeadStyle = "paper"
    """"paper": 3 anchors on the first map, unclipped, scales times the shorter side.
    "torchvision": 6 on every map, width and height clipped to the input, stretched with it.
    "points": one square per cell, as anchor-free detectors have it, 3 cells wide."""
    scales: list[float] | Literal["auto"] | None = None
    """One per map and one more for the last geometric mean, fractions of the input. Null: even steps from 0.2
    at stride 16 to 0.95 on the last map, half of the next at finer strides; then 1. "auto", for which
    `anchors: auto` is short: `detect fit` takes them from the training boxes, once. "points" takes none."""
    aspect_ratios: list[list[float]] | None = None
    """Width over height, one list per map, besides the square. Null: 2, 1/2, 3, 1/3 on every map but the
    first of "paper"."""
    steps: list[float] | None = None
    """Input px between anchor centres, one per map. Null: input size over grid size."""

    def __post_init__(self) -> None:
        ratios = [ratio for level in self.aspect_ratios or [] for ratio in level]
        scales = None if isinstance(self.scales, str) else self.scales
        if self.style == "points" and (scales is not None or self.aspect_ratios is not None):
            raise InputError("anchors of style points have neither scales nor aspect_ratios: leave them out")
        for name, values in (("scales", scales), ("aspect_ratios", ratios), ("steps", self.steps)):
            if values and min(values) <= 0:
                raise InputError(f"anchors.{name} has {min(values)}; give numbers above 0")


@dataclass(frozen=True)
class AnchorShape:
    """Width and height of an anchor in fractions of the side they are multiplied with."""

    width: float
    height: float


def _shape(scale: float, ratio: float) -> AnchorShape:
    return AnchorShape(scale * math.sqrt(ratio), scale / math.sqrt(ratio))


def even_scales(
    strides: Sequence[int], *, low: float = LOWEST_SCALE, high: float = HIGHEST_SCALE
) -> list[float]:
    """A scale for each map and one more for the last geometric mean, as fractions of the input.

    Even steps from `low` on the first map of stride 16 or more to `high` on the last one. A finer map has
    half the scale of the next, so that the maps after it keep the scales that they have without it. The
    last entry is one step more, at most 1.

    Args:
        strides: input px per cell of each map.
        low: scale at stride 16.
        high: scale of the last map.
    """
    finer = min(sum(stride < LOWEST_SCALE_STRIDE for stride in strides), len(strides) - 1)
    steps = len(strides) - finer - 1
    scales = [low / 2**i for i in range(finer, 0, -1)]
    scales += [low + (high - low) * i / max(steps, 1) for i in range(steps + 1)]
    closing = min(1.0, 2 * high - scales[-2]) if steps else 1.0
    return [round(scale, DIGITS) for scale in [*scales, closing]]


def paper_shapes(
    scales: Sequence[float], ratios: list[list[float]] | None, *, reduced: float = REDUCED_LOWEST_SCALE
) -> list[list[AnchorShape]]:
    """TensorFlow's order: 3 on the first map, then ratios 1, 2, 1/2, 3, 1/3 and the geometric-mean square.

    `reduced` is the scale of the first map's square.
    """
    levels = []
    for i, (scale, following) in enumerate(pairwise(scales)):
        if ratios is not None:
            shapes = [_shape(scale, r) for r in (1.0, *ratios[i])] + [
                _shape(math.sqrt(scale * following), 1.0)
            ]
        elif i == 0:
            shapes = [_shape(reduced, 1.0), _shape(scale, 2.0), _shape(scale, 0.5)]
        else:
            shapes = [_shape(scale, r) for r in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            shapes.append(_shape(math.sqrt(scale * following), 1.0))
        levels.append(shapes)
    return levels


def torchvision_shapes(scales: Sequence[float], ratios: list[list[float]] | None) -> list[list[AnchorShape]]:
    """Torchvision's `DefaultBoxGenerator` order: square, geometric-mean square, then 2, 1/2, 3, 1/3."""
    levels = []
    for i, (scale, following) in enumerate(pairwise(scales)):
        squares = [_shape(scale, 1.0), _shape(math.sqrt(scale * following), 1.0)]
        level_ratios = (2.0, 0.5, 3.0, 1 / 3) if ratios is None else ratios[i]
        levels.append(squares + [_shape(scale, r) for r in level_ratios])
    return levels


def grid_sizes(image_size: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(rows, columns) of each map: every stride of 2 halves, rounding up.

    Args:
        image_size: (H, W) of the input in px.
        strides: input px per cell of each map.
    """
    return [(-(-image_size[0] // stride), -(-image_size[1] // stride)) for stride in strides]


class AnchorGenerator:
    """Lay anchors over the grids of a detector.

    Args:
        config: the plain values.
        strides: input px per cell of each map; the number of scales and ratios must fit, and what `config`
            leaves open follows from them.

    Raises:
        InputError: a list of `config` has a length that does not fit the number of maps, or the scales still
            wait for data.
    """

    def __init__(self, config: AnchorConfig, strides: Sequence[int]) -> None:
        self.config = config
        self.strides = tuple(strides)
        if isinstance(config.scales, str):
            raise InputError(
                "model.anchors.scales is auto, which only `detect fit` turns into numbers, by its training "
                "boxes: give a checkpoint or RUN/config.yaml, which hold them, or null for the usual scales"
            )
        scales = even_scales(strides) if config.scales is None else config.scales
        num_levels = len(strides)
        for name, length, expected in (
            ("scales", len(scales), num_levels + 1),
            ("aspect_ratios", len(config.aspect_ratios or []) or num_levels, num_levels),
            ("steps", len(config.steps or []) or num_levels, num_levels),
        ):
            if length != expected:
                raise InputError(f"anchors.{name} has {length} entries; {num_levels} maps need {expected}")
        if config.style == "points":
            self.shapes = [[_shape(POINT_CELLS, 1.0)] for _ in strides]
        elif config.style == "paper":
            reduced = REDUCED_LOWEST_SCALE * min(1.0, strides[0] / LOWEST_SCALE_STRIDE)
            self.shapes = paper_shapes(scales, config.aspect_ratios, reduced=reduced)
        else:
            self.shapes = torchvision_shapes(scales, config.aspect_ratios)

    @property
    def per_cell(self) -> list[int]:
        """Anchors per cell, one number per map."""
        return [len(level) for level in self.shapes]

    def __call__(self, grid_sizes: list[tuple[int, int]], image_size: tuple[int, int]) -> Tensor:
        """Anchors of all maps, map by map, row by row, cell by cell.

        Args:
            grid_sizes: (rows, columns) of each map.
            image_size: (H, W) of the input in px.

        Returns:
            (A, 4) float32 xyxy, px of the input; those of "paper" may leave the image.
        """
        height, width = image_size
        levels = [
            self._level(shapes, grid, self._unit(i, image_size), self._step(i, grid, image_size))
            for i, (shapes, grid) in enumerate(zip(self.shapes, grid_sizes, strict=True))
        ]
        centres_sizes = torch.cat(levels)  # (A, 4) as cx, cy, w, h in float64 px
        if self.config.style == "torchvision":
            centres_sizes[:, 2].clamp_(max=width)
            centres_sizes[:, 3].clamp_(max=height)
        centres, half = centres_sizes[:, :2], centres_sizes[:, 2:] / 2
        return torch.cat([centres - half, centres + half], dim=1).to(torch.float32)

    def _step(self, level: int, grid: tuple[int, int], image_size: tuple[int, int]) -> tuple[float, float]:
        if self.config.steps is not None:
            return self.config.steps[level], self.config.steps[level]
        return image_size[0] / grid[0], image_size[1] / grid[1]

    def _unit(self, level: int, image_size: tuple[int, int]) -> tuple[float, float]:
        """(height, width) in px that shapes of a map are multiplied with."""
        if self.config.style == "points":
            return (float(self.strides[level]),) * 2
        # The paper's scales keep their shape on oblong inputs; torchvision's stretch with the input.
        return image_size if self.config.style == "torchvision" else (min(image_size),) * 2

    def _level(
        self,
        shapes: list[AnchorShape],
        grid: tuple[int, int],
        unit: tuple[float, float],
        step: tuple[float, float],
    ) -> Tensor:
        unit_h, unit_w = unit
        cy = (torch.arange(grid[0], dtype=torch.float64) + 0.5) * step[0]
        cx = (torch.arange(grid[1], dtype=torch.float64) + 0.5) * step[1]
        sizes = torch.tensor([[s.width * unit_w, s.height * unit_h] for s in shapes], dtype=torch.float64)
        centres = torch.stack(torch.meshgrid(cx, cy, indexing="xy"), dim=-1)  # (rows, columns, 2)
        cells = centres.unsqueeze(2).expand(-1, -1, len(shapes), -1)  # (rows, columns, anchors, 2)
        return torch.cat([cells, sizes.expand_as(cells)], dim=-1).reshape(-1, 4)
