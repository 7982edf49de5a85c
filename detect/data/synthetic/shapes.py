"""The built-in data set: images of shapes in an ordinary COCO folder, made from a seed and nothing else.

The class of an object is its outline alone; colour, texture, size, turn and background say nothing about it.
That there is an object shows in its colour: objects are vivid, background and clutter dull. Without that hint
a small network that starts from random weights needs hours instead of minutes.
Each figure is painted at four subpixels a pixel into a map that tells which figure owns which subpixel, so
boxes are exact: the tightest around what can be seen, to a quarter of a pixel.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from detect.data.synthetic.rich import paint_rich_scene
from detect.data.synthetic.silhouettes import SILHOUETTES, Points
from detect.data.synthetic.textures import Rng, grainy, muted_colour, textured, vivid_colour
from detect.errors import InputError

SUBPIXELS = 4
"""Subpixels along each side of a pixel: the edges of figures are smooth, boxes are multiples of 1/4 px."""
MIN_VISIBLE = 0.5
"""A figure that would leave less than this of itself, or of one below it, in sight is not painted."""
MAX_OBJECTS = 5
EMPTY_SHARE = 0.05
"""Share of the images without any object."""
CROWD_SHARE = 0.06
"""Share of the images with a swarm of small figures of one class under one `iscrowd` box."""
DIAMETER_RANGE = (0.15, 0.8)
"""Diameter of a figure before stretching, in shorter sides of the image."""
PLACING_TRIES = 12
MIN_LONGER_SIDE_PX = 64
JPEG_QUALITY = 90

Style = Literal["plain", "rich"]


class ShapeClass(NamedTuple):
    """One class of objects."""

    category_id: int
    name: str
    outline: Points
    """Corners inside the circle of radius 1."""
    hole: Points | None = None
    """Corners of what is cut out."""


def _star(corners: int, inner_radius: float = 1.0) -> Points:
    """A polygon whose corners lie on the circle of radius 1 and on one of `inner_radius`, by turns."""
    radius = np.where(np.arange(corners) % 2 == 0, 1.0, inner_radius)
    angle = 2 * np.pi * np.arange(corners) / corners
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _cross(half_arm: float = 0.3) -> Points:
    """Two bars across each other, three corners a quarter turn."""
    a = half_arm
    quarter = np.array([(-a, -1), (a, -1), (a, -a)]) / math.hypot(1, a)
    turn = np.array([(0, 1), (-1, 0)])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


ROUND = 72
SHAPES = (
    ShapeClass(1, "ellipse", _star(ROUND)),
    ShapeClass(3, "rectangle", _star(4)),
    ShapeClass(4, "triangle", _star(3)),
    ShapeClass(9, "star", _star(10, inner_radius=0.45)),
    ShapeClass(12, "ring", _star(ROUND), hole=0.55 * _star(ROUND)),
    ShapeClass(20, "cross", _cross()),
)
"""Every class; the category ids have gaps on purpose, as COCO's have."""


def make_shapes(
    output: Path,
    *,
    train: int = 2000,
    val: int = 200,
    unseen: int = 12,
    seed: int = 0,
    longer_side_px: int = 288,
    style: Style = "plain",
) -> None:
    """Write the data set into the folder `output`, whole or not at all.

    Image i of a split depends on `seed`, the split and i only: a larger set begins with the smaller one.

    Args:
        output: a folder that does not exist yet or is empty.
        train: images in `train/`, annotated in `annotations/instances_train.json`.
        val: images in `val/`, annotated in `annotations/instances_val.json`.
        unseen: images in `unseen/`, without annotations, to try a trained detector on.
        seed: the same seed gives the same files, byte for byte, with the same version of Pillow.
        longer_side_px: the longest side of the largest image; sizes and aspect ratios vary.
        style: "plain" for six shapes of vivid colours; "rich" for some 50 silhouettes of any size and
            colour: a harder set, to start other trainings from.

    Raises:
        InputError: `output` holds files, or a number is out of range.
    """
    _check_numbers(train, val, unseen, seed, longer_side_px)
    output = output.resolve()
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output} exists and is not an empty folder; give another place or move it away")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        unfinished = Path(scratch) / output.name
        (unfinished / "annotations").mkdir(parents=True)
        for split_number, (split, count) in enumerate((("train", train), ("val", val), ("unseen", unseen))):
            coco = _write_split(unfinished / split, count, (seed, split_number), longer_side_px, style)
            if split != "unseen":
                path = unfinished / "annotations" / f"instances_{split}.json"
                path.write_text(_one_record_a_line(coco), encoding="utf-8")
        arguments = f"{train=}, {val=}, {unseen=}, {seed=}, {longer_side_px=}"
        if style != "plain":
            arguments += f", {style=}"
        text = README.format(arguments=arguments) + OBJECTS[style]
        (unfinished / "README.txt").write_text(text, encoding="utf-8")
        unfinished.replace(output)


README = """\
Images of shapes, made by detect.data.synthetic.shapes.make_shapes ({arguments}).

annotations/instances_train.json, annotations/instances_val.json   COCO annotations
train/, val/                                                       the images they describe
unseen/                                                            images without annotations

A box is the tightest around what can be seen of an object, `area` counts its visible pixels. """
OBJECTS: dict[Style, str] = {
    "plain": """At least half of
every object is in sight. Some images hold no object; boxes with `iscrowd` 1 hold a swarm of small ones.
Objects are vivid; background, scribbles and blobs, which belong to no class, are dull.
""",
    "rich": """At least 40 %
of every object is in sight. Some images hold no object.
""",
}


def _one_record_a_line(coco: dict[str, list[dict[str, Any]]]) -> str:
    """JSON that a person can read and search."""
    lists = [f'"{key}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for key, rows in coco.items()]
    return "{\n" + ",\n".join(lists) + "\n}\n"


def _check_numbers(train: int, val: int, unseen: int, seed: int, longer_side_px: int) -> None:
    limits = {
        "train": (train, 1),
        "val": (val, 1),
        "unseen": (unseen, 0),
        "seed": (seed, 0),
        "longer_side_px": (longer_side_px, MIN_LONGER_SIDE_PX),
    }
    for name, (value, least) in limits.items():
        if value < least:
            raise InputError(f"{name} is {value}; it must be {least} or more")


def _write_split(
    folder: Path, count: int, seed: tuple[int, int], longer_side_px: int, style: Style
) -> dict[str, list[dict[str, Any]]]:
    """Paint `count` images into `folder`; returns what their COCO file holds."""
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng([*seed, index])
        scene = (
            paint_scene(rng, longer_side_px) if style == "plain" else paint_rich_scene(rng, longer_side_px)
        )
        image_id, file_name = index + 1, f"{index + 1:06d}.jpg"
        image = scene.image
        image.save(folder / file_name, quality=scene.jpeg_quality)
        width, height = image.size
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for annotation in scene.annotations():
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    names = {s.category_id: s.name for s in SHAPES}
    if style == "rich":
        names = {i: silhouette.name for i, silhouette in enumerate(SILHOUETTES, 1)}
    categories = [{"id": i, "name": name, "supercategory": "shape"} for i, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


@dataclass
class _Object:
    category_id: int
    iscrowd: int
    subpixels: int
    """Of the whole figure, hidden parts and parts outside the image included."""
    visible: int
    """Subpixels in sight so far."""


class _Figure(NamedTuple):
    mask: Image.Image
    """Mode L, 0 or 255, one subpixel a pixel; its sides are whole pixels of the image."""
    x: int
    y: int
    """Where the mask's corner lies, px of the image; may be negative."""


class Scene:
    """An image while it is painted, and which object owns each subpixel of it.

    Attributes:
        image: RGB, (W, H).
        owner: (H * SUBPIXELS, W * SUBPIXELS) uint8; n where object n - 1 is on top, 0 where none is.
    """

    jpeg_quality = JPEG_QUALITY

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        width, height = image.size
        self.owner = np.zeros((height * SUBPIXELS, width * SUBPIXELS), np.uint8)
        self._objects: list[_Object] = []

    def paint(self, figure: _Figure, rng: Rng, shape: ShapeClass | None, *, iscrowd: bool = False) -> bool:
        """Paint `figure` on top, unless too little of it or of an object below would be left in sight.

        Args:
            figure: what to paint.
            rng: chooses colour and texture.
            shape: its class, or None for a thing that belongs to none.
            iscrowd: the figure is a swarm.
        """
        window, mask = self._inside(figure)
        subpixels = int(np.count_nonzero(np.asarray(figure.mask)))
        visible = int(np.count_nonzero(mask))
        hidden = np.bincount(self.owner[window][mask], minlength=len(self._objects) + 1)[1:]
        if visible < MIN_VISIBLE * subpixels or any(
            thing.visible - lost < MIN_VISIBLE * thing.subpixels
            for thing, lost in zip(self._objects, hidden, strict=True)
        ):
            return False
        for thing, lost in zip(self._objects, hidden, strict=True):
            thing.visible -= int(lost)
        if shape is not None:
            self._objects.append(_Object(shape.category_id, int(iscrowd), subpixels, visible))
        self.owner[window][mask] = len(self._objects) if shape is not None else 0
        self._blend(figure, rng, vivid=shape is not None)
        return True

    def annotations(self) -> list[dict[str, Any]]:
        """COCO's fields of each object: category_id, iscrowd, bbox (xywh, px), area (visible px^2)."""
        rows = []
        for number, thing in enumerate(self._objects, 1):
            visible = self.owner == number
            x = np.flatnonzero(visible.any(axis=0))
            y = np.flatnonzero(visible.any(axis=1))
            left, top, right, bottom = (v / SUBPIXELS for v in (x[0], y[0], x[-1] + 1, y[-1] + 1))
            rows.append(
                {
                    "category_id": thing.category_id,
                    "iscrowd": thing.iscrowd,
                    "bbox": [float(v) for v in (left, top, right - left, bottom - top)],
                    "area": thing.visible / SUBPIXELS**2,
                }
            )
        return rows

    def _inside(self, figure: _Figure) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
        """The window of `owner` that the figure covers, and the part of its mask that falls into it."""
        left, top = figure.x * SUBPIXELS, figure.y * SUBPIXELS
        height, width = self.owner.shape
        mask = np.asarray(figure.mask) > 0
        mask = mask[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
        y, x = max(0, top), max(0, left)
        return (slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])), mask

    def _blend(self, figure: _Figure, rng: Rng, *, vivid: bool) -> None:
        alpha = figure.mask.reduce(SUBPIXELS)
        place = (figure.x, figure.y)
        below = np.asarray(self.image.crop((*place, figure.x + alpha.width, figure.y + alpha.height)))
        ground = below[np.asarray(alpha) > 0].mean(axis=0) / 255
        colour = vivid_colour(rng, ground) if vivid else muted_colour(rng)
        soft = Image.new("L", (alpha.width + 12, alpha.height + 12))
        soft.paste(alpha, (6, 6))
        shadow = soft.filter(ImageFilter.BoxBlur(3)).point(lambda value: value * 0.4)
        self.image.paste((0, 0, 0), (figure.x - 4, figure.y - 3), shadow)
        self.image.paste(textured(rng, alpha.size, colour, contrast=0.2), place, alpha)


def paint_scene(rng: Rng, longer_side_px: int) -> Scene:
    """One image: background, clutter, then objects with some clutter between them."""
    size = _image_size(rng, longer_side_px)
    scene = Scene(textured(rng, size, muted_colour(rng), contrast=0.15))
    for _ in range(rng.integers(0, 4)):
        scene.paint(_blob(rng, size), rng, None)
    if rng.random() >= EMPTY_SHARE:
        if rng.random() < CROWD_SHARE:
            shape = SHAPES[rng.integers(len(SHAPES))]
            scene.paint(_swarm(rng, size, shape), rng, shape, iscrowd=True)
        for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
            shape = SHAPES[rng.integers(len(SHAPES))]
            for _ in range(PLACING_TRIES):
                if scene.paint(_single(rng, size, shape), rng, shape):
                    break
            if rng.random() < 0.15:
                scene.paint(_scribble(rng, size), rng, None)
    scene.image = grainy(rng, scene.image)
    return scene


def _image_size(rng: Rng, longer_side_px: int) -> tuple[int, int]:
    """(W, H), the longer side within a fifth of the largest, at 1:1, 4:3 or 3:2, upright or not."""
    longer = round(longer_side_px * rng.uniform(0.8, 1.0))
    shorter = round(longer / (1.0, 4 / 3, 3 / 2)[rng.integers(3)])
    return (longer, shorter) if rng.random() < 0.6 else (shorter, longer)


def _single(rng: Rng, size: tuple[int, int], shape: ShapeClass) -> _Figure:
    """One object anywhere in the image, of any size and turn, stretched by up to 1.4 along one axis."""
    smallest, largest = DIAMETER_RANGE
    # The root moves the log-uniform distribution towards large objects.
    diameter = min(size) * smallest * (largest / smallest) ** (rng.random() ** 0.6)
    transform = _turn(rng) * (diameter / 2)
    centre = rng.random(2) * size
    return _draw_mask([shape.outline @ transform + centre], _hole(shape, transform, centre))


def _swarm(rng: Rng, size: tuple[int, int], shape: ShapeClass) -> _Figure:
    """Some 20 small figures of one class, close together."""
    centre = rng.uniform(0.3, 0.7, 2) * size
    spread = min(size) * rng.uniform(0.1, 0.22, 2)
    outlines: list[Points] = []
    holes: list[Points] = []
    for _ in range(rng.integers(15, 26)):
        transform = _turn(rng) * (min(size) * rng.uniform(0.02, 0.035))
        place = centre + rng.uniform(-1, 1, 2) * spread
        outlines.append(shape.outline @ transform + place)
        holes.extend(_hole(shape, transform, place))
    return _draw_mask(outlines, holes)


def _hole(shape: ShapeClass, transform: Points, centre: Points) -> list[Points]:
    return [] if shape.hole is None else [shape.hole @ transform + centre]


def _turn(rng: Rng) -> Points:
    """(2, 2) stretch along one axis, then rotation; keeps areas."""
    stretch = math.exp(rng.uniform(-0.17, 0.17))
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[stretch, 0], [0, 1 / stretch]]) @ np.array([[cos, sin], [-sin, cos]])


def _blob(rng: Rng, size: tuple[int, int]) -> _Figure:
    """A lobed thing that belongs to no class."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    lobes = sum(rng.uniform(0.1, 0.3) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    radius = min(size) * rng.uniform(0.06, 0.3) * (1 + lobes)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return _draw_mask([points + rng.random(2) * size], [])


def _scribble(rng: Rng, size: tuple[int, int]) -> _Figure:
    """A thin crooked line."""
    steps = rng.normal(0, 0.09 * min(size), (12, 2)) + rng.normal(0, 0.05 * min(size), 2)
    points = rng.random(2) * size + np.cumsum(steps, axis=0)
    return _draw_mask([points], [], line_width_px=rng.uniform(1.5, 4.0))


def _draw_mask(outlines: list[Points], holes: list[Points], *, line_width_px: float | None = None) -> _Figure:
    """Paint polygons (or, with a width, open lines) given in px of the image; `holes` are cut out."""
    corners = np.concatenate(outlines)
    margin = math.ceil(line_width_px or 1)
    x, y = (int(v) - margin for v in np.floor(corners.min(axis=0)))
    width, height = (int(v) + margin for v in np.ceil(corners.max(axis=0)) - (x, y))
    mask = Image.new("L", (width * SUBPIXELS, height * SUBPIXELS))
    draw = ImageDraw.Draw(mask)
    for polygons, fill in ((outlines, 255), (holes, 0)):
        for polygon in polygons:
            points = [(float(px), float(py)) for px, py in (polygon - (x, y)) * SUBPIXELS]
            if line_width_px is None:
                draw.polygon(points, fill=fill)
            else:
                draw.line(points, fill=fill, width=round(line_width_px * SUBPIXELS), joint="curve")
    return _Figure(mask, x, y)
