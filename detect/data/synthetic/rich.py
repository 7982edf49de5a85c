"""Scenes of `data shapes --style rich`: silhouettes of any kind and size on grounds of a few tones.

The class is the silhouette alone; colour, size, turn and ground say nothing about it. A box is the outline's,
inside the image, exact to a fraction of a pixel; where another thing lies over it, it ends at the last pixel
in sight. Patterns, clutter, light and shadow, lens and sensor were here and went: a detector that starts from
such images learns photographs no better (docs/results.md).
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from detect.data.synthetic.silhouettes import SILHOUETTES, Points, Silhouette
from detect.data.synthetic.textures import Colour, Rng

Pixels = NDArray[np.float32]
"""(H, W, 3) RGB in 0..1."""
MIN_VISIBLE = 0.4
"""A thing that would leave less than this of itself, or of one below it, in sight is not painted."""
SMALLEST_PX = 5.0
"""Least side of a box."""
TRIES = 4
"""To find a place for a thing."""


class Plan(NamedTuple):
    """What kind of scene: how many things, how large (diameter in shorter sides), how many classes."""

    share: float
    things: tuple[int, int]
    diameter: tuple[float, float]
    classes: int
    alike: bool
    """Of one size and one style, as cells, pieces or fruit are."""


PLANS = (
    Plan(0.05, (0, 0), (0.1, 0.1), 1, alike=False),
    Plan(0.20, (1, 3), (0.25, 1.0), 3, alike=False),
    Plan(0.35, (3, 9), (0.06, 0.6), 9, alike=False),
    Plan(0.25, (5, 16), (0.1, 0.3), 4, alike=True),
    Plan(0.15, (12, 30), (0.04, 0.12), 3, alike=True),
)


class _Look(NamedTuple):
    """How the things of a scene, or one of them, are painted."""

    vivid: bool
    distance: float
    """In colour from the ground."""
    opacity: float
    colour: Colour | None = None
    """Null: any that is apart from the ground."""


@dataclass
class RichScene:
    """An image while it is painted.

    Attributes:
        pixels: (H, W, 3).
        owner: (H, W); n where thing n - 1 is on top, 0 where none is.
        things: painted so far: category id, outline's box (clipped), pixels of the whole.
    """

    pixels: Pixels
    owner: NDArray[np.int16] = field(init=False)
    things: list[tuple[int, NDArray[np.float64], int]] = field(default_factory=list)
    jpeg_quality: ClassVar[int] = 95

    def __post_init__(self) -> None:
        self.owner = np.zeros(self.pixels.shape[:2], np.int16)

    @property
    def image(self) -> Image.Image:
        """RGB, (W, H)."""
        return Image.fromarray(np.rint(self.pixels.clip(0, 1) * 255).astype(np.uint8))

    def annotations(self) -> list[dict[str, Any]]:
        """COCO's fields of each thing: category_id, iscrowd, bbox (xywh, px), area (visible px^2)."""
        rows = []
        for number, (category_id, box, _) in enumerate(self.things, 1):
            left, top, right, bottom = box
            x0, y0 = int(left), int(top)
            visible = self.owner[y0 : math.ceil(bottom), x0 : math.ceil(right)] == number
            columns, lines = np.flatnonzero(visible.any(axis=0)), np.flatnonzero(visible.any(axis=1))
            seen = np.array([x0 + columns[0], y0 + lines[0], x0 + columns[-1] + 1, y0 + lines[-1] + 1])
            # The outline where it is in sight, else where the thing above begins: to the pixel.
            box = np.where(np.abs(seen - box) <= 1.5, box, seen)
            rows.append(
                {
                    "category_id": category_id,
                    "iscrowd": 0,
                    "bbox": [round(float(v), 2) for v in (*box[:2], *(box[2:] - box[:2]))],
                    "area": int(visible.sum()),
                }
            )
        return rows


def paint_rich_scene(rng: Rng, longer_side_px: int) -> RichScene:
    """One image: ground and things."""
    longer = round(longer_side_px * rng.uniform(0.8, 1.0))
    shorter = round(longer / (1.0, 5 / 4, 4 / 3, 3 / 2, 16 / 9)[rng.integers(5)])
    height, width = (shorter, longer) if rng.random() < 0.65 else (longer, shorter)
    scene = RichScene(_ground(rng, height, width))
    _things(rng, scene, PLANS[rng.choice(len(PLANS), p=[plan.share for plan in PLANS])])
    return scene


def _ground(rng: Rng, height: int, width: int) -> Pixels:
    """One tone, two with a border (floor and wall), or several laid over each other."""

    def tone() -> Pixels:
        return _any_colour(rng, vivid=rng.random() < 0.15).astype(np.float32)

    ground = np.tile(tone(), (height, width, 1))
    kind = rng.random()
    if kind < 0.45:
        return ground
    x, y = np.arange(width, dtype=np.float32) / width, np.arange(height, dtype=np.float32)[:, None] / height
    for _ in range(1 if kind < 0.75 else int(rng.integers(2, 4))):
        angle = rng.normal(0, 0.1) if kind < 0.75 else rng.uniform(0, 2 * math.pi)
        edge = (y - rng.uniform(0.25, 0.75)) * math.cos(angle) + (x - 0.5) * math.sin(angle)
        blend = np.clip(edge * rng.uniform(20, 200), 0, 1)[..., None].astype(np.float32)
        ground += blend * (tone() - ground)
    return ground


def _any_colour(rng: Rng, *, vivid: bool) -> Colour:
    """Any hue; vivid ones with much saturation."""
    saturation = rng.uniform(0.35, 1) if vivid else rng.uniform(0, 0.45)
    value = rng.uniform(0.35, 1) if vivid else rng.uniform(0.08, 0.95)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value))


def _apart(rng: Rng, ground: Colour, *, vivid: bool, distance: float) -> Colour:
    """A colour that differs from `ground`: the first of a few that is `distance` away, else the farthest."""
    colours = [_any_colour(rng, vivid=vivid) for _ in range(4)]
    away = [float(np.abs(colour - ground).sum()) for colour in colours]
    return next(
        (c for c, a in zip(colours, away, strict=True) if a >= distance), colours[int(np.argmax(away))]
    )


def _look(rng: Rng, *, vivid: bool) -> _Look:
    opacity = rng.uniform(0.6, 0.9) if rng.random() < 0.12 else 1.0
    return _Look(vivid=vivid, distance=rng.uniform(0.25, 0.9), opacity=opacity)


def _things(rng: Rng, scene: RichScene, plan: Plan) -> None:
    """Paint the objects of a scene."""
    height, width = scene.pixels.shape[:2]
    chosen = rng.integers(len(SILHOUETTES), size=plan.classes)
    colours = [_any_colour(rng, vivid=rng.random() < 0.5) for _ in chosen]
    low, high = plan.diameter
    common = low * (high / low) ** rng.random()
    look, upright = _look(rng, vivid=rng.random() < 0.7), rng.random() < 0.5
    for _ in range(rng.integers(plan.things[0], plan.things[1] + 1)):
        kind = int(rng.integers(plan.classes))
        size = common * rng.uniform(0.75, 1.3) if plan.alike else low * (high / low) ** rng.random()
        radius = min(height, width) * size / 2
        own = look if plan.alike else _look(rng, vivid=rng.random() < 0.7)
        if plan.alike and rng.random() < 0.8:
            own = own._replace(colour=(colours[kind] + rng.normal(0, 0.04, 3)).clip(0, 1))
        for _ in range(TRIES):
            transform = _turn(rng, 0.25 if upright else math.pi) * radius
            place = rng.uniform(-0.02, 1.02, 2) * (width, height)
            figure = _thing(rng, SILHOUETTES[chosen[kind]], transform, place, scene)
            if _paint(rng, scene, figure, own, int(chosen[kind]) + 1):
                break


def _turn(rng: Rng, most: float) -> Points:
    """(2, 2) stretch, slant and rotation by up to `most` radians; half of the results are mirrored."""
    stretch = math.exp(rng.normal(0, 0.18))
    slant = rng.normal(0, 0.08)
    angle = rng.uniform(-most, most)
    cos, sin = math.cos(angle), math.sin(angle)
    mirror = 1 if rng.random() < 0.5 else -1
    return np.array([[mirror * stretch, slant], [0, 1 / stretch]]) @ np.array([[cos, sin], [-sin, cos]])


class _Figure(NamedTuple):
    """A drawn outline."""

    alpha: Image.Image
    """Mode L: share of each pixel that is covered."""
    detail: Image.Image | None
    corner: tuple[int, int]
    """x, y of the mask's corner, px of the image."""
    box: NDArray[np.float64]
    """xyxy of the outline, px."""

    @classmethod
    def draw(
        cls, outlines: list[Points], holes: list[Points], details: list[Points], scene: RichScene
    ) -> _Figure:
        """Paint polygons, given in px of the image, where it sees them; `holes` are cut out."""
        height, width = scene.pixels.shape[:2]
        corners = np.concatenate(outlines)
        low, high = corners.min(axis=0), corners.max(axis=0)
        x0, y0 = (max(0, math.floor(v)) for v in low)
        x1, y1 = min(width, math.ceil(high[0])), min(height, math.ceil(high[1]))
        size = max(1, x1 - x0), max(1, y1 - y0)
        scale = 4 if max(size) < 64 else 2

        def mask(*layers: tuple[list[Points], int]) -> Image.Image:
            image = Image.new("L", (size[0] * scale, size[1] * scale))
            draw = ImageDraw.Draw(image)
            for polygons, fill in layers:
                for polygon in polygons:
                    draw.polygon(((polygon - (x0, y0)) * scale).ravel().tolist(), fill=fill)
            return image.reduce(scale)

        alpha = mask((outlines, 255), (holes, 0))
        detail = mask((details, 255), (holes, 0)) if details else None
        return cls(alpha, detail, (x0, y0), np.concatenate([low, high]))


def _thing(
    rng: Rng, silhouette: Silhouette, transform: Points, place: NDArray[np.float64], scene: RichScene
) -> _Figure:
    """A silhouette in its place, its outline a little bent so that no two are alike."""
    frequency, phase = rng.uniform(1, 4, (2, 2)), rng.uniform(0, 2 * math.pi, 2)
    strength = rng.uniform(0, 0.06, 2)

    def put(group: tuple[Points, ...]) -> list[Points]:
        return [
            (points + strength * np.sin(points @ frequency + phase)) @ transform + place for points in group
        ]

    details = put(silhouette.details) if rng.random() < 0.8 else []
    return _Figure.draw(put(silhouette.parts), put(silhouette.holes), details, scene)


def _paint(rng: Rng, scene: RichScene, figure: _Figure, look: _Look, category_id: int) -> bool:
    """Paint `figure` on top, unless too little of it or of a thing below would be left in sight."""
    height, width = scene.pixels.shape[:2]
    box = figure.box.clip(0, (width, height, width, height))
    mask = np.asarray(figure.alpha) > 127
    visible = int(np.count_nonzero(mask))
    whole = visible * _area(figure.box) / max(1e-6, _area(box))
    if min(box[2:] - box[:2]) < SMALLEST_PX or visible < max(4, MIN_VISIBLE * whole):
        return False
    (x0, y0), (w, h) = figure.corner, figure.alpha.size
    window = slice(y0, y0 + h), slice(x0, x0 + w)
    if not _may_hide(scene, window, mask):
        return False
    scene.things.append((category_id, box, int(whole)))
    scene.owner[window][mask] = len(scene.things)
    _blend(rng, scene, figure, look, window)
    return True


def _area(box: NDArray[np.float64]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _may_hide(scene: RichScene, window: tuple[slice, slice], mask: NDArray[np.bool_]) -> bool:
    """Whether enough of every thing below stays in sight."""
    below = scene.owner[window][mask]
    lost = np.bincount(below, minlength=len(scene.things) + 1)
    for number in np.flatnonzero(lost[1:]) + 1:
        _, box, whole = scene.things[number - 1]
        left, top, right, bottom = box
        around = scene.owner[int(top) : math.ceil(bottom), int(left) : math.ceil(right)]
        if np.count_nonzero(around == number) - lost[number] < MIN_VISIBLE * whole:
            return False
    return True


def _blend(rng: Rng, scene: RichScene, figure: _Figure, look: _Look, window: tuple[slice, slice]) -> None:
    """Paint a figure and its details onto the pixels of its window."""
    below = scene.pixels[window]
    height, width = below.shape[:2]
    ground = below[:: max(1, height // 8), :: max(1, width // 8)].mean(axis=(0, 1)).astype(np.float64)
    colour = look.colour
    if colour is None or np.abs(colour - ground).sum() < 0.15:
        colour = _apart(rng, ground, vivid=look.vivid, distance=look.distance)
    cover = colour.astype(np.float32)
    if figure.detail is not None:
        tone = _apart(rng, colour, vivid=look.vivid, distance=0.4).astype(np.float32)
        cover = cover + _share(figure.detail) * (tone - cover)
    scene.pixels[window] = below + np.float32(look.opacity) * _share(figure.alpha) * (cover - below)


def _share(mask: Image.Image) -> Pixels:
    """(H, W, 1) in 0..1."""
    return np.asarray(mask).astype(np.float32)[..., None] / np.float32(255)
