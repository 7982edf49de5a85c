"""Which settings would raise the anchor recall of a data set, each with the recall that it reaches."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from detect.data.annotations import Annotations
from detect.inspection.anchor_layout import (
    AnchorLayout,
    FileBoxes,
    anchor_recall,
    class_recall,
    trained_boxes,
)
from detect.model.anchors import AUTO, HeadStyle, even_scales

TRIED_BOXES = 4000
"""So many boxes, evenly over the split, choose between settings."""
TRIED_SIDES = (256, 320, 416, 512, 640)
"""Shorter sides of the input; multiples of 32."""
TRIED_LOWEST = (0.15, 0.1, 0.08, 0.06, 0.04)
TRIED_HIGHEST = (0.95, 0.7)
"""Scales at stride 16 and of the last map; the others follow as the usual ones do."""
USUAL_RATIOS = (2.0, 0.5, 3.0, 0.333)
TRIED_RATIOS = ((), (1.5, 0.667), (5.0, 0.2))
"""Ratios besides the usual ones, on every map."""
WORTHWHILE = 0.02
"""A smaller gain in recall is no reason to leave what is set."""


class Advice(NamedTuple):
    """Settings with a higher anchor recall."""

    settings: dict[str, Any]
    """Keys of the config, by their full path."""
    share: float
    """Anchor recall with these settings."""
    anchors: int
    """Anchors per image with these settings."""
    time_ratio: float = 1.0
    """Time per image over that of the present settings: the network's goes with the area of its input."""

    @property
    def flags(self) -> str:
        """The settings as a command line takes them."""
        return " ".join(f"--{key} {_as_flag(value)}" for key, value in self.settings.items())

    @property
    def keeps_anchors(self) -> bool:
        """Whether a detector that was trained with the present anchors keeps them."""
        return set(self.settings) <= {"model.image_size"}

    @property
    def effect(self) -> str:
        """What the settings reach, and what they cost."""
        time = f"about {self.time_ratio:.1f} times the time" if self.time_ratio != 1 else "no more time"
        return f"{self.share:.1%} of the boxes, {self.anchors:,} anchors, {time} per image"

    def __str__(self) -> str:
        return f"{self.flags}: {self.effect}"


class Tried(NamedTuple):
    """A layout and its anchor recall."""

    layout: AnchorLayout
    share: float


def advise(annotations: Annotations, layout: AnchorLayout) -> list[Advice]:
    """The best change of each kind that is worth it, the cheapest kind first; nothing without boxes.

    The kinds: other scales or the other head; more ratios beside those; another input; another input with
    other scales. Each must gain `WORTHWHILE` over the cheaper kinds, but for another input alone, which must
    beat the present settings only: a detector that was trained before keeps its anchors with it. Points have
    neither scales nor ratios, so for them another input is all.
    """
    boxes = trained_boxes(annotations, at_most=TRIED_BOXES)
    if not len(boxes.boxes):
        return []
    now = Tried(layout, anchor_recall(boxes, layout))
    side = _mildest(boxes, _other_inputs(layout), than=now)
    scales = ratios = both = None
    if layout.config.style != "points":
        scales = _mildest(boxes, _other_anchors(layout), than=now)
        ratios = _mildest(boxes, _more_ratios((scales or now).layout), than=scales or now)
        best = max((tried for tried in (now, scales, ratios, side) if tried), key=lambda tried: tried.share)
        style = (scales or now).layout.config.style
        anew = (one for other in _other_inputs(layout) for one in _ladders(other, style))
        both = _mildest(boxes, anew, than=best)
    return [
        Advice(
            _difference(layout, tried.layout),
            round(tried.share, 4),
            tried.layout.count,
            round(prod(tried.layout.image_size) / prod(layout.image_size), 2),
        )
        for tried in (scales, ratios, side, both)
        if tried
    ]


class ChosenScales(NamedTuple):
    """The scales that suit a data set, and the mean anchor recall of its classes."""

    layout: AnchorLayout
    """Its scales are null where the usual ones do."""
    usual: float
    """Recall with the usual scales."""
    share: float
    """Recall with those of `layout`."""

    @property
    def numbers(self) -> list[float]:
        """The scales as numbers, the usual ones too."""
        scales = self.layout.config.scales
        return even_scales(self.layout.strides) if scales is None else [*map(float, scales)]


def choose_scales(annotations: Annotations, layout: AnchorLayout) -> ChosenScales:
    """The usual scales, or others that fit better; the same for `detect init` and `anchors: auto`.

    Args:
        annotations: the training split.
        layout: of the anchors; its own scales do not count.
    """
    usual = replace(layout, config=replace(layout.config, scales=None))
    boxes = trained_boxes(annotations)
    recall = class_recall(boxes, usual) if len(boxes.boxes) else 1.0
    fitting = fitting_scales(annotations, usual)
    changed = fitting.layout.config.scales is not None
    return ChosenScales(fitting.layout, recall, fitting.share if changed else recall)


def settled(layout: AnchorLayout, annotations: Annotations) -> AnchorLayout:
    """`layout` with the numbers that "auto" scales become on a training split."""
    if layout.config.scales != AUTO:
        return layout
    numbers = choose_scales(annotations, layout).numbers
    return replace(layout, config=replace(layout.config, scales=numbers))


def advise_auto(annotations: Annotations, layout: AnchorLayout) -> Advice | None:
    """What `--model.anchors auto` would reach; None where it gains less than `WORTHWHILE`."""
    boxes = trained_boxes(annotations, at_most=TRIED_BOXES)
    if layout.config.style == "points" or not len(boxes.boxes):
        return None
    fitted = choose_scales(annotations, layout).layout
    share = anchor_recall(boxes, fitted)
    if share < anchor_recall(boxes, layout) + WORTHWHILE:
        return None
    return Advice({"model.anchors": AUTO}, round(share, 4), fitted.count)


def fitting_scales(annotations: Annotations, layout: AnchorLayout) -> Tried:
    """`layout` with the mildest scales that do nearly as well as the best, by the mean recall of the classes.

    Of the classes and not of all boxes: a class that no anchor fits is hardly learnt, however rare it is.
    `layout` itself where no scales gain `WORTHWHILE`, or where there are no boxes.
    """
    boxes = trained_boxes(annotations, at_most=TRIED_BOXES)
    if not len(boxes.boxes):
        return Tried(layout, 1.0)
    now = Tried(layout, class_recall(boxes, layout))
    return _mildest(boxes, _ladders(layout, layout.config.style), than=now, recall=class_recall) or now


def _mildest(
    boxes: FileBoxes,
    layouts: Iterable[AnchorLayout],
    *,
    than: Tried,
    recall: Callable[[FileBoxes, AnchorLayout], float] = anchor_recall,
) -> Tried | None:
    """Of `layouts`, the mildest first, the first that does nearly as well as the best; None: not worth it."""
    tried = [Tried(layout, recall(boxes, layout)) for layout in layouts]
    enough = max(than.share + WORTHWHILE, max(one.share for one in tried) - WORTHWHILE)
    return next((one for one in tried if one.share >= enough), None)


def _other_anchors(layout: AnchorLayout) -> Iterator[AnchorLayout]:
    """Scales for the head that is set, then the other head: with the usual scales, and with others."""
    style = layout.config.style
    yield from _ladders(layout, style)
    yield from _ladders(layout, "torchvision" if style == "paper" else "paper")


def _ladders(layout: AnchorLayout, style: HeadStyle) -> Iterator[AnchorLayout]:
    """The usual scales, then even steps between other ends, the nearest to the usual first."""
    ladders: list[list[float] | None] = [None]
    for low in TRIED_LOWEST:
        for high in TRIED_HIGHEST:
            ladders.append(even_scales(layout.strides, low=low, high=high))
    for scales in ladders:
        yield replace(layout, config=replace(layout.config, style=style, scales=scales))


def _more_ratios(layout: AnchorLayout) -> Iterator[AnchorLayout]:
    """More shapes per cell, those that are set among them."""
    present = layout.config.aspect_ratios or [list(USUAL_RATIOS)] * len(layout.strides)
    for more in TRIED_RATIOS:
        ratios = [[*level, *(ratio for ratio in more if ratio not in level)] for level in present]
        yield replace(layout, config=replace(layout.config, aspect_ratios=ratios))


def _other_inputs(layout: AnchorLayout) -> Iterator[AnchorLayout]:
    """The same proportions with other sides, the nearest first."""
    height, width = layout.image_size
    shorter = min(height, width)
    for side in sorted(TRIED_SIDES, key=lambda side: abs(side - shorter)):
        size = tuple(round(length * side / shorter / 32) * 32 for length in (height, width))
        yield replace(layout, image_size=(size[0], size[1]))


def _difference(layout: AnchorLayout, other: AnchorLayout) -> dict[str, Any]:
    """What must be set so that `layout` becomes `other`."""
    settings: dict[str, Any] = {}
    if other.image_size != layout.image_size:
        settings["model.image_size"] = list(other.image_size)
    for name in ("style", "scales", "aspect_ratios"):
        value = getattr(other.config, name)
        if value != getattr(layout.config, name):
            settings[f"model.anchors.{name}"] = value
    return settings


def _as_flag(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))
