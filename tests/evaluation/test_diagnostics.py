from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detect.data.annotations import Annotations
from detect.evaluation import diagnostics
from detect.evaluation.backends import DetectionRows, ground_truth_rows, select
from detect.evaluation.diagnostics import NEAR_ZERO_MAP, explain_zero_map, ground_truth_metrics, self_test
from detect.evaluation.evaluator import compute_metrics
from tests.coco_cases import annotations_of, coco_dict, random_case

NAMES = ["id overlap", "box scale", "xy/yx order", "class shift", "score threshold"]
INPUT_SIZE = (100, 200)


@pytest.fixture(scope="module")
def annotations() -> Annotations:
    """Four wide boxes of five of six classes in each of 30 images, at places of their own."""
    rng = np.random.default_rng(0)
    boxes = [
        (image_id, int(rng.integers(1, 6)), [rng.uniform(40, 300), rng.uniform(10, 200), 150.0, 30.0])
        for image_id in range(1, 31)
        for _ in range(4)
    ]
    return annotations_of(coco_dict(boxes, image_ids=list(range(1, 31)), category_ids=(1, 2, 3, 4, 5, 6)))


@pytest.fixture(scope="module")
def right(annotations: Annotations) -> DetectionRows:
    """The ground truth as detections, without image 30."""
    rows = ground_truth_rows(annotations)
    rows = select(rows, rows.image_rows < 29)
    return DetectionRows(
        rows.image_rows, rows.labels, rows.boxes_xywh, np.linspace(0.2, 0.9, len(rows.labels))
    )


def broken(right: DetectionRows, cause: str) -> DetectionRows:
    """`right` with one fault."""
    boxes, size = right.boxes_xywh, np.array([640.0, 480.0, 640.0, 480.0])
    scale = size / np.array([200.0, 100.0, 200.0, 100.0])
    faults: dict[str, dict[str, Any]] = {
        "ids": {"image_rows": right.image_rows + 1},
        "fractions": {"boxes_xywh": boxes / size},
        "corners": {"boxes_xywh": np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)},
        "input frame": {"boxes_xywh": boxes / scale},
        "scaled twice": {"boxes_xywh": boxes * scale},
        "order": {"boxes_xywh": boxes[:, [1, 0, 3, 2]]},
        "labels + 1": {"labels": right.labels + 1},
        "labels permuted": {"labels": np.array([0, 3, 4, 5, 1, 2, 6])[right.labels]},
    }
    return right._replace(**faults[cause])


@pytest.mark.parametrize(
    ("cause", "first", "words"),
    [
        ("ids", "id overlap", "off by one"),
        ("fractions", "box scale", "fractions of the image"),
        ("corners", "box scale", "corners"),
        ("input frame", "box scale", "px of the network input"),
        ("scaled twice", "box scale", "twice"),
        ("order", "xy/yx order", "x and y swapped"),
        ("labels + 1", "class shift", r"every label were -1"),
        ("labels permuted", "class shift", "another order than class 1, class 2"),
    ],
)
def test_fault__first_check_that_fails(
    annotations: Annotations, right: DetectionRows, cause: str, first: str, words: str
) -> None:
    detections = broken(right, cause)
    assert compute_metrics(annotations, detections).mAP < 10 * NEAR_ZERO_MAP
    checks = explain_zero_map(annotations, detections, image_size=INPUT_SIZE)
    assert [check.name for check in checks] == NAMES
    failed = next(check for check in checks if not check.passed)
    assert failed.name == first
    assert words in failed.message
    assert str(failed).startswith(f"FAIL {first}: ")


def test_nothing_wrong__every_check_passes(annotations: Annotations, right: DetectionRows) -> None:
    checks = explain_zero_map(annotations, right, image_size=INPUT_SIZE)
    assert [check.passed for check in checks] == [True] * 5


def test_detections_on_images_without_boxes__id_overlap() -> None:
    annotations = annotations_of(coco_dict([(1, 1, [0.0, 0.0, 9.0, 9.0])], image_ids=[1, 2]))
    detections = DetectionRows(
        np.array([1]), np.array([1]), np.array([[0.0, 0.0, 9.0, 9.0]]), np.array([0.5])
    )
    first = explain_zero_map(annotations, detections)[0]
    assert not first.passed
    assert "1 images have detections, 1 have boxes, 0 have both" in first.message


@pytest.mark.parametrize("kept", [0, 3])
def test_few_detections__score_threshold(annotations: Annotations, right: DetectionRows, kept: int) -> None:
    checks = explain_zero_map(annotations, select(right, slice(kept)))
    assert [check.name for check in checks if not check.passed] == ["score threshold"]
    assert ("no detections for 120 boxes" if kept == 0 else "3 detections for 120 boxes") in checks[
        -1
    ].message


def test_ground_truth_as_detections__1() -> None:
    dataset, _ = random_case(7, images=50)
    metrics = ground_truth_metrics(annotations_of(dataset))
    assert (metrics.mAP, metrics.AR100) == pytest.approx((1, 1), abs=1e-12)


def test_self_test__passes_here() -> None:
    self_test()


def test_self_test__wrong_number__names_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(diagnostics.KNOWN_NUMBERS, "APl", 0.4)
    with pytest.raises(RuntimeError, match=r"'faster' gives APl 0\.5.*, expected 0\.4 .* broken \(numpy \d"):
        self_test()


def test_self_test__tool_that_fails__names_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*args: object, **settings: object) -> None:
        raise TypeError("numpy.dtype size changed")

    monkeypatch.setattr(diagnostics, "compute_metrics", crash)
    with pytest.raises(RuntimeError, match=r"TypeError: numpy\.dtype size changed .* pycocotools 2"):
        self_test()


def test_likeliest_order__undoes_a_permutation(annotations: Annotations, right: DetectionRows) -> None:
    truth = ground_truth_rows(annotations)
    permuted = np.array([0, 3, 4, 5, 1, 2, 6])
    order = diagnostics.likeliest_order(truth, right._replace(labels=permuted[right.labels]), 6)
    assert order[permuted].tolist() == list(range(7))


@pytest.mark.parametrize("label", [1, 5])
def test_a_detector_that_knows_one_class__has_learnt_nothing_and_shifted_nothing(label: int) -> None:
    rng = np.random.default_rng(1)
    classes = rng.choice([1, 2, 3, 4, 5], p=[0.04, 0.36, 0.2, 0.36, 0.04], size=120)
    boxes = [
        (1 + i // 4, int(k), [rng.uniform(40, 300), rng.uniform(10, 200), 150.0, 30.0])
        for i, k in enumerate(classes)
    ]
    annotations = annotations_of(coco_dict(boxes, image_ids=list(range(1, 31)), category_ids=(1, 2, 3, 4, 5)))
    rows = ground_truth_rows(annotations)
    scores = np.linspace(0.2, 0.9, len(rows.labels))
    alike = DetectionRows(rows.image_rows, np.full_like(rows.labels, label), rows.boxes_xywh, scores)
    check = explain_zero_map(annotations, alike)[3]
    assert check.name == "class shift"
    assert check.passed, check.message
