from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detect.data.annotations import Annotations
from detect.evaluation.average_precision import WeightedAp
from detect.evaluation.backends import ground_truth_rows
from detect.evaluation.evaluator import compute_metrics
from tests.coco_cases import annotations_of, coco_dict, random_case, result
from tests.evaluation.test_matching import rows_of

BOX = [10.0, 20.0, 50.0, 40.0]


def weighted_ap(annotations: Annotations, results: list[dict[str, Any]]) -> WeightedAp:
    return WeightedAp(annotations, ground_truth_rows(annotations), rows_of(annotations, results))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weighted_ap__all_images_once__equals_coco_for_every_class(seed: int) -> None:
    dataset, results = random_case(seed, images=60, classes=6)
    annotations = annotations_of(dataset)
    detections = rows_of(annotations, results)
    metrics = compute_metrics(annotations, detections, backend="pycocotools")
    ap = WeightedAp(annotations, ground_truth_rows(annotations), detections)
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
    ap = weighted_ap(annotations, results)
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
    ap = weighted_ap(annotations, [result(1, 1, BOX, 0.5)])
    assert ap.mean(np.array([[1.0, 0.0], [0.0, 2.0]])) == pytest.approx([1.0, np.nan], nan_ok=True)


def test_weighted_ap__nothing_detected__zero() -> None:
    annotations = annotations_of(coco_dict([(1, 1, BOX)], image_ids=[1]))
    assert weighted_ap(annotations, []).mean(np.ones((1, 1)))[0] == 0
