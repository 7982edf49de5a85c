"""What the network sees of an image, as a `View`, and the one place where its pixels are made.

No pixel is touched until `render` crops, resizes, colours and flips everything in one resize of the visible
part; boxes follow by `boxes_to_input`. The augmentations, which change a view, are in `transforms`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detect.data.augment.colour import IDENTITY_COLOUR
from detect.types import ResizeRule

FILL = (123, 117, 104)
"""Mean colour of ImageNet, 0..255: what SSD shows beside a zoomed-out image."""
MIN_BOX_PX = 1.0
"""Boxes narrower than this in the input are dropped: no anchor can learn from them."""
EDGE_TOLERANCE_PX = 1e-6
"""Rounding of float64 coordinates, far below what a resize can show."""


@dataclass(frozen=True)
class View:
    """What the network sees of an image: a rectangle in px of the file, mirrored and coloured."""

    x0: float
    y0: float
    x1: float
    y1: float
    """The rectangle; it may reach beyond the image, where `fill` is seen."""
    flip_horizontal: bool = False
    flip_vertical: bool = False
    colour: tuple[float, ...] = IDENTITY_COLOUR
    """3 x 4 row by row: RGB out = matrix of RGB in, and a constant in 0..255."""
    fill: tuple[int, int, int] = FILL

    @classmethod
    def whole(cls, orig_size: tuple[int, int]) -> View:
        """All of an image of `orig_size` (H, W), unchanged."""
        height, width = orig_size
        return cls(0.0, 0.0, float(width), float(height))

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0


class MappedBoxes(NamedTuple):
    """Boxes in the input's frame, and which of the given boxes they are."""

    boxes: NDArray[np.float32]
    """(G', 4) xyxy px of the input."""
    kept: NDArray[np.bool_]
    """(G,), G' of them true."""


def boxes_to_input(
    boxes: NDArray[np.float64],
    view: View,
    image_size: tuple[int, int],
    *,
    ignore: NDArray[np.bool_] | None = None,
) -> MappedBoxes:
    """File frame to input frame, the only place; for `View.whole` the inverse of `boxes.rescale_boxes`.

    A box is kept where its centre is in the view (SSD) and at least 1 px of it is left each way; a region to
    ignore wherever 1 px of it is left, since anchors over that part are still excluded from the loss.

    Args:
        boxes: (G, 4) xyxy px of the file.
        view: what the network sees.
        image_size: (H, W) of the input.
        ignore: (G,) crowd and difficult boxes.
    """
    height, width = image_size
    left_right = (boxes[:, 0::2] - view.x0) * (width / view.width)  # (G, 2)
    top_bottom = (boxes[:, 1::2] - view.y0) * (height / view.height)
    if view.flip_horizontal:
        left_right = width - left_right[:, ::-1]
    if view.flip_vertical:
        top_bottom = height - top_bottom[:, ::-1]
    kept = np.ones(len(boxes), dtype=np.bool_)
    mapped = np.empty((len(boxes), 4), dtype=np.float32)
    for axis, (edges, limit) in enumerate(((left_right, width), (top_bottom, height))):
        centre = (edges[:, 0] + edges[:, 1]) / 2
        inside = (centre > 0) & (centre < limit)
        clipped = np.minimum(np.maximum(edges, 0), limit)
        kept &= inside if ignore is None else inside | ignore
        kept &= clipped[:, 1] - clipped[:, 0] >= MIN_BOX_PX
        mapped[:, axis::2] = clipped
    return MappedBoxes(mapped[kept], kept)


def snap_view(
    view: View, orig_size: tuple[int, int], image_size: tuple[int, int], *, grid_px: int = 1
) -> View:
    """The nearest view whose visible part is whole pixels of the file and fills whole pixels of the input.

    So one resize from an integer rectangle to an integer rectangle is exact, and boxes lie where the pixels
    are. Both rectangles are rounded by less than a pixel; a view without a whole visible pixel stays.

    Args:
        view: any view.
        orig_size: (H, W) of the upright file.
        image_size: (H, W) of the input.
        grid_px: edges in the file are multiples of this: the draft scale of its decoding.
    """
    y0, y1 = _snap_axis(view.y0, view.y1, orig_size[0], image_size[0], grid_px)
    x0, x1 = _snap_axis(view.x0, view.x1, orig_size[1], image_size[1], grid_px)
    return replace(view, x0=x0, y0=y0, x1=x1, y1=y1)


def render(
    pixels: NDArray[np.uint8], view: View, image_size: tuple[int, int], *, file_scale: int = 1
) -> NDArray[np.uint8]:
    """The pixels of a snapped `view`, in one antialiased bilinear resize of its visible part.

    Args:
        pixels: (h, w, 3) RGB, the upright file, decoded at 1 / file_scale.
        view: what to show, in px of the file; of `snap_view`, or whole.
        image_size: (H, W) of the input.
        file_scale: px of the file per px of `pixels`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = image_size
    rows, top, bottom = _visible(view.y0, view.y1, pixels.shape[0], height, file_scale)
    columns, left, right = _visible(view.x0, view.x1, pixels.shape[1], width, file_scale)
    canvas: Tensor | None = None
    if rows and columns:
        part = _resize(pixels[top:bottom, left:right], (len(rows), len(columns)))
        if view.colour != IDENTITY_COLOUR:
            coloured = Image.fromarray(part.numpy()).convert("RGB", view.colour)
            part = torch.from_numpy(np.array(coloured))
        if (len(rows), len(columns)) == image_size:
            canvas = part
    if canvas is None:
        canvas = torch.tensor(view.fill, dtype=torch.uint8).repeat(height, width, 1)
        if rows and columns:
            canvas[rows.start : rows.stop, columns.start : columns.stop] = part
    flips = [axis for axis, flip in ((0, view.flip_vertical), (1, view.flip_horizontal)) if flip]
    return _flip(canvas, flips).numpy()


def blend(below: NDArray[np.uint8], above: NDArray[np.uint8], opacity: float) -> NDArray[np.uint8]:
    """Two images of one shape: `opacity` (0..1) of `above`, the rest of `below`, to the nearest value."""
    mixed = torch.lerp(torch.from_numpy(below).float(), torch.from_numpy(above).float(), opacity)
    return mixed.round_().to(torch.uint8).numpy()


def resize_pixels(
    pixels: NDArray[np.uint8], image_size: tuple[int, int], rule: ResizeRule
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """A whole image stretched to `image_size`, for evaluation and prediction.

    Args:
        pixels: (h, w, 3) RGB, upright.
        image_size: (H, W) of the input.
        rule: how values between pixels are found.

    Returns:
        (H, W, 3): uint8 by the rule "antialias"; by "torchvision" float32 in 0..255, bilinear without
        antialiasing or rounding, as torchvision's GeneralizedRCNNTransform (the weights of a bilinear
        resize sum to one, so resizing before or after its normalisation is the same).
    """
    if rule == "antialias":
        height, width = pixels.shape[:2]
        return render(pixels, View.whole((height, width)), image_size)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(planes, size=image_size, mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()


def input_batch(images: Iterable[NDArray[np.uint8]], image_size: tuple[int, int], rule: ResizeRule) -> Tensor:
    """(B, 3, H, W) whole images as a network takes them; see `resize_pixels`."""
    resized = np.stack([resize_pixels(pixels, image_size, rule) for pixels in images])
    return torch.from_numpy(resized).permute(0, 3, 1, 2)


def _snap_axis(start: float, stop: float, limit: int, pixels: int, grid_px: int) -> tuple[float, float]:
    """Along one axis: the view's edges moved so that the visible part is whole on both sides."""
    decoded = -(-limit // grid_px)  # a draft rounds its last column up
    step = (stop - start) / pixels
    first = math.ceil(max(0.0, -start) / step - EDGE_TOLERANCE_PX)
    last = math.floor((min(stop, decoded * grid_px) - start) / step + EDGE_TOLERANCE_PX)
    if last <= first:
        return start, stop
    left = min(max(0, round(start / grid_px)), decoded - 1)
    right = max(min(decoded, round(stop / grid_px)), left + 1)
    new_step = (right - left) * grid_px / (last - first)
    new_start = left * grid_px - first * new_step
    return new_start, new_start + pixels * new_step


def _visible(start: float, stop: float, limit: int, pixels: int, file_scale: int) -> tuple[range, int, int]:
    """Along one axis of a snapped view: the input pixels inside the image, the decoded pixels they show."""
    step = (stop - start) / pixels
    first = max(0, math.ceil(-start / step - EDGE_TOLERANCE_PX))
    last = min(pixels, math.floor((limit * file_scale - start) / step + EDGE_TOLERANCE_PX))
    left, right = (round((start + edge * step) / file_scale) for edge in (first, last))
    left, right = max(0, left), min(limit, right)
    return (range(first, last), left, right) if right > left else (range(0), 0, 0)


def _resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """(h, w, 3) to (*size, 3) uint8; torch's antialiased kernel is Pillow's, vectorised."""
    if pixels.shape[:2] == size:
        return torch.from_numpy(pixels)
    # A crop's rows lie apart; torch would copy it pixel by pixel.
    part = torch.from_numpy(np.ascontiguousarray(pixels))
    planes = part[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0)


def _flip(pixels: Tensor, axes: list[int]) -> Tensor:
    """(H, W, 3) mirrored along `axes`; as channels_last planes, for which torch has a fast kernel."""
    if not axes:
        return pixels
    planes = pixels.contiguous()[None].permute(0, 3, 1, 2)
    return planes.flip([axis + 2 for axis in axes])[0].permute(1, 2, 0)
