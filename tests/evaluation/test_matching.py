from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detect.data.annotations import Annotations
from detect.evaluation.backends import DetectionRows, ground_truth_rows
from detect.evaluation.evaluator import CocoEvaluator
from detect.evaluation.matching import best_per_image_and_class, match_detections
from tests.coco_cases import annotations_of, batch_of, coco_dict, result

BOX = [10.0, 20.0, 50.0, 40.0]


def rows_of(annotations: Annotations, results: list[dict[str, Any]]) -> DetectionRows:
    evaluator = CocoEvaluator(annotations)
    evaluator.update(*batch_of(annotations, results, list(range(len(annotations)))))
    return evaluator.detections


def test_match_detections__says_which_box_was_found() -> None:
    far = [300.0, 300.0, 50.0, 40.0]
    dataset = coco_dict([(1, 1, BOX), (1, 1, far), (2, 1, BOX)], image_ids=[1, 2], crowd=(1,))
    annotations = annotations_of(dataset)
    results = [
        result(1, 1, BOX, 0.5),  # a duplicate: the box is taken by the better score
        result(1, 1, BOX, 0.9),
        result(1, 1, far, 0.8),
        result(1, 1, far, 0.7),  # a crowd is found any number of times
        result(2, 1, [10.0, 20.0, 50.0, 28.0], 0.6),  # IoU 28 / 40
    ]
    matches = match_detections(annotations, ground_truth_rows(annotations), rows_of(annotations, results))
    assert matches.detections.scores == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    assert matches.matched_idx[0].tolist() == [0, 1, 1, 2, -1]
    assert matches.matched_idx[5].tolist() == [0, 1, 1, -1, -1]
    assert matches.found[0].tolist() == [True, False, False, True, False]
    assert matches.ignored[0].tolist() == [False, True, True, False, False]


def test_match_detections__nothing_detected() -> None:
    annotations = annotations_of(coco_dict([(1, 1, BOX)], image_ids=[1]))
    matches = match_detections(annotations, ground_truth_rows(annotations), rows_of(annotations, []))
    assert matches.found.shape == (10, 0)


def test_best_per_image_and_class__keeps_the_best_and_sorts() -> None:
    detections = DetectionRows(
        image_rows=np.array([0, 0, 0, 1, 1]),
        labels=np.array([1, 1, 1, 1, 2]),
        boxes_xywh=np.zeros((5, 4)),
        scores=np.array([0.1, 0.3, 0.2, 0.2, 0.9]),
    )
    best = best_per_image_and_class(detections, np.array([2, 1]), most=2)
    assert best.labels.tolist() == [1, 1, 1, 2]
    assert best.scores.tolist() == [0.3, 0.2, 0.2, 0.9]
    assert best.image_rows.tolist() == [0, 1, 0, 1]  # equal scores: by rank, and row 1 has the lower
