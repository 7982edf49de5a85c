from __future__ import annotations

import json
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.inspection.data_check import DataReport, check, read_layout, tail_advice
from tests.data_sets import coco_file, make_coco_split, save_picture

CLASSES = {3: "cat", 9: "dog"}
GOOD = [4.0, 6.0, 20.0, 10.0]


def two_splits(root: Path, *, train: list[list[float]], val: list[list[float]]) -> Path:
    """A COCO folder with one image a split, pictures unlike each other, 25 boxes at most of each class."""
    for split, boxes, size in (("train", train, (64, 48)), ("val", val, (80, 60))):
        objects = [(1, 3 if i % 2 else 9, box) for i, box in enumerate(boxes)]
        content = coco_file([(f"{split}.jpg", *size)], objects, CLASSES)
        content["images"].append({"id": 2, "file_name": f"{split}2.jpg", "width": 50, "height": 70})
        make_coco_split(root, content, split)
    return root


def codes(report: DataReport) -> set[str]:
    return {located.finding.code for located in report.findings}


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Two splits with nothing wrong; every picture another."""
    root = tmp_path / "clean"
    for i, split in enumerate(("train", "val")):
        content = coco_file([(f"{split}.jpg", 64 + 8 * i, 48)], [(1, 3, GOOD), (1, 9, GOOD)], CLASSES)
        make_coco_split(root, content, split)
    save_picture(root / "val" / "val.jpg", (72, 48), seed=5)
    return root


def test_check__clean__exit_0_and_every_number(clean: Path) -> None:
    report = check(clean)
    assert report.exit_code == 0
    assert report.count("error") == report.count("warning") == 0
    found = report.to_json()
    assert json.loads(json.dumps(found)) == found
    assert (found["format"], found["train_split"], found["refusals"]) == ("coco", "train", [])
    assert found["splits"]["train"] | {"anchor_fit": None} == {
        "images": 1,
        "images_without_boxes": 0,
        "boxes": 2,
        "ignored": 0,
        "classes": {"cat": 1, "dog": 1},
        "sizes": {"small": 2, "medium": 0, "large": 0},
        "anchor_fit": None,
    }
    assert found["splits"]["train"]["anchor_fit"]["boxes"] == 2


def test_check__a_bad_box_and_a_broken_picture__exit_1(tmp_path: Path) -> None:
    root = two_splits(tmp_path, train=[GOOD, [1, 1, 0, 5]], val=[GOOD])
    path = root / "val" / "val2.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    report = check(root)
    assert report.exit_code == 1
    assert {"box-without-area", "image-undecodable"} <= codes(report)
    row = next(row for row in report.to_json()["findings"] if row["code"] == "box-without-area")
    assert (row["box"], row["image"]) == ([1, 1, 1, 6], str(root / "train" / "train.jpg"))
    assert (row["splits"], row["annotation"], row["action"]) == (["train"], 2, "box dropped")


def test_check__a_split_that_cannot_be_read__exit_2_and_the_other_is_checked(tmp_path: Path) -> None:
    root = two_splits(tmp_path, train=[GOOD, [1, 1, 0, 5]], val=[GOOD])
    (root / "annotations" / "instances_val.json").write_text("{")
    report = check(root)
    assert report.exit_code == 2
    assert "val: cannot read" in report.refusals[0]
    assert "box-without-area" in codes(report)


def test_check__no_usable_box_in_training__exit_2(tmp_path: Path) -> None:
    report = check(two_splits(tmp_path, train=[[1, 1, 0, 5]], val=[GOOD]))
    assert report.exit_code == 2
    assert "has no usable box" in report.refusals[0]


def test_check__class_that_training_lacks__exit_2(tmp_path: Path) -> None:
    make_coco_split(tmp_path, coco_file([("a.jpg", 64, 48)], [(1, 3, GOOD)], {3: "cat"}), "train")
    make_coco_split(tmp_path, coco_file([("b.jpg", 80, 48)], [(1, 3, GOOD)], {3: "dog"}), "val")
    report = check(tmp_path)
    assert report.exit_code == 2
    assert "val has classes that train lacks: dog" in report.refusals[0]


def test_check__split_or_format_or_config_unknown__says_so(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no split dev; it has train, val"):
        check(clean, splits=["dev"])
    with pytest.raises(InputError, match="has no format that is known"):
        check(tmp_path / "clean" / "train")
    with pytest.raises(InputError, match=r"no config .*none\.yaml"):
        check(clean, config=tmp_path / "none.yaml")
    (tmp_path / "overlay.yaml").write_text("trainer: {max_epochs: 1}\n")
    with pytest.raises(InputError, match="has no `model:` section with a backbone"):
        check(clean, config=tmp_path / "overlay.yaml")


def test_read_layout__config__its_input_and_anchors(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "bccd.yaml"
    layout = read_layout(config)
    assert (layout.image_size, layout.config.style) == ((320, 320), "torchvision")
    assert layout.config.scales is not None
    assert layout.config.scales[0] == 0.1


def test_tail_advice__by_the_share_on_the_first_map(clean: Path) -> None:
    fit = check(clean).fits["train"]
    assert fit.by_level[0] == 2
    assert "should cost little" in tail_advice(fit)


def test_check__bccd__two_boxes_of_no_area_and_a_leak(bccd: Path) -> None:
    report = check(bccd)
    assert report.exit_code == 1
    findings = [located.finding for located in report.findings]
    empty = {Path(finding.file).name for finding in findings if finding.code == "box-without-area"}
    assert empty == {"BloodImage_00338.xml", "BloodImage_00343.xml"}
    assert report.to_json()["codes"]["box-without-area"] == 2  # though each is in two splits
    (leak,) = [finding for finding in findings if finding.code == "image-alike-in-two-splits"]
    assert {"BloodImage_00037.jpg"} == {leak.file}
    assert "BloodImage_00038.jpg in train" in leak.detail


def test_check__coco128__two_images_without_boxes(coco128: Path) -> None:
    report = check(coco128)
    assert report.to_json()["splits"]["train2017"]["images_without_boxes"] == 2
    assert report.exit_code == 0
