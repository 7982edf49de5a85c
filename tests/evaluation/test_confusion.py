from __future__ import annotations

import numpy as np
import pytest

from detect.evaluation.backends import ground_truth_rows
from detect.evaluation.confusion import confusion_matrix, score_curve
from detect.evaluation.error_types import classify_detections
from tests.coco_cases import annotations_of, coco_dict, random_case, result
from tests.evaluation.test_matching import rows_of

BOX, FAR = [100.0, 100.0, 40.0, 40.0], [300.0, 100.0, 40.0, 40.0]


def test_confusion_matrix__by_hand() -> None:
    boxes = [(1, 1, BOX), (1, 2, FAR), (2, 1, BOX), (2, 2, FAR), (3, 1, BOX)]
    annotations = annotations_of(coco_dict(boxes, image_ids=[1, 2, 3], category_ids=(1, 2), crowd=(4,)))
    results = [
        result(1, 1, BOX, 0.75),  # found
        result(1, 1, FAR, 0.5),  # class 2 taken for 1
        result(1, 1, [301.0, 100.0, 40.0, 40.0], 0.25),  # again, but the box is taken: nothing there
        result(2, 2, [0.0, 0.0, 20.0, 20.0], 0.5),  # nothing there; both boxes are missed
        result(3, 1, BOX, 0.5),  # a crowd: not counted
    ]
    truth = ground_truth_rows(annotations)
    matrix = confusion_matrix(
        truth, classify_detections(annotations, truth, rows_of(annotations, results)), 2
    )
    assert matrix.tolist() == [[0, 1, 1], [1, 1, 0], [1, 1, 0]]


def test_confusion_matrix__rows_sum_to_the_boxes_of_each_class() -> None:
    dataset, results = random_case(7, images=40, classes=5)
    annotations = annotations_of(dataset)
    truth = ground_truth_rows(annotations)
    outcomes = classify_detections(annotations, truth, rows_of(annotations, results))
    matrix = confusion_matrix(truth, outcomes, 5)
    boxes = np.bincount(truth.labels[~truth.ignore], minlength=6)
    assert matrix[1:].sum(axis=1).tolist() == boxes[1:].tolist()
    assert matrix[0, 0] == 0


def test_score_curve__by_hand() -> None:
    annotations = annotations_of(coco_dict([(1, 1, BOX), (1, 1, FAR)], image_ids=[1]))
    results = [result(1, 1, BOX, 0.75), result(1, 1, [0.0, 0.0, 9.0, 9.0], 0.5), result(1, 1, FAR, 0.5)]
    truth = ground_truth_rows(annotations)
    curve = score_curve(truth, classify_detections(annotations, truth, rows_of(annotations, results)))
    assert curve.thresholds.tolist() == [0.75, 0.5]  # equal scores are one threshold
    assert curve.precision == pytest.approx([1, 2 / 3])
    assert curve.recall == pytest.approx([0.5, 1])
    assert curve.f1 == pytest.approx([2 / 3, 0.8])
    assert curve.best_threshold == 0.5


def test_score_curve__nothing_detected__threshold_zero() -> None:
    annotations = annotations_of(coco_dict([(1, 1, BOX)], image_ids=[1]))
    truth = ground_truth_rows(annotations)
    assert (
        score_curve(truth, classify_detections(annotations, truth, rows_of(annotations, []))).best_threshold
        == 0
    )
