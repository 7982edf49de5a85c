from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.evaluation.backends import DetectionRows, ground_truth_rows
from detect.evaluation.evaluator import CocoEvaluator, compute_metrics
from detect.evaluation.matching import WeightedAp, best_per_image_and_class, match_detections
from tests.coco_cases import annotations_of, batch_of, coco_dict, random_case, result

BOX = [10.0, 20.0, 50.0, 40.0]


def rows_of(annotations: Annotations, results: list[dict[str, Any]]) -> DetectionRows:
    evaluator = CocoEvaluator(annotations)
    evaluator.update(*batch_of(annotations, results, list(range(len(annotations)))))
    return evaluator.detections


def weighted_ap(annotations: Annotations, detections: DetectionRows) -> WeightedAp:
    truth = ground_truth_rows(annotations)
    return WeightedAp(
        truth,
        match_detections(annotations, truth, detections),
        num_images=len(annotations),
        num_classes=annotations.classes.num_classes,
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weighted_ap__all_images_once__equals_coco_for_every_class(seed: int) -> None:
    dataset, results = random_case(seed, images=60, classes=6)
    annotations = annotations_of(dataset)
    detections = rows_of(annotations, results)
    metrics = compute_metrics(annotations, detections, backend="pycocotools")
    ap = weighted_ap(annotations, detections)
    ones = np.ones((1, len(annotations)))
    assert ap.mean(ones)[0] == pytest.approx(metrics.mAP, abs=1e-12)
    of_classes = np.array([figures.AP for figures in metrics.per_class.values()])
    assert np.nan_to_num(ap.per_class(ones)[0].mean(axis=1), nan=-1.0) == pytest.approx(of_classes, abs=1e-12)


def test_weighted_ap__weights__equal_copies_of_the_images() -> None:
    dataset, results = random_case(5, images=12, classes=3)
    for number, entry in enumerate(results):  # copies of equal scores may stand in another order
        entry["score"] = (number + 1) / 1024
    weights = np.array([[0, 1, 2, 3, 1, 0, 2, 1, 1, 4, 0, 1]], dtype=np.float64)
    annotations = annotations_of(dataset)
    copied, copied_results = copies(dataset, results, weights[0])
    copied_annotations = annotations_of(copied)
    expected = compute_metrics(copied_annotations, rows_of(copied_annotations, copied_results))
    ap = weighted_ap(annotations, rows_of(annotations, results))
    assert ap.mean(weights)[0] == pytest.approx(expected.mAP, abs=1e-9)


def copies(
    dataset: dict[str, Any], results: list[dict[str, Any]], weights: NDArray[np.float64]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Each image as often as its weight, under ids of its own."""
    images, annotations, copied_results = [], [], []
    for image, weight in zip(dataset["images"], weights, strict=True):
        for number in range(int(weight)):
            new_id = image["id"] * 100 + number
            images.append({**image, "id": new_id})
            for source, target in ((dataset["annotations"], annotations), (results, copied_results)):
                target += [
                    {**copy.deepcopy(entry), "image_id": new_id}
                    for entry in source
                    if entry["image_id"] == image["id"]
                ]
    return {**dataset, "images": images, "annotations": annotations}, copied_results


def test_weighted_ap__no_box_drawn__nan() -> None:
    annotations = annotations_of(coco_dict([(1, 1, BOX)], image_ids=[1, 2]))
    ap = weighted_ap(annotations, rows_of(annotations, [result(1, 1, BOX, 0.5)]))
    assert ap.mean(np.array([[1.0, 0.0], [0.0, 2.0]])) == pytest.approx([1.0, np.nan], nan_ok=True)


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
    assert weighted_ap(annotations, rows_of(annotations, [])).mean(np.ones((1, 1)))[0] == 0


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
