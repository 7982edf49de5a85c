"""The two tools that turn boxes into COCO's precision and recall, fed from flat arrays.

faster-coco-eval gives the numbers; pycocotools is the second opinion, used exactly as its authors do.
Both see a copy with ids that count from 1, in the order of the data set's own ids: an annotation with id 0
can never be matched in either tool, and where scores are equal that order decides.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from faster_coco_eval import COCOeval_faster
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.data.annotations import Annotations
from detect.system.garbage import collection_paused

Backend = Literal["faster", "pycocotools"]
Rows = TypeVar("Rows", "GroundTruthRows", "DetectionRows")


class DetectionRows(NamedTuple):
    """Detections of a split in flat arrays, N rows; those of one image stand in the order they came."""

    image_rows: NDArray[np.int64]
    """(N,) row of the image in its split."""
    labels: NDArray[np.int64]
    """(N,) 1..K."""
    boxes_xywh: NDArray[np.float64]
    """(N, 4) px of the file."""
    scores: NDArray[np.float64]
    """(N,) finite."""


class GroundTruthRows(NamedTuple):
    """Boxes of a split in flat arrays, M rows."""

    image_rows: NDArray[np.int64]
    """(M,) row of the image in its split."""
    labels: NDArray[np.int64]
    """(M,) 1..K."""
    boxes_xywh: NDArray[np.float64]
    """(M, 4) px of the file."""
    areas: NDArray[np.float64]
    """(M,) px^2 as annotated; decides small, medium, large."""
    ignore: NDArray[np.bool_]
    """(M,) crowd or difficult: neither found nor missed."""


class PrecisionRecall(NamedTuple):
    """COCO's curves; -1 where a class has no ground truth in an area range.

    T IoU thresholds 0.5, 0.55, ..., 0.95; R recall thresholds 0, 0.01, ..., 1; K classes; A area ranges
    all, small, medium, large; M limits of 1, 10 and 100 detections per image and class.
    """

    precision: NDArray[np.float64]
    """(T, R, K, A) with 100 detections, the only limit that COCO gives precision for."""
    recall: NDArray[np.float64]
    """(T, K, A, M)"""


def ground_truth_rows(annotations: Annotations) -> GroundTruthRows:
    """The boxes of `annotations` as COCO's tools want them."""
    boxes = annotations.boxes
    return GroundTruthRows(
        image_rows=np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets)),
        labels=annotations.labels,
        boxes_xywh=np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
        areas=annotations.areas,
        ignore=annotations.ignore,
    )


def select(rows: Rows, index: NDArray[np.generic] | slice) -> Rows:
    """The rows at `index`: a mask, positions or a slice."""
    return rows._replace(**{name: column[index] for name, column in rows._asdict().items()})


def image_ranks(annotations: Annotations) -> NDArray[np.int64]:
    """(N,) 1..N: the place of each image when the data set's ids are sorted, as both tools sort them."""
    ranks = np.empty(len(annotations), dtype=np.int64)
    ranks[np.argsort(annotations.image_ids, kind="stable")] = np.arange(1, len(annotations) + 1)
    return ranks


def precision_recall(
    ground_truth: GroundTruthRows,
    detections: DetectionRows,
    *,
    ranks: NDArray[np.int64],
    num_classes: int,
    backend: Backend,
) -> PrecisionRecall:
    """COCO's precision and recall arrays.

    Args:
        ground_truth: boxes of the evaluated images.
        detections: of the same images.
        ranks: of all images of the split, from `image_ranks`.
        num_classes: K.
        backend: the tool that computes.
    """
    ground_truth = _sorted(ground_truth._replace(image_rows=ranks[ground_truth.image_rows]))
    detections = _sorted(detections._replace(image_rows=ranks[detections.image_rows]))
    if backend == "pycocotools":
        return _with_pycocotools(ground_truth, detections, ranks=ranks, num_classes=num_classes)
    return _with_faster_coco_eval(ground_truth, detections, num_classes)


def _sorted(rows: Rows) -> Rows:
    """By label, then by image; rows of one image and label keep their order, which decides ties."""
    return select(rows, np.lexsort((rows.image_rows, rows.labels)))


def _with_faster_coco_eval(
    ground_truth: GroundTruthRows, detections: DetectionRows, num_classes: int
) -> PrecisionRecall:
    """One class at a time: never more Python objects alive than one class has boxes."""
    parameters = COCOeval_faster(iouType="bbox").params
    shape = (len(parameters.iouThrs), num_classes, len(parameters.areaRng), len(parameters.maxDets))
    recall = np.full(shape, -1.0)
    precision = np.full((shape[0], len(parameters.recThrs), *shape[1:3]), -1.0)
    labels = np.arange(1, num_classes + 2)
    gt_starts = np.searchsorted(ground_truth.labels, labels)
    starts = np.searchsorted(detections.labels, labels)
    with collection_paused():
        for k in np.flatnonzero(np.diff(gt_starts)):
            evaluation = _OneClass(
                select(ground_truth, slice(gt_starts[k], gt_starts[k + 1])),
                select(detections, slice(starts[k], starts[k + 1])),
            )
            evaluation.evaluate()
            evaluation.accumulate()
            precision[:, :, k] = evaluation.eval["precision"][:, :, 0, :, -1]
            recall[:, k] = evaluation.eval["recall"][:, 0]
    return PrecisionRecall(precision, recall)


class _OneClass(COCOeval_faster):  # type: ignore[misc]
    """faster-coco-eval without its index of all annotations, whose walk takes longer than the evaluation.

    `_prepare` is the hook that it has from pycocotools: it fills the two data sets that the rest reads.
    """

    def __init__(self, ground_truth: GroundTruthRows, detections: DetectionRows) -> None:
        super().__init__(iouType="bbox")
        self.ground_truth = ground_truth
        self.detections = detections
        self.params.imgIds = np.union1d(ground_truth.image_rows, detections.image_rows)
        self.params.catIds = ground_truth.labels[:1]

    def _prepare(self) -> None:
        label = int(self.params.catIds[0])
        for rows, data_set in (
            (self.ground_truth, self.gt_dataset),
            (self.detections, self.dt_dataset),
        ):
            for image_id, entry in zip(rows.image_rows.tolist(), _entries(rows), strict=True):
                data_set.append_ref(image_id, label, entry)
        shared = np.intersect1d(self.ground_truth.image_rows, self.detections.image_rows)
        self._nonempty_iou_pairs = {(image_id, label) for image_id in shared.tolist()}


def _with_pycocotools(
    ground_truth: GroundTruthRows, detections: DetectionRows, *, ranks: NDArray[np.int64], num_classes: int
) -> PrecisionRecall:
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress by print
        evaluation = COCOeval(
            _coco(ground_truth, ranks, num_classes),
            _coco(detections, ranks, num_classes),
            "bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
    return PrecisionRecall(evaluation.eval["precision"][..., -1], evaluation.eval["recall"])


def _coco(rows: GroundTruthRows | DetectionRows, ranks: NDArray[np.int64], num_classes: int) -> Any:
    """The structure that pycocotools reads; its `loadRes` would fail on an empty list of results."""
    places = zip(rows.image_rows.tolist(), rows.labels.tolist(), _entries(rows), strict=True)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": rank} for rank in ranks.tolist()],
        "categories": [{"id": label} for label in range(1, num_classes + 1)],
        "annotations": [
            {"image_id": image_id, "category_id": label, **entry} for image_id, label, entry in places
        ],
    }
    coco.createIndex()
    return coco


def _entries(rows: GroundTruthRows | DetectionRows) -> list[dict[str, Any]]:
    """COCO's annotations or results with ids from 1, but for the image and the category."""
    boxes = rows.boxes_xywh.tolist()
    if isinstance(rows, DetectionRows):
        areas = (rows.boxes_xywh[:, 2] * rows.boxes_xywh[:, 3]).tolist()
        return [
            {"id": number, "bbox": box, "area": area, "score": score}
            for number, (box, area, score) in enumerate(
                zip(boxes, areas, rows.scores.tolist(), strict=True), 1
            )
        ]
    columns = zip(boxes, rows.areas.tolist(), rows.ignore.astype(int).tolist(), strict=True)
    return [
        {"id": number, "bbox": box, "area": area, "iscrowd": crowd, "ignore": crowd}
        for number, (box, area, crowd) in enumerate(columns, 1)
    ]


def corners(boxes_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4) xywh to xyxy."""
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
