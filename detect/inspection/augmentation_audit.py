"""What augmentation does to the boxes of a data set: how many it keeps, and which sizes it makes of them.

No pixel is read: plans are drawn as in training, and the boxes follow them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detect.data.dataset import DetectionDataset, SampleKey
from detect.inspection.anchor_fit import MEDIUM_AREA, SMALL_AREA
from detect.inspection.anchor_layout import MATCH_IOU, AnchorLayout, FileBoxes, best_anchors

SIZES = ("small", "medium", "large")
"""COCO's, by the box in px^2 of the file."""
QUANTILES = (5, 25, 50, 75, 95)


class BoxCounts(NamedTuple):
    """Counts of a group of boxes over all samples."""

    shown: int
    """Boxes of the samples' images."""
    kept: int
    """Boxes among those that the network saw."""
    met_before: int
    """Boxes with an anchor at IoU 0.5 where whole images are shown."""
    met_after: int
    """Kept boxes with an anchor at IoU 0.5 as they were seen."""
    median_before_px: float
    """Median of the root of the area, px of the input; NaN without boxes."""
    median_after_px: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; shares and medians are null where there are no boxes."""
        return {
            "shown": self.shown,
            "kept": self.kept,
            "kept_share": _share(self.kept, self.shown),
            "met_before": _share(self.met_before, self.shown),
            "met_after": _share(self.met_after, self.kept),
            "median_before_px": None if self.shown == 0 else round(self.median_before_px, 2),
            "median_after_px": None if self.kept == 0 else round(self.median_after_px, 2),
        }


@dataclass(frozen=True)
class AugmentationAudit:
    """S samples with M boxes in their images; regions to ignore are left out."""

    samples: int
    emptied: int
    """Samples that show none of the boxes that their images have."""
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    """(M,) 1..K."""
    size_groups: NDArray[np.int64]
    """(M,) places in `SIZES`."""
    before_px: NDArray[np.float64]
    """(M,) root of the area where the whole image is stretched onto the input."""
    after_px: NDArray[np.float64]
    """(M,) the same as the network saw it; NaN where the box was not kept."""
    met_before: NDArray[np.bool_]
    """(M,) whether it has an anchor at IoU 0.5."""
    met_after: NDArray[np.bool_]
    """(M,) the same of what the network saw; false where the box was not kept."""

    def counts(self, rows: NDArray[np.bool_] | slice = slice(None)) -> BoxCounts:
        """Counts of the boxes in `rows`, by default all."""
        before, after = self.before_px[rows], self.after_px[rows]
        kept = after[~np.isnan(after)]
        return BoxCounts(
            shown=len(before),
            kept=len(kept),
            met_before=int(self.met_before[rows].sum()),
            met_after=int(self.met_after[rows].sum()),
            median_before_px=float(np.median(before)) if len(before) else float("nan"),
            median_after_px=float(np.median(kept)) if len(kept) else float("nan"),
        )

    def by_size(self) -> dict[str, BoxCounts]:
        """Counts of small, medium and large boxes."""
        return {name: self.counts(self.size_groups == group) for group, name in enumerate(SIZES)}

    def by_class(self) -> dict[str, BoxCounts]:
        """Counts of the boxes of each class."""
        return {name: self.counts(self.labels == label) for label, name in enumerate(self.class_names, 1)}

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are listed in docs/data.md."""
        kept = self.after_px[~np.isnan(self.after_px)]
        return {
            "samples": self.samples,
            "emptied": self.emptied,
            **self.counts().to_json(),
            "by_size": {name: counts.to_json() for name, counts in self.by_size().items()},
            "by_class": {name: counts.to_json() for name, counts in self.by_class().items()},
            "quantiles_before_px": _quantiles(self.before_px),
            "quantiles_after_px": _quantiles(kept),
        }


def audit(dataset: DetectionDataset, layout: AnchorLayout, *, samples: int) -> AugmentationAudit:
    """Follow the boxes of `samples` samples: whole epochs from the first, or a part of it evenly spread.

    Args:
        dataset: the training split with its augmentations.
        layout: of the anchors, for the same input size.
        samples: at least 1.
    """
    annotations = dataset.annotations
    rows: list[NDArray[np.int64]] = []
    seen: list[NDArray[np.float32]] = []
    emptied = 0
    for key in audit_keys(len(annotations), samples):
        shown = dataset.boxes(key)
        trained = ~annotations.ignore[shown.places]
        after = np.full((len(trained), 4), np.nan, dtype=np.float32)
        after[shown.kept] = shown.boxes
        rows.append(shown.places[trained])
        seen.append(after[trained])
        emptied += bool(trained.any()) and not bool(shown.kept[trained].any())
    row, boxes = np.concatenate(rows), np.concatenate(seen)
    kept = ~np.isnan(boxes[:, 0])
    met_after = np.zeros(len(boxes), dtype=np.bool_)
    met_after[kept] = best_anchors(boxes[kept], layout).iou >= MATCH_IOU
    whole = FileBoxes.of(annotations, row).on_input(dataset.image_size)
    original = annotations.boxes[row]
    areas = (original[:, 2:] - original[:, :2]).prod(axis=1)
    return AugmentationAudit(
        samples=samples,
        emptied=emptied,
        class_names=annotations.classes.names,
        labels=annotations.labels[row],
        size_groups=np.digitize(areas, [SMALL_AREA, MEDIUM_AREA]),
        before_px=_root_area(whole),
        after_px=_root_area(boxes),
        met_before=best_anchors(whole, layout).iou >= MATCH_IOU,
        met_after=met_after,
    )


def audit_keys(images: int, samples: int) -> list[SampleKey]:
    """Samples to look at: the first epochs whole, or images evenly over the split where it has more."""
    if samples < images:
        return [SampleKey(0, int(row), 0) for row in np.linspace(0, images - 1, samples).round()]
    return [SampleKey(*divmod(i, images), 0) for i in range(samples)]


def _root_area(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(axis=1))


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    return {str(q): round(float(np.percentile(values, q)), 2) for q in QUANTILES}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
