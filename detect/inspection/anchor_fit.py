"""Anchor recall of a data set: the share of its boxes that some anchor overlaps with an IoU of at least 0.5.

A box without such an anchor still gets its best one in training, but only that one, and it must be
moved far: such classes and sizes are learnt late and badly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.inspection.anchor_advice import Advice, advise, advise_auto
from detect.inspection.anchor_layout import MATCH_IOU, AnchorLayout, best_anchors, trained_boxes

SMALL_AREA, MEDIUM_AREA = 32.0**2, 96.0**2
"""COCO's limits in px^2 of the file."""
FIRST_LOOK_BOXES = 50_000
"""So many boxes, evenly over the split, for the line at the start of a training: a tenth of a second."""
LOW_SHARE = 0.9
"""Below this anchor recall the start of a training says what would raise it."""


class Share(NamedTuple):
    """How many of some boxes have an anchor at IoU 0.5."""

    boxes: int
    met: int

    def to_json(self) -> dict[str, Any]:
        """`share` is null where there are no boxes."""
        return {"boxes": self.boxes, "share": round(self.met / self.boxes, 4) if self.boxes else None}

    def __str__(self) -> str:
        """In per cent; a dash where there are no boxes."""
        return f"{self.met / self.boxes:.1%}" if self.boxes else "-"


@dataclass(frozen=True)
class AnchorFit:
    """The fit of one layout to one split; regions to ignore are left out."""

    layout: AnchorLayout
    boxes_wh: NDArray[np.float32]
    """(M, 2) px of the input."""
    best_iou: NDArray[np.float32]
    """(M,) with any anchor."""
    all: Share
    by_size: dict[str, Share]
    by_class: dict[str, Share]
    by_level: list[int]
    """Number of boxes whose best anchor is on each map."""
    advice: list[Advice]
    auto: Advice | None
    """What `--model.anchors auto` would reach, where there is advice and it is worth it."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are listed in docs/data.md."""
        return {
            "image_size": list(self.layout.image_size),
            "style": self.layout.config.style,
            **self.all.to_json(),
            "by_size": {name: share.to_json() for name, share in self.by_size.items()},
            "by_class": {name: share.to_json() for name, share in self.by_class.items()},
            "by_level": self.by_level,
            "advice": [advice._asdict() | {"flags": advice.flags} for advice in self.advice],
        }


def fit_anchors(
    annotations: Annotations,
    layout: AnchorLayout,
    *,
    with_advice: bool = True,
    at_most: int | None = None,
) -> AnchorFit:
    """Compare the anchors of `layout` with the boxes of a split, and those of other layouts for advice.

    Args:
        annotations: of the split.
        layout: of the anchors.
        with_advice: try other settings too, where the recall is below `LOW_SHARE`.
        at_most: of more boxes than that, take every n-th; None takes all.
    """
    boxes = trained_boxes(annotations, at_most=at_most)
    on_input = boxes.on_input(layout.image_size)
    best = best_anchors(on_input, layout)
    met = best.iou >= MATCH_IOU
    areas = (boxes.boxes[:, 2:] - boxes.boxes[:, :2]).prod(axis=1)
    size = np.digitize(areas, [SMALL_AREA, MEDIUM_AREA])
    advised = with_advice and met.sum() < LOW_SHARE * len(met)
    return AnchorFit(
        layout,
        boxes_wh=on_input[:, 2:] - on_input[:, :2],
        best_iou=best.iou,
        all=Share(len(met), int(met.sum())),
        by_size=dict(zip(("small", "medium", "large"), _shares(size, met, groups=3), strict=True)),
        by_class=dict(
            zip(
                annotations.classes.names,
                _shares(boxes.labels - 1, met, groups=annotations.classes.num_classes),
                strict=True,
            )
        ),
        by_level=np.bincount(best.level, minlength=len(layout.levels())).tolist(),
        advice=advise(annotations, layout) if advised else [],
        auto=advise_auto(annotations, layout) if advised else None,
    )


def first_look(annotations: Annotations, layout: AnchorLayout, *, keep_anchors: bool) -> list[str]:
    """What a person should know of the anchors before a training: a line, and advice if recall is low.

    Nothing of points: no IoU decides which of them are positive.

    Args:
        annotations: the training split.
        layout: of the anchors.
        keep_anchors: advise no other anchors: those that are set have been trained.
    """
    if layout.config.style == "points":
        return []
    fit = fit_anchors(annotations, layout, with_advice=False, at_most=FIRST_LOOK_BOXES)
    if not fit.all.boxes:
        return []
    sizes = ", ".join(f"{name} {share}" for name, share in fit.by_size.items() if share.boxes)
    lines = [f"anchor recall at IoU {MATCH_IOU}: {fit.all} of the training boxes ({sizes})"]
    if fit.all.met < LOW_SHARE * fit.all.boxes:
        advice = [one for one in advise(annotations, layout) if one.keeps_anchors or not keep_anchors]
        # The cheapest, and the one with the highest recall.
        advice = advice if len(advice) < 2 else [advice[0], advice[-1]]
        if not keep_anchors and (auto := advise_auto(annotations, layout)) is not None:
            advice.append(auto)
        lines += [f"  more with {one}" for one in advice]
    return lines


def _shares(group: NDArray[np.int64], met: NDArray[np.bool_], *, groups: int) -> list[Share]:
    """How many of (M,) boxes are in each group, and how many of those are `met`."""
    boxes = np.bincount(group, minlength=groups).tolist()
    found = np.bincount(group[met], minlength=groups).tolist()
    return [Share(*counts) for counts in zip(boxes, found, strict=True)]
