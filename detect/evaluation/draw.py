"""Detections on an image for a person to look at: boxes, class names and scores on light and dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Seven colours that people with any colour blindness tell apart. Source: Okabe and Ito, "Color Universal
Design" (2008), without black."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
MIN_LINE_PX = 2
"""Between its two edges a line of one pixel would lose its colour."""
LINE_PER_SIDE = 1 / 180
"""Width of a line in shorter sides of the image."""
FONT_PER_SIDE = 1 / 26
FONT_RANGE_PX = (10.0, 96.0)

Rgb = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rect = tuple[float, float, float, float]
"""Left, top, right, bottom, px of the image."""


class _Label(NamedTuple):
    text: str
    colour: Rgb
    anchor: Rect
    """The box that it names."""
    width: float
    height: float


def label_colour(label: int) -> Rgb:
    """The colour of class `label` (1..K); it comes round again after seven."""
    return PALETTE[(label - 1) % len(PALETTE)]


def draw_detections(
    image: Image.Image,
    boxes: ArrayLike,
    names: Sequence[str],
    scores: ArrayLike | None = None,
    *,
    labels: ArrayLike,
) -> Image.Image:
    """A copy of `image` in RGB with boxes, names and scores; the image itself stays as it is.

    The most confident detection lies on top, and its label has the first choice of a place. A label that is
    wider or higher than the image is left out; its box is drawn all the same.

    Args:
        image: the upright image, any mode that Pillow turns into RGB.
        boxes: (D, 4) xyxy, px of `image`; they may leave it.
        names: (D,) what to write; an empty one without a score leaves the box bare.
        scores: (D,) 0..1, written behind the name; None for ground truth.
        labels: (D,) 1..K, chooses the colour.

    Raises:
        ValueError: the numbers of boxes, names, scores and labels differ.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    classes = np.asarray(labels, dtype=np.int64)
    confidence = None if scores is None else np.asarray(scores, dtype=np.float64)
    num_scores = len(corners) if confidence is None else len(confidence)
    if not len(corners) == len(names) == len(classes) == num_scores:
        raise ValueError(
            f"{len(corners)} boxes, {len(names)} names, {'no' if confidence is None else num_scores} scores "
            f"and {len(classes)} labels; each box needs one of each"
        )
    if confidence is None:
        named = list(zip(corners, classes, names, strict=True))
    else:
        texts = [f"{name} {score:.2f}" for name, score in zip(names, confidence, strict=True)]
        order = np.argsort(-confidence, kind="stable").tolist()
        named = [(corners[i], classes[i], texts[i]) for i in order]
    return _draw_named(image.convert("RGB").copy(), named)


def _draw_named(drawn: Image.Image, named: Sequence[tuple[np.ndarray, int, str]]) -> Image.Image:
    """Draw boxes with the colours of their labels and a text each into `drawn`, the first on top."""
    draw = ImageDraw.Draw(drawn)
    shorter = min(drawn.size)
    font = ImageFont.load_default(float(np.clip(shorter * FONT_PER_SIDE, *FONT_RANGE_PX)))
    plates = [
        _Label(text, label_colour(int(label)), _inside(box, drawn.size), *_text_size(draw, text, font))
        for box, label, text in named
    ]
    for plate in reversed(plates):
        _draw_box(draw, plate.anchor, plate.colour, max(MIN_LINE_PX, round(shorter * LINE_PER_SIDE)))
    _draw_labels(draw, plates, drawn.size, font)
    return drawn


def draw_outlines(image: Image.Image, boxes: ArrayLike, *, labels: ArrayLike) -> Image.Image:
    """A copy of `image` in RGB with a line of one pixel around each of many boxes, such as anchors.

    Args:
        image: the upright image.
        boxes: (D, 4) xyxy, px of `image`; they may leave it.
        labels: (D,) 1..K, chooses the colour.
    """
    drawn = image.convert("RGB").copy()
    draw = ImageDraw.Draw(drawn)
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    for box, label in zip(corners, np.asarray(labels, dtype=np.int64).tolist(), strict=True):
        draw.rectangle(_inside(box, drawn.size), outline=label_colour(label))
    return drawn


def _inside(box: np.ndarray, size: tuple[int, int]) -> Rect:
    """The box cut to the image and at least one pixel wide, as `ImageDraw` wants it."""
    width, height = size
    left, right = sorted(np.clip(box[[0, 2]], 0, width))
    top, bottom = sorted(np.clip(box[[1, 3]], 0, height))
    left, top = min(left, width - 1), min(top, height - 1)
    return float(left), float(top), float(max(left, right - 1)), float(max(top, bottom - 1))


def _text_size(draw: ImageDraw.ImageDraw, text: str, font: Font) -> tuple[float, float]:
    """Size of the plate behind the text; as high for "cow" as for "dog", so that a row of plates is even."""
    left, _, right, _ = draw.textbbox((0, 0), text, font=font)
    _, top, _, bottom = draw.textbbox((0, 0), "Ag0|", font=font)
    padding = round(0.3 * (bottom - top))
    return right - left + 2 * padding, bottom - top + padding


def _draw_box(draw: ImageDraw.ImageDraw, box: Rect, colour: Rgb, line_px: int) -> None:
    """A line in the colour between two thin lines that stand out from it: one of the three always shows."""
    left, top, right, bottom = box
    edge_px = max(1, line_px // 2)
    contrast = contrasting(colour)
    draw.rectangle(
        (left - edge_px, top - edge_px, right + edge_px, bottom + edge_px),
        outline=contrast,
        width=line_px + 2 * edge_px,
    )
    draw.rectangle(box, outline=colour, width=line_px)


def contrasting(colour: Rgb) -> Rgb:
    """Black or white, whichever stands out more from `colour`.

    Source: WCAG 2.2, relative luminance; at 0.179 black and white are equally far.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if luminance > 0.179 else WHITE


def _draw_labels(
    draw: ImageDraw.ImageDraw, labels: Sequence[_Label], size: tuple[int, int], font: Font
) -> None:
    """Each label at its box, the first ones with the first choice of a place."""
    taken: list[Rect] = []
    for label in labels:
        if not label.text or label.width > size[0] or label.height > size[1]:
            continue
        place = _free_place(label, taken, size)
        taken.append(place)
        _draw_label(draw, label, place, font)


def _draw_label(draw: ImageDraw.ImageDraw, label: _Label, place: Rect, font: Font) -> None:
    draw.rectangle(place, fill=label.colour)
    centre = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
    draw.text(centre, label.text, fill=contrasting(label.colour), font=font, anchor="mm")


def _free_place(label: _Label, taken: list[Rect], size: tuple[int, int]) -> Rect:
    """The first place at the box that hides no other label, else the one that hides least of them."""
    left, top, right, bottom = label.anchor
    width, height = label.width, label.height
    corners = [
        (left, top - height),
        (left, bottom),
        (left, top),
        (right - width, top - height),
        (right - width, bottom),
        (right - width, top),
        (left, bottom - height),
        (right - width, bottom - height),
    ]
    places = []
    for x, y in corners:
        x, y = min(max(x, 0.0), size[0] - width), min(max(y, 0.0), size[1] - height)
        places.append((x, y, x + width, y + height))
    return min(places, key=lambda place: sum(_shared_area(place, other) for other in taken))


def _shared_area(one: Rect, other: Rect) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
