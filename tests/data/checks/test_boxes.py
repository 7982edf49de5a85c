from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.data.checks.boxes import clean
from detect.data.readers import coco
from detect.data.splits import OpenedSplit, open_split
from detect.errors import InputError
from detect.evaluation.evaluator import CocoEvaluator
from tests.coco_cases import NUMBERS, batch_of, pycocotools_numbers, random_case
from tests.data_sets import coco_file, make_coco_split

GOOD = [4.0, 6.0, 20.0, 10.0]
CLASSES = {3: "cat", 9: "dog"}


def open_boxes(root: Path, *objects: tuple[int, int, Any]) -> OpenedSplit:
    """A good box and `objects` (image id, category id, bbox) in one 64 x 48 image."""
    make_coco_split(root, coco_file([("a.jpg", 64, 48)], [(1, 3, GOOD), *objects], CLASSES))
    return open_split(root, role="train")


@pytest.mark.parametrize(
    ("bad", "code", "detail"),
    [
        ((7, 3, GOOD), "image-id-unknown", "no image has the id 7"),
        ((1, 4, GOOD), "category-unknown", "no category 4; there are 3, 9"),
        ((1, 3, [1, 2, float("nan"), 4]), "box-not-a-number", "xmin 1, ymin 2, xmax nan, ymax 6"),
        ((1, 3, [1, 2, 3]), "box-not-a-number", "xmin nan"),
        ((1, 3, "box"), "box-not-a-number", "xmin nan"),
        ((1, 3, [1, 2, 10**400, 4]), "box-not-a-number", "xmax inf"),
        ((1, 3, [1, 2, 0, 4]), "box-without-area", "xmin 1, ymin 2, xmax 1, ymax 6"),
        ((1, 3, [1, 2, 5, -4]), "box-without-area", "ymin 2, xmax 6, ymax -2"),
        ((1, 3, [70, 2, 5, 4]), "box-outside", "xmax 75, ymax 6 in an image of 64 x 48 px"),
        ((1, 3, [0, 0, 129, 4]), "box-huge", "xmax 129, ymax 4 in an image of 64 x 48 px"),
    ],
)
def test_box__bad__dropped_with_one_finding(tmp_path: Path, bad: Any, code: str, detail: str) -> None:
    opened = open_boxes(tmp_path, bad)
    errors = [f for f in opened.findings if f.severity == "error"]
    assert [(f.code, f.annotation, f.action) for f in errors] == [(code, 2, "box dropped")]
    assert detail in errors[0].detail
    assert opened.annotations.boxes.tolist() == [[4, 6, 24, 16]]


@pytest.mark.parametrize(("right", "severity"), [(64.5, "note"), (70.0, "warning")])
def test_box__over_the_edge__clipped(tmp_path: Path, right: float, severity: str) -> None:
    opened = open_boxes(tmp_path, (1, 9, [60, 2, right - 60, 4]))
    assert [(f.code, f.severity) for f in opened.findings] == [("box-clipped", severity)]
    assert opened.findings[0].action == "clipped to the image in training, scored as it is"
    assert opened.annotations.boxes[1].tolist() == [60, 2, right, 6]
    assert opened.annotations.clipped_boxes()[1].tolist() == [60, 2, 64, 6]


def test_boxes__of_another_convention__stop_with_example_and_way_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corner = rng.integers(10, 30, (20, 2))
    boxes = np.concatenate([corner, corner + rng.integers(5, 18, (20, 2))], axis=1)
    make_coco_split(
        tmp_path, coco_file([("a.jpg", 64, 48)], [(1, 3, box) for box in boxes.tolist()], CLASSES)
    )
    with pytest.raises(
        InputError, match=r"look like xyxy, not xywh: read as xywh, .* as xyxy 0\.0%"
    ) as caught:
        open_split(tmp_path, role="train")
    assert re.search(r"a.jpg, annotation \d+: [\d, ]+ in an image of 64 x 48 px", str(caught.value))
    read_so = open_split(tmp_path, role="train", box_convention="xyxy")
    assert (read_so.annotations.boxes == boxes).all()
    kept = open_split(tmp_path, role="train", box_convention="xywh")
    assert any(finding.code == "box-clipped" for finding in kept.findings)


def test_area__not_a_number_or_below_zero__that_of_the_box(tmp_path: Path) -> None:
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, GOOD)] * 3, CLASSES)
    for annotation, area in zip(content["annotations"], (7.0, float("inf"), -1.0), strict=True):
        annotation["area"] = area
    make_coco_split(tmp_path, content)
    assert open_split(tmp_path, role="train").annotations.areas.tolist() == [7, 200, 200]


def test_ids__repeated__first_image_kept_and_annotations_kept(tmp_path: Path) -> None:
    content = coco_file([("a.jpg", 64, 48), ("b.jpg", 64, 48)], [(1, 3, GOOD), (1, 9, GOOD)], CLASSES)
    content["images"][1]["id"] = 1
    content["annotations"][1]["id"] = 1
    make_coco_split(tmp_path, content)
    opened = open_split(tmp_path, role="train")
    assert [f.code for f in opened.findings] == ["image-id-repeated", "annotation-id-repeated"]
    assert (opened.annotations.file_names.tolist(), len(opened.annotations.boxes)) == ([b"a.jpg"], 2)


def test_clean__keeps_what_can_be_trained_on(tmp_path: Path) -> None:
    objects = [(2, 3, GOOD), (1, 3, [0, 0, 0, 0]), (1, 3, [60, 0, 8, 8])]
    make_coco_split(tmp_path, coco_file([("a.jpg", 64, 48), ("b.jpg", 64, 48)], objects, CLASSES))
    (tmp_path / "train" / "b.jpg").unlink()
    annotations, _ = clean(coco.read(coco.locate(tmp_path, "train")))
    assert annotations.file_names.tolist() == [b"a.jpg"]
    assert annotations.boxes.tolist() == [[60, 0, 68, 8]]
    assert annotations.clipped_boxes().tolist() == [[60, 0, 64, 8]]


@pytest.mark.parametrize("seed", [0, 1])
def test_overhanging_boxes_and_crowds__scored_as_pycocotools_scores_the_file(
    tmp_path: Path, seed: int
) -> None:
    content, results = random_case(seed, images=12, classes=4)
    opened = open_split(make_coco_split(tmp_path, content), role="val", box_convention="xywh", split="train")
    annotations = opened.annotations
    assert sum(finding.code == "box-clipped" for finding in opened.findings) > 5
    evaluator = CocoEvaluator(annotations)
    evaluator.update(*batch_of(annotations, results, list(range(len(annotations)))))
    evaluator.gather()
    metrics = evaluator.compute()
    expected, _ = pycocotools_numbers(content, results)
    assert {name: getattr(metrics, name) for name in NUMBERS} == pytest.approx(expected, abs=1e-6)
