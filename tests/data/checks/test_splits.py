from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detect.data.annotations import Annotations
from detect.data.checks.splits import (
    balance,
    compare_classes,
    drop_undecodable,
    repeated_boxes,
    without_images,
)
from detect.data.datamodule import DetectionData
from detect.data.splits import open_split
from detect.errors import InputError
from tests.conftest import make_coco
from tests.data_sets import coco_file, make_coco_split

BOX = [4.0, 6.0, 20.0, 10.0]


def coco_split(root: Path, split: str, classes: dict[int, str], *counts: int) -> Annotations:
    """One image with `counts` boxes of each class."""
    objects = [
        (1, category, [i, category, 20, 10])
        for category, count in zip(classes, counts, strict=True)
        for i in range(count)
    ]
    make_coco_split(root, coco_file([(f"{split}.jpg", 64, 48)], objects, classes), split)
    return open_split(root, split, role="train", box_convention="xywh").annotations


def test_drop_undecodable__cut_off__its_image_and_boxes_go(tmp_path: Path) -> None:
    images = [(f"{i}.jpg", 64, 48) for i in range(3)]
    make_coco_split(tmp_path, coco_file(images, [(i, 3, [i, 6, 20, 10]) for i in (1, 2, 3)], {3: "cat"}))
    path = tmp_path / "train" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    annotations = open_split(tmp_path, role="train").annotations
    kept, findings = drop_undecodable(annotations)
    assert [(f.code, f.severity, f.file) for f in findings] == [("image-undecodable", "error", "1.jpg")]
    assert kept.file_names.tolist() == [b"0.jpg", b"2.jpg"]
    assert kept.boxes[:, 0].tolist() == [1, 3]
    assert [kept.rows(0), kept.rows(1)] == [slice(0, 1), slice(1, 2)]


def test_without_images__none_dropped__equal(tmp_path: Path) -> None:
    annotations = coco_split(tmp_path, "train", {3: "cat"}, 4)
    kept = without_images(annotations, np.zeros(1, dtype=np.bool_))
    assert (kept.boxes == annotations.boxes).all()
    assert kept.offsets.tolist() == annotations.offsets.tolist()


def test_repeated_boxes__same_class__named_with_the_one_they_repeat(tmp_path: Path) -> None:
    objects = [(1, 3, BOX), (1, 9, BOX), (1, 3, [4.2, 6, 20, 10])]
    make_coco_split(tmp_path, coco_file([("a.jpg", 64, 48)], objects, {3: "cat", 9: "dog"}))
    (finding,) = repeated_boxes(open_split(tmp_path, role="train").annotations)
    assert (finding.code, finding.file, finding.annotation) == ("box-repeated", "a.jpg", 3)
    assert finding.detail == "cat at xmin 4.2, ymin 6, xmax 24.2, ymax 16 repeats annotation 1"


def test_repeated_boxes__crowds__not_compared(tmp_path: Path) -> None:
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, BOX), (1, 3, BOX)], {3: "cat"})
    content["annotations"][1]["iscrowd"] = 1
    make_coco_split(tmp_path, content)
    assert repeated_boxes(open_split(tmp_path, role="train").annotations) == []


def test_balance__counts_what_is_rare_and_empty(tmp_path: Path) -> None:
    found = balance(coco_split(tmp_path, "train", {1: "a", 2: "b", 3: "c"}, 25, 2, 0))
    assert {f.code: f.detail for f in found} == {
        "class-rare": "1 of 3 classes have fewer than 20 boxes: b 2",
        "classes-unbalanced": "25 boxes of a, 2 of b: 12 to 1",
    }
    make_coco_split(tmp_path, coco_file([("a.jpg", 64, 48), ("b.jpg", 64, 48)], [], {3: "cat"}), "val")
    (empty,) = balance(open_split(tmp_path, role="val").annotations)
    assert (empty.code, empty.detail) == ("images-without-boxes", "2 of 2 images have no boxes")


@pytest.mark.parametrize(
    ("val", "counts", "code", "severity", "detail"),
    [
        ({1: "dog", 2: "cat"}, (1, 1), "class-order-differs", "note", "another order"),
        ({1: "Cat ", 2: "dog"}, (1, 1), "class-not-trained", "error", "'Cat ' may be 'cat'"),
        (
            {1: "cat", 2: "dog", 3: "owl"},
            (1, 0, 1),
            "class-without-training-boxes",
            "warning",
            "boxes of owl",
        ),
    ],
)
def test_compare_classes__differences(
    tmp_path: Path, val: dict[int, str], counts: tuple[int, ...], code: str, severity: str, detail: str
) -> None:
    train = coco_split(tmp_path, "train", {1: "cat", 2: "dog", 3: "owl"}, 1, 1, 0)
    splits = {"train": train, "val": coco_split(tmp_path, "val", val, *counts)}
    (finding,) = compare_classes("train", splits)
    assert (finding.code, finding.severity) == (code, severity)
    assert detail in finding.detail


def test_compare_classes__alike__nothing(tmp_path: Path) -> None:
    classes = {1: "cat", 2: "dog"}
    splits = {name: coco_split(tmp_path, name, classes, 1, 1) for name in ("train", "val")}
    assert compare_classes("train", splits) == []


def test_fit_data__undecodable__left_out_and_named(tmp_path: Path) -> None:
    make_coco(tmp_path / "a", train=3, val=3)
    for split in ("train", "val"):
        path = tmp_path / "a" / split / "000.jpg"
        path.write_bytes(path.read_bytes()[:-300])
    data = DetectionData(root=tmp_path / "a")
    data.open()
    assert (len(data.train), len(data.val)) == (2, 2)
    for role in ("train", "val"):
        assert [f.code for f in data.findings[role] if f.severity == "error"] == ["image-undecodable"]
    unchecked = DetectionData(root=tmp_path / "a", check_images=False)
    unchecked.open()
    assert len(unchecked.train) == 3


def test_fit_data__second_start__decodes_and_compares_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_coco(tmp_path / "a", train=3, val=3)
    (tmp_path / "a" / "val" / "000.jpg").write_bytes((tmp_path / "a" / "train" / "000.jpg").read_bytes())
    first, second = DetectionData(root=tmp_path / "a"), DetectionData(root=tmp_path / "a")
    first.open()
    assert "image-in-two-splits" in [f.code for f in first.findings["both"]]
    monkeypatch.setattr("detect.data.checks.scan.look_at", lambda path: pytest.fail(f"decoded {path}"))
    monkeypatch.setattr(
        "detect.data.checks.repeated_images.repeated_images", lambda splits: pytest.fail("compared")
    )
    second.open()
    assert second.findings == first.findings


def test_fit_data__says_what_check_says_of_the_classes(tmp_path: Path) -> None:
    coco_split(tmp_path, "train", {1: "cat", 2: "dog", 3: "owl"}, 30, 1, 0)
    coco_split(tmp_path, "val", {1: "dog", 2: "cat", 3: "owl"}, 1, 1, 1)
    data = DetectionData(root=tmp_path, box_convention="xywh")
    data.open()
    codes_of = {role: {f.code for f in found} for role, found in data.findings.items()}
    assert {"class-rare", "classes-unbalanced"} <= codes_of["train"]
    assert {"class-order-differs", "class-without-training-boxes"} <= codes_of["both"]


def test_fit_data__no_box_or_no_class__refused(tmp_path: Path) -> None:
    make_coco_split(tmp_path / "a", coco_file([("a.jpg", 64, 48)], [(1, 3, [1, 1, 0, 0])], {3: "cat"}))
    with pytest.raises(
        InputError, match=r"training split train .* no usable box in 1 images\nerror: box-with"
    ):
        DetectionData(root=tmp_path / "a").open(("train",))
    make_coco_split(tmp_path / "b", coco_file([("a.jpg", 64, 48)], [], {}))
    with pytest.raises(InputError, match="names no classes"):
        DetectionData(root=tmp_path / "b").open(("train",))


def test_fit_data__every_image_broken__refused_with_the_reasons(tmp_path: Path) -> None:
    make_coco(tmp_path / "a", train=1, val=1)
    path = tmp_path / "a" / "train" / "000.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"no usable image in .*\n.*image-undecodable x 1"):
        DetectionData(root=tmp_path / "a").open(("train",))
