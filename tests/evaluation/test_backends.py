from __future__ import annotations

import numpy as np

from detect.evaluation.backends import DetectionRows, ground_truth_rows, image_ranks, precision_recall, select
from tests.coco_cases import annotations_of, coco_dict, random_case


def rows_of(case: int) -> tuple:
    dataset, results = random_case(case, images=60)
    annotations = annotations_of(dataset)
    ids = annotations.image_ids.tolist()
    category_ids = annotations.classes.category_ids
    detections = DetectionRows(
        np.array([ids.index(r["image_id"]) for r in results]),
        np.array([category_ids.index(r["category_id"]) + 1 for r in results]),
        np.array([r["bbox"] for r in results]),
        np.array([r["score"] for r in results]),
    )
    return annotations, detections


def test_backends__equal_curves() -> None:
    annotations, detections = rows_of(8)
    settings = {"ranks": image_ranks(annotations), "num_classes": annotations.classes.num_classes}
    truth = ground_truth_rows(annotations)
    faster = precision_recall(truth, detections, backend="faster", **settings)
    slow = precision_recall(truth, detections, backend="pycocotools", **settings)
    assert faster.precision.shape == (10, 101, 12, 4)
    assert faster.recall.shape == (10, 12, 4, 3)
    np.testing.assert_allclose(faster.precision, slow.precision, atol=1e-9)
    np.testing.assert_allclose(faster.recall, slow.recall, atol=1e-9)
    assert (faster.precision == -1).any()
    assert (faster.precision > 0).any()


def test_precision_recall__order_of_images_in_the_arrays_changes_nothing() -> None:
    annotations, detections = rows_of(9)
    truth, shuffled = ground_truth_rows(annotations), np.argsort(-detections.image_rows, kind="stable")
    settings = {"ranks": image_ranks(annotations), "num_classes": annotations.classes.num_classes}
    first = precision_recall(truth, detections, backend="faster", **settings)
    second = precision_recall(truth, select(detections, shuffled), backend="faster", **settings)
    assert np.array_equal(first.precision, second.precision)


def test_ground_truth_rows__xywh_and_image_of_each_box() -> None:
    boxes = [(5, 1, [1.0, 2.0, 3.0, 4.0]), (3, 1, [0.5, 0.0, 10.0, 20.0]), (5, 1, [9.0, 9.0, 1.0, 1.0])]
    rows = ground_truth_rows(annotations_of(coco_dict(boxes, image_ids=[3, 4, 5], crowd=(0,))))
    assert rows.image_rows.tolist() == [0, 2, 2]
    assert rows.boxes_xywh.tolist() == [[0.5, 0, 10, 20], [1, 2, 3, 4], [9, 9, 1, 1]]
    assert rows.ignore.tolist() == [False, True, False]


def test_image_ranks__order_of_ids() -> None:
    assert image_ranks(annotations_of(coco_dict([], image_ids=[30, 4, 100]))).tolist() == [2, 1, 3]
    assert image_ranks(annotations_of(coco_dict([], image_ids=["30", "4", "100"]))).tolist() == [2, 3, 1]
