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

HeadStyle = Literal["paper", "torchvision"]

# Six maps: 0.2 to 0.95 in even steps; 1.0 closes the last geometric mean. TensorFlow's ssd_anchor_generator.
SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
# TensorFlow's `reduce_boxes_in_lowest_layer`: the first map has half the smallest scale once, and two more.
REDUCED_LOWEST_SCALE = 0.1


@dataclass(frozen=True)
class AnchorConfig:
    """Plain values behind the anchors; what is null follows from the style of the head."""

    style: HeadStyle = "paper"
    """"paper": 3 anchors on the first map, unclipped, scales times the shorter side.
    "torchvision": 6 on every map, width and height clipped to the input, stretched with it."""
    scales: list[float] | None = None
    """One a map and one more for the last geometric mean, fractions of the input. Null: 0.2 ... 0.95, 1."""
    aspect_ratios: list[list[float]] | None = None
    """Width over height, one list a map, besides the square. Null: 2, 1/2, 3, 1/3 on every map but the
    first of "paper"."""
    steps: list[float] | None = None
    """Input px between anchor centres, one a map. Null: input size over grid size."""

    def __post_init__(self) -> None:
        ratios = [ratio for level in self.aspect_ratios or [] for ratio in level]
        for name, values in (("scales", self.scales), ("aspect_ratios", ratios), ("steps", self.steps)):
            if values and min(values) <= 0:
                raise InputError(f"anchors.{name} has {min(values)}; give numbers above 0")


@dataclass(frozen=True)
class AnchorShape:
    """Width and height of an anchor in fractions of the side they are multiplied with."""

    width: float
    height: float


def _shape(scale: float, ratio: float) -> AnchorShape:
    return AnchorShape(scale * math.sqrt(ratio), scale / math.sqrt(ratio))


def paper_shapes(scales: Sequence[float], ratios: list[list[float]] | None) -> list[list[AnchorShape]]:
    """TensorFlow's order: 3 on the first map, then ratios 1, 2, 1/2, 3, 1/3 and the geometric-mean square."""
    levels = []
    for i, (scale, following) in enumerate(pairwise(scales)):
        if ratios is not None:
            shapes = [_shape(scale, r) for r in (1.0, *ratios[i])] + [
                _shape(math.sqrt(scale * following), 1.0)
            ]
        elif i == 0:
            shapes = [_shape(REDUCED_LOWEST_SCALE, 1.0), _shape(scale, 2.0), _shape(scale, 0.5)]
        else:
            shapes = [_shape(scale, r) for r in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            shapes.append(_shape(math.sqrt(scale * following), 1.0))
        levels.append(shapes)
    return levels


def torchvision_shapes(
    scales: tuple[float, ...], ratios: list[list[float]] | None
) -> list[list[AnchorShape]]:
    """Torchvision's `DefaultBoxGenerator` order: square, geometric-mean square, then 2, 1/2, 3, 1/3."""
    levels = []
    for i, (scale, following) in enumerate(pairwise(scales)):
        squares = [_shape(scale, 1.0), _shape(math.sqrt(scale * following), 1.0)]
        level_ratios = (2.0, 0.5, 3.0, 1 / 3) if ratios is None else ratios[i]
        levels.append(squares + [_shape(scale, r) for r in level_ratios])
    return levels


def grid_sizes(
    image_size: tuple[int, int], strides: tuple[int, int], *, num_levels: int = 6
) -> list[tuple[int, int]]:
    """(rows, columns) of each map: two of the backbone, and every stride of 2 after them halves, rounding up.

    Args:
        image_size: (H, W) of the input in px.
        strides: input px per cell of the backbone's two maps.
        num_levels: maps in all.
    """
    sizes = [(-(-image_size[0] // stride), -(-image_size[1] // stride)) for stride in strides]
    while len(sizes) < num_levels:
        rows, columns = sizes[-1]
        sizes.append((-(-rows // 2), -(-columns // 2)))
    return sizes


class AnchorGenerator:
    """Lay anchors over the grids of a detector.

    Args:
        config: the plain values.
        num_levels: feature maps of the detector; the number of scales and ratios must fit.

    Raises:
        InputError: a list of `config` has a length that does not fit `num_levels`.
    """

    def __init__(self, config: AnchorConfig, num_levels: int = 6) -> None:
        self.config = config
        scales = tuple(config.scales) if config.scales is not None else SCALES
        for name, length, expected in (
            ("scales", len(scales), num_levels + 1),
            ("aspect_ratios", len(config.aspect_ratios or []) or num_levels, num_levels),
            ("steps", len(config.steps or []) or num_levels, num_levels),
        ):
            if length != expected:
                raise InputError(f"anchors.{name} has {length} entries; {num_levels} maps need {expected}")
        build = paper_shapes if config.style == "paper" else torchvision_shapes
        self.shapes = build(scales, config.aspect_ratios)

    @property
    def per_cell(self) -> list[int]:
        """Anchors a cell, one number a map."""
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
            self._level(shapes, grid, image_size, self._step(i, grid, image_size))
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

    def _level(
        self,
        shapes: list[AnchorShape],
        grid: tuple[int, int],
        image_size: tuple[int, int],
        step: tuple[float, float],
    ) -> Tensor:
        height, width = image_size
        # The paper's scales keep their shape on oblong inputs; torchvision's stretch with the input.
        unit_w, unit_h = (width, height) if self.config.style == "torchvision" else (min(image_size),) * 2
        cy = (torch.arange(grid[0], dtype=torch.float64) + 0.5) * step[0]
        cx = (torch.arange(grid[1], dtype=torch.float64) + 0.5) * step[1]
        sizes = torch.tensor([[s.width * unit_w, s.height * unit_h] for s in shapes], dtype=torch.float64)
        centres = torch.stack(torch.meshgrid(cx, cy, indexing="xy"), dim=-1)  # (rows, columns, 2)
        cells = centres.unsqueeze(2).expand(-1, -1, len(shapes), -1)  # (rows, columns, anchors, 2)
        return torch.cat([cells, sizes.expand_as(cells)], dim=-1).reshape(-1, 4)
