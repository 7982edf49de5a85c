import numpy as np
import pytest

from detect.evaluation.baseline import constant_box_baseline, constant_detections, k_means
from detect.evaluation.evaluator import Baseline
from tests.coco_cases import annotations_of, coco_dict


def test_boxes_that_are_the_same_everywhere_are_found() -> None:
    boxes = [(i, 1, [64.0, 48.0, 128.0, 96.0]) for i in range(5)]
    baseline = constant_box_baseline(annotations_of(coco_dict(boxes, image_ids=list(range(5)))))
    assert (baseline.mAP, baseline.AP50) == pytest.approx((1.0, 1.0))


def test_two_places_need_two_boxes() -> None:
    """Half of the boxes left, half right: their mean overlaps neither, two constant boxes find all."""
    left, right = [0.0, 0.0, 64.0, 48.0], [320.0, 240.0, 64.0, 48.0]
    boxes = [(i, 1, left if i % 2 else right) for i in range(6)]
    annotations = annotations_of(coco_dict(boxes, image_ids=list(range(6))))
    # Two boxes on each of six images, of equal scores by image order: half of the detections are right.
    assert 0.4 < constant_box_baseline(annotations).mAP < 0.7
    mean = constant_detections(annotations, 1)
    np.testing.assert_allclose(mean.boxes_xywh, np.tile([160.0, 120.0, 64.0, 48.0], (6, 1)))
    assert mean.scores.tolist() == [1.0] * 6


def test_boxes_follow_the_size_of_each_image() -> None:
    dataset = coco_dict([(0, 1, [64.0, 48.0, 64.0, 48.0])], image_ids=[0, 1])
    dataset["images"][1] |= {"width": 64, "height": 48}
    found = constant_detections(annotations_of(dataset), 1)
    np.testing.assert_allclose(found.boxes_xywh[1], [6.4, 4.8, 6.4, 4.8])


def test_a_split_without_boxes_has_a_baseline_of_nothing() -> None:
    assert constant_box_baseline(annotations_of(coco_dict([], image_ids=[0, 1]))) == Baseline(-1.0, -1.0)


def test_k_means_on_points_that_are_apart() -> None:
    points = np.array([[0, 0, 1, 1], [0, 0, 1, 1.2], [5, 5, 9, 9.0]])
    centres, shares = k_means(points, 2)
    np.testing.assert_allclose(centres, [[0, 0, 1, 1.1], [5, 5, 9, 9]])
    np.testing.assert_allclose(shares, [2 / 3, 1 / 3])
