from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from detect.data.checks.conventions import (
    BoxConvention,
    better_convention,
    fit_of,
    from_corners,
    is_normalised,
    to_corners,
)
from detect.data.splits import open_split

CONVENTIONS = get_args(BoxConvention)
LIMITS = np.tile([640.0, 480.0], (200, 1))


def random_boxes(rng: np.random.Generator, count: int = 200) -> np.ndarray:
    corner = rng.random((count, 2)) * (500, 400)
    return np.concatenate([corner, corner + 4 + rng.random((count, 2)) * ((640, 480) - corner - 4)], axis=1)


def written(boxes: np.ndarray, limits: np.ndarray, convention: BoxConvention) -> np.ndarray:
    return from_corners(boxes / np.tile(limits, 2) if is_normalised(convention) else boxes, convention)


def test_box__5_10_25_50__in_every_convention() -> None:
    box = np.array([[5.0, 10.0, 25.0, 50.0]])  # 20 wide, 40 high, centre 15, 30
    expected = {
        "xyxy": [5, 10, 25, 50],
        "xywh": [5, 10, 20, 40],
        "cxcywh": [15, 30, 20, 40],
        "yxyx": [10, 5, 50, 25],
    }
    for convention, numbers in expected.items():
        assert from_corners(box, convention)[0].tolist() == numbers


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_to_corners__undoes_from_corners(convention: BoxConvention) -> None:
    boxes = random_boxes(np.random.default_rng(0))
    assert to_corners(from_corners(boxes, convention), convention) == pytest.approx(boxes)


@pytest.mark.parametrize("true", CONVENTIONS)
@pytest.mark.parametrize("declared", CONVENTIONS)
def test_better_convention__finds_the_true_one(true: BoxConvention, declared: BoxConvention) -> None:
    numbers = written(random_boxes(np.random.default_rng(1)), LIMITS, true)
    found = better_convention(numbers, LIMITS, declared)
    assert (found is None) if true == declared else (found is not None and found[1].convention == true)


@pytest.mark.parametrize("name", ["bccd", "coco128"])
def test_better_convention__real_boxes__finds_the_true_one(name: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(name)
    annotations = open_split(
        root, {"bccd": "trainval", "coco128": "train2017"}[name], role="train"
    ).annotations
    limits = np.repeat(annotations.sizes[:, ::-1], np.diff(annotations.offsets), axis=0).astype(float)
    for true in CONVENTIONS:
        numbers = written(annotations.boxes, limits, true)
        assert better_convention(numbers, limits, true) is None
        for declared in set(CONVENTIONS) - {true}:
            found = better_convention(numbers, limits, declared)
            assert found is not None
            assert found[1].convention == true


def test_better_convention__sloppy_boxes__stay_what_they_are() -> None:
    rng = np.random.default_rng(2)
    boxes = random_boxes(rng)
    boxes[:40, 2] += rng.random(40) * 300  # a fifth of them far over the right edge
    for convention in ("xyxy", "xywh"):
        assert fit_of(from_corners(boxes, convention), LIMITS, convention).share > 0.05
        assert better_convention(from_corners(boxes, convention), LIMITS, convention) is None


def test_better_convention__few_boxes__never_judged() -> None:
    numbers = np.array([[600.0, 400.0, 630.0, 470.0]] * 4)
    assert better_convention(numbers, LIMITS[:4], "xywh") is None
