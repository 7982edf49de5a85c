"""Detections to mAP: collect every batch, gather all ranks, compute COCO's twelve numbers.

This is where a label becomes a category id and xyxy becomes xywh. Knows no loader and no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from detect.boxes import xyxy_to_xywh
from detect.data.annotations import Annotations
from detect.errors import InputError
from detect.evaluation.backends import (
    Backend,
    DetectionRows,
    GroundTruthRows,
    PrecisionRecall,
    ground_truth_rows,
    image_ranks,
    precision_recall,
    select,
)
from detect.evaluation.metrics import AREAS, LIMITS, METRICS, Metric
from detect.types import Detections

Value = TypeVar("Value")
IDS_IN_MESSAGE = 10


@dataclass(frozen=True)
class ClassMetrics:
    """Figures of one class; fractions of one, -1 where it has no ground truth."""

    AP: float
    AP50: float
    images: int
    """That hold at least one of its boxes."""
    boxes: int
    """Ground truth without crowd and difficult boxes."""


@dataclass(frozen=True)
class Baseline:
    """The score of the best boxes that are the same on every image; fractions of one."""

    mAP: float
    AP50: float


@dataclass(frozen=True)
class Metrics:
    """COCO's twelve numbers, fractions of one, -1 where there is no ground truth to measure on."""

    mAP: float
    """Mean of AP over IoU thresholds 0.5, 0.55, ..., 0.95 and over classes."""
    AP50: float
    AP75: float
    APs: float
    """Boxes of at most 32^2 px^2 annotated area."""
    APm: float
    """32^2 to 96^2 px^2."""
    APl: float
    """From 96^2 px^2."""
    AR1: float
    """Recall with one detection per image and class, mean over thresholds and classes."""
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    per_class: dict[str, ClassMetrics]
    images: int
    """Evaluated."""
    backend: Backend
    baseline: Baseline | None = None
    """The score that a detector must beat; None where it was not asked for."""

    def to_json(self) -> dict[str, Any]:
        """Plain values in the order of the fields: the metrics JSON."""
        values = asdict(self)
        if self.baseline is None:
            del values["baseline"]
        return values


def compute_metrics(
    annotations: Annotations,
    detections: DetectionRows,
    *,
    backend: Backend = "faster",
    evaluated: NDArray[np.bool_] | None = None,
) -> Metrics:
    """COCO metrics of one split.

    Args:
        annotations: the ground truth.
        detections: of any of its images, in any order of images.
        backend: the tool that computes; both give the same numbers to 1e-6.
        evaluated: (N,) images that count; None: all.
    """
    ground_truth = ground_truth_rows(annotations)
    if evaluated is not None:
        ground_truth = select(ground_truth, evaluated[ground_truth.image_rows])
        detections = select(detections, evaluated[detections.image_rows])
    arrays = precision_recall(
        ground_truth,
        detections,
        ranks=image_ranks(annotations),
        num_classes=annotations.classes.num_classes,
        backend=backend,
    )
    numbers: dict[str, Any] = {metric.name: _measure(metric, arrays) for metric in METRICS}
    return Metrics(
        **numbers,
        per_class=_per_class(arrays, ground_truth, annotations.classes.names),
        images=len(annotations) if evaluated is None else int(evaluated.sum()),
        backend=backend,
    )


def _measure(metric: Metric, arrays: PrecisionRecall) -> float:
    """As `COCOeval.summarize` does."""
    area = AREAS.index(metric.area)
    if metric.kind == "recall":
        return _mean(arrays.recall[..., area, LIMITS.index(metric.limit)])
    if metric.iou is None:
        return _mean(arrays.precision[..., area])
    return _mean(arrays.precision[round((metric.iou - 0.5) / 0.05), ..., area])


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what was measured; -1, COCO's word for nothing, where nothing was."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else -1.0


def _per_class(
    arrays: PrecisionRecall, ground_truth: GroundTruthRows, names: tuple[str, ...]
) -> dict[str, ClassMetrics]:
    counted = select(ground_truth, ~ground_truth.ignore)
    boxes = np.bincount(counted.labels, minlength=len(names) + 1)
    in_image = np.unique(np.stack([counted.labels, counted.image_rows]), axis=1)
    images = np.bincount(in_image[0], minlength=len(names) + 1)
    return {
        name: ClassMetrics(
            AP=_mean(arrays.precision[:, :, label - 1, 0]),
            AP50=_mean(arrays.precision[0, :, label - 1, 0]),
            images=int(images[label]),
            boxes=int(boxes[label]),
        )
        for label, name in enumerate(names, 1)
    }


class _Shard(NamedTuple):
    """What one rank has collected."""

    detections: DetectionRows
    evaluated_rows: NDArray[np.int64]
    """Row of each image that was evaluated, as often as it was."""
    not_finite: int


class CocoEvaluator:
    """COCO metrics of a split on any number of ranks: update with every batch, gather, compute.

    Args:
        annotations: the ground truth; rows of its images are the `sample_idx` of `update`.
        backend: the tool that computes.

    Raises:
        InputError: no such backend.
    """

    def __init__(self, annotations: Annotations, *, backend: Backend = "faster") -> None:
        if backend not in get_args(Backend):
            raise InputError(f"backend {backend!r} is not known; there are {', '.join(get_args(Backend))}")
        self.annotations = annotations
        self.backend: Backend = backend
        self.reset()

    def reset(self) -> None:
        """Forget all detections, for the next validation."""
        self._shards: list[_Shard] = []
        self._gathered = False

    @property
    def detections(self) -> DetectionRows:
        """What was collected, in the order of the images; `gather` moves it all to rank 0."""
        rows = _concatenated(self._shards).detections
        return select(rows, np.argsort(rows.image_rows, kind="stable"))

    @property
    def not_finite(self) -> int:
        """Detections left out for a NaN or infinity; `gather` moves the sum to rank 0."""
        return sum(shard.not_finite for shard in self._shards)

    def update(self, sample_idx: Tensor, detections: Detections) -> None:
        """Add the detections of a batch; rows with label 0 or score 0 are padding.

        Rows that are not finite are left out and counted in `not_finite`: no IoU is smaller than NaN, so
        pycocotools would count such a box as found.

        Args:
            sample_idx: (B,) row of each image in the split.
            detections: boxes (B, D, 4) xyxy in px of the file, scores (B, D), labels (B, D).

        Raises:
            ValueError: a row or a label that the split does not have.
        """
        image_rows = sample_idx.detach().cpu().numpy().astype(np.int64)
        boxes_xywh = xyxy_to_xywh(detections.boxes.detach().cpu().double()).numpy()
        scores = detections.scores.detach().cpu().double().numpy()
        labels = detections.labels.detach().cpu().numpy().astype(np.int64)
        _check_range("sample_idx", image_rows, len(self.annotations))
        _check_range("label", labels, self.annotations.classes.num_classes + 1)
        real = (labels > 0) & (scores != 0)
        finite = np.isfinite(scores) & np.isfinite(boxes_xywh).all(-1)
        kept = real & finite
        rows = DetectionRows(
            image_rows=np.repeat(image_rows, kept.sum(1)),
            labels=labels[kept],
            boxes_xywh=boxes_xywh[kept],
            scores=scores[kept],
        )
        self._shards.append(_Shard(rows, image_rows, int((real & ~finite).sum())))

    def gather(self, *, partial: bool = False) -> None:
        """Bring the detections of all ranks to rank 0; check that each image was evaluated exactly once.

        Args:
            partial: images may be missing, as in a validation of a few batches; they do not count then.

        Raises:
            RuntimeError: an image is missing or was evaluated twice; the same on every rank, names the ids.
        """
        shards = _gather_on_rank_0(_concatenated(self._shards))
        self._shards = shards or []  # moved, not copied: gathering again changes nothing
        complaint = _from_rank_0(lambda: self._coverage_complaint(partial))
        if complaint is not None:
            raise RuntimeError(complaint)
        self._gathered = True

    def compute(self) -> Metrics:
        """The metrics, computed on rank 0 and the same on every rank.

        Raises:
            RuntimeError: `gather` was not called since the last `reset`.
        """
        if not self._gathered:
            raise RuntimeError(
                "CocoEvaluator.compute() needs the detections of all ranks: call gather() first"
            )

        def measure() -> Metrics:
            evaluated = self._times_evaluated() > 0
            return compute_metrics(
                self.annotations, self.detections, backend=self.backend, evaluated=evaluated
            )

        return _from_rank_0(measure)

    def results(self) -> list[dict[str, Any]]:
        """COCO's results format with the data set's own ids, and the names beside them.

        Image by image in the order of the split; `gather` moves all of them to rank 0. Boxes are written as
        they were scored: reading the rows back gives the same metrics.
        """
        classes = self.annotations.classes
        columns = (column.tolist() for column in self.detections)
        return [
            {
                "image_id": self.annotations.image_id(row),
                "category_id": classes.category_id(label),
                "bbox": box_xywh,
                "score": score,
                "file_name": self.annotations.file_names[row].decode(),
                "category_name": classes.name(label),
            }
            for row, label, box_xywh, score in zip(*columns, strict=True)
        ]

    def _times_evaluated(self) -> NDArray[np.int64]:
        rows = _concatenated(self._shards).evaluated_rows
        return np.bincount(rows, minlength=len(self.annotations))

    def _coverage_complaint(self, partial: bool) -> str | None:
        times = self._times_evaluated()
        faults = []
        if (times > 1).any():
            faults.append(f"evaluated more than once: {self._listed_ids(times > 1)}")
        if (times == 0).any() and not partial:
            faults.append(f"never evaluated: {self._listed_ids(times == 0)}")
        if not faults:
            return None
        return (
            f"each of the {len(times)} images of {self.annotations.source} must be evaluated exactly once; "
            f"image ids {'; '.join(faults)}. The loader of this split repeats or leaves out images"
        )

    def _listed_ids(self, images: NDArray[np.bool_]) -> str:
        rows = np.flatnonzero(images)
        more = f" and {len(rows) - IDS_IN_MESSAGE} more" if len(rows) > IDS_IN_MESSAGE else ""
        return ", ".join(str(self.annotations.image_id(row)) for row in rows[:IDS_IN_MESSAGE]) + more


def _check_range(name: str, values: NDArray[np.int64], end: int) -> None:
    outside = values[(values < 0) | (values >= end)]
    if outside.size:
        raise ValueError(f"{name} {outside[0]} is not in 0..{end - 1} of the split that is evaluated")


def _concatenated(shards: list[_Shard]) -> _Shard:
    """One shard of all, with empty columns where there are none."""
    nothing = DetectionRows(
        np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 4)), np.zeros(0)
    )
    columns = zip(nothing, *(shard.detections for shard in shards), strict=True)
    return _Shard(
        DetectionRows._make(np.concatenate(parts) for parts in columns),
        np.concatenate([nothing.image_rows, *(shard.evaluated_rows for shard in shards)]),
        sum(shard.not_finite for shard in shards),
    )


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized()


def _gather_on_rank_0(shard: _Shard) -> list[_Shard] | None:
    """The shards of all ranks on rank 0, None elsewhere."""
    if not _several_processes():
        return [shard]
    shards: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(shard, shards, dst=0)
    return shards


def _from_rank_0(compute: Callable[[], Value]) -> Value:
    """What rank 0 computes, on every rank."""
    if not _several_processes():
        return compute()
    box: list[Any] = [compute() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]
