"""Augmentation as a plan, and the one place where a picture is cropped, resized, flipped and coloured.

Each augmentation changes a `View`, a description of what the network shall see; no pixel is touched until
`render` does everything in one resize of the visible part. Boxes follow by `boxes_to_input`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detect.data.colour import IDENTITY_COLOUR, colour_matrix, compose_colours
from detect.errors import InputError

ResizeRule = Literal["antialias", "torchvision"]
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


class Augmentation(Protocol):
    """One step of a plan."""

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        """The changed view; `boxes` are (G, 4) xyxy px of the file, those that are not ignored."""


class RandomIoUCrop:
    """SSD's crop: a part of the view that shares at least a drawn IoU with one box.

    Args:
        min_scale: least width and height, as a fraction of the view's.
        max_scale: greatest width and height, as a fraction of the view's.
        min_aspect_ratio: least width / height, in px.
        max_aspect_ratio: greatest width / height.
        min_ious: one is drawn for each picture; 1 or more means no crop.
        trials: crops tried for a drawn IoU before another is drawn.

    Source: SSD (arXiv 1512.02325) section 2.2; numbers as in the Caffe release. An image without boxes is
    not cropped, as in torchvision's v2.RandomIoUCrop; unlike there, corners are not rounded to whole pixels.
    """

    def __init__(
        self,
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        *,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        min_ious: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
    ) -> None:
        if not 0 < min_scale <= max_scale <= 1:
            raise InputError(f"need 0 < min_scale <= max_scale <= 1, got {min_scale} and {max_scale}")
        if not any(min_iou >= 1 for min_iou in min_ious):
            raise InputError(
                f"min_ious {list(min_ious)} need one of at least 1 (no crop), or the search may not end"
            )
        self.min_scale, self.max_scale = min_scale, max_scale
        self.min_aspect_ratio, self.max_aspect_ratio = min_aspect_ratio, max_aspect_ratio
        self.min_ious = tuple(min_ious)
        self.trials = trials

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        while len(boxes):
            min_iou = self.min_ious[rng.integers(len(self.min_ious))]
            if min_iou >= 1:
                break
            crops = self._draw(view, rng)
            good = _best_iou_of_centred(crops, boxes) >= min_iou
            if good.any():
                x0, y0, x1, y1 = crops[:, good.argmax()].tolist()
                return replace(view, x0=x0, y0=y0, x1=x1, y1=y1)
        return view

    def _draw(self, view: View, rng: np.random.Generator) -> NDArray[np.float64]:
        """(4, T) corners x0, y0, x1, y1 of crops of fitting aspect ratio, T <= trials."""
        scale_x, scale_y, place_x, place_y = rng.random((4, self.trials))
        spread = self.max_scale - self.min_scale
        width = (self.min_scale + spread * scale_x) * view.width
        height = (self.min_scale + spread * scale_y) * view.height
        x0 = view.x0 + place_x * (view.width - width)
        y0 = view.y0 + place_y * (view.height - height)
        fits = (width >= self.min_aspect_ratio * height) & (width <= self.max_aspect_ratio * height)
        return np.stack([x0, y0, x0 + width, y0 + height])[:, fits]


class RandomZoomOut:
    """SSD's expansion: the view becomes up to `max_ratio` times as wide and high, the rest is `fill`.

    Args:
        max_ratio: greatest ratio of the new side to the old.
        probability: how often; 0.5 is SSD's. Zooming out makes small objects: leave it out where the data's
            are smaller than a cell of the first map already.
        fill: RGB, 0..255; by default the mean of ImageNet.

    Source: SSD (arXiv 1512.02325) section 3.6.
    """

    def __init__(
        self, max_ratio: float = 4.0, probability: float = 0.5, *, fill: tuple[int, int, int] = FILL
    ) -> None:
        if max_ratio < 1:
            raise InputError(f"max_ratio of a zoom-out is at least 1, got {max_ratio}")
        self.max_ratio, self.probability, self.fill = max_ratio, probability, fill

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        if rng.random() >= self.probability:
            return view
        ratio = rng.uniform(1, self.max_ratio)
        width, height = ratio * view.width, ratio * view.height
        x0 = view.x0 - rng.random() * (width - view.width)
        y0 = view.y0 - rng.random() * (height - view.height)
        return replace(view, x0=x0, y0=y0, x1=x0 + width, y1=y0 + height, fill=self.fill)


class PhotometricDistort:
    """Brightness, contrast, saturation and hue, each drawn apart, composed to one 3 x 4 colour matrix.

    One matrix clips once, at the end. Contrast pulls towards mid grey (a plan cannot know the image's mean),
    saturation towards luma; hue is a rotation in YIQ, which keeps luma where one in HSV does not.

    Args:
        brightness, contrast, saturation: range of each factor.
        hue: range of the turn, in turns. Set [0, 0] where a class is known by its colour.
        probability: of each of the four; 0 for none.

    Source: SSD's Caffe release; ranges of torchvision's v2.RandomPhotometricDistort.
    """

    def __init__(
        self,
        brightness: tuple[float, float] = (0.875, 1.125),
        contrast: tuple[float, float] = (0.5, 1.5),
        *,
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: tuple[float, float] = (-0.05, 0.05),
        probability: float = 0.5,
    ) -> None:
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.probability = probability

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        factors = [
            rng.uniform(*bounds) if rng.random() < self.probability else neutral
            for bounds, neutral in (
                (self.brightness, 1),
                (self.contrast, 1),
                (self.saturation, 1),
                (self.hue, 0),
            )
        ]
        if factors == [1, 1, 1, 0]:
            return view
        return replace(view, colour=compose_colours(view.colour, colour_matrix(*factors)))


class RandomHorizontalFlip:
    """Mirrors left and right.

    Args:
        probability: how often; leave the class out where left and right differ, as in print.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = probability

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        return replace(view, flip_horizontal=view.flip_horizontal ^ bool(rng.random() < self.probability))


class RandomVerticalFlip:
    """Mirrors top and bottom: for pictures without an up, as through a microscope.

    Args:
        probability: how often.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = probability

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        return replace(view, flip_vertical=view.flip_vertical ^ bool(rng.random() < self.probability))


def default_augmentations() -> list[Augmentation]:
    """SSD's set, in its order (arXiv 1512.02325, sections 2.2 and 3.6)."""
    return [PhotometricDistort(), RandomZoomOut(), RandomIoUCrop(), RandomHorizontalFlip()]


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
    ignore wherever 1 px of it is left, since anchors over that part must still cost nothing.

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
            picture = Image.fromarray(part.numpy()).convert("RGB", view.colour)
            part = torch.from_numpy(np.array(picture))
        if (len(rows), len(columns)) == image_size:
            canvas = part
    if canvas is None:
        canvas = torch.tensor(view.fill, dtype=torch.uint8).repeat(height, width, 1)
        if rows and columns:
            canvas[rows.start : rows.stop, columns.start : columns.stop] = part
    flips = [axis for axis, flip in ((0, view.flip_vertical), (1, view.flip_horizontal)) if flip]
    return _flip(canvas, flips).numpy()


def resize_whole(
    image: Image.Image, image_size: tuple[int, int], rule: ResizeRule
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """The whole image stretched to `image_size`, for evaluation and prediction.

    Returns:
        (3, H, W): uint8 by the rule "antialias"; by "torchvision" float32 in 0..255, bilinear without
        antialiasing or rounding, as torchvision's GeneralizedRCNNTransform (the weights of a bilinear
        resize sum to one, so resizing before or after its normalisation is the same).
    """
    pixels = resize_pixels(np.array(image), image_size, rule)
    return pixels.transpose(2, 0, 1).copy()


def resize_pixels(
    pixels: NDArray[np.uint8], image_size: tuple[int, int], rule: ResizeRule
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """`resize_whole` from (h, w, 3) to (H, W, 3)."""
    if rule == "antialias":
        height, width = pixels.shape[:2]
        return render(pixels, View.whole((height, width)), image_size)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(planes, size=image_size, mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()


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


def _best_iou_of_centred(crops: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) the best IoU of each of (4, T) crops with the (G, 4) boxes whose centre it holds; -1 for none."""
    box_x0, box_y0, box_x1, box_y1 = boxes.T  # each (G,)
    centre_x, centre_y = (box_x0 + box_x1) / 2, (box_y0 + box_y1) / 2
    x0, y0, x1, y1 = crops[:, :, None]  # each (T, 1)
    holds = (x0 < centre_x) & (centre_x < x1) & (y0 < centre_y) & (centre_y < y1)  # (T, G)
    width = np.minimum(x1, box_x1) - np.maximum(x0, box_x0)
    height = np.minimum(y1, box_y1) - np.maximum(y0, box_y0)
    shared = width * height  # both are positive wherever the centre is held
    iou = shared / ((x1 - x0) * (y1 - y0) + (box_x1 - box_x0) * (box_y1 - box_y0) - shared)
    return np.where(holds, iou, -1.0).max(axis=1)
