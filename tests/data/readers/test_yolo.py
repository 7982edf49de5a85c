from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detect.data.readers import yolo
from detect.data.splits import open_split
from detect.errors import InputError
from tests.data_sets import make_yolo, save_picture


def test_read__fractions_of_64_x_48__boxes_in_px(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": "1 0.5 0.5 0.25 0.5\n", "b": None, "c": "\n"}})
    opened = open_split(tmp_path, role="train")
    found = opened.annotations
    # 64 * (0.5 -+ 0.125) = 24 and 40; 48 * (0.5 -+ 0.25) = 12 and 36.
    assert found.boxes.tolist() == [[24, 12, 40, 36]]
    assert (found.labels.tolist(), found.classes.names) == ([2], ("cat", "dog"))
    assert np.diff(found.offsets).tolist() == [1, 0, 0]
    assert found.sizes.tolist() == [[48, 64]] * 3
    assert [found.image_id(i) for i in range(3)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert (opened.format, opened.split) == ("yolo", "train")


def test_read__polygon__its_extent_is_the_box(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": "0 0.25 0.25 0.5 0.75 0.75 0.25\n"}})
    assert open_split(tmp_path, role="train").annotations.boxes.tolist() == [[16, 12, 48, 36]]


def test_read__crowds_folder__boxes_to_ignore(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": "0 0.5 0.5 0.5 0.5\n", "b": "1 0.5 0.5 0.5 0.5\n"}})
    (tmp_path / "crowds" / "train").mkdir(parents=True)
    (tmp_path / "crowds" / "train" / "a.txt").write_text("1 0.25 0.5 0.5 0.5\n")
    found = open_split(tmp_path, role="train").annotations
    assert found.labels.tolist() == [1, 2, 2]
    assert found.ignore.tolist() == [False, True, False]
    assert found.annotation_ids.tolist() == [b"1", b"crowd 1", b"1"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("0 0.5 0.5 0.5", "box-not-a-number"),
        ("0 0.5 x 0.5 0.5", "box-not-a-number"),
        ("2 0.5 0.5 0.5 0.5", "category-unknown"),
        ("cat 0.5 0.5 0.5 0.5", "category-unknown"),
        ("0 0.5 0.5 0 0.5", "box-without-area"),
        ("0 1.5 0.5 0.5 0.5", "box-outside"),
        ("0 0.5 0.5 1e300 0.5", "box-huge"),
    ],
)
def test_read__bad_line__one_finding_with_file_and_line(tmp_path: Path, line: str, code: str) -> None:
    make_yolo(tmp_path, {"train": {"a": f"\n{line}\n1 0.5 0.5 0.5 0.5\n0 0.2 0.2 0.1 0.1"}})
    opened = open_split(tmp_path, role="train")
    errors = [finding for finding in opened.findings if finding.severity == "error"]
    assert [(f.code, f.file, f.annotation) for f in errors] == [
        (code, str(tmp_path / "labels" / "train" / "a.txt"), 2)
    ]
    assert len(opened.annotations.boxes) == 2


def test_read__class_number_with_point__is_that_number(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": "1.0 0.5 0.5 0.5 0.5\n"}})
    assert open_split(tmp_path, role="train").annotations.labels.tolist() == [2]


def test_read__label_file_not_text__image_dropped_with_finding(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": None, "b": "0 0.5 0.5 0.5 0.5"}})
    (tmp_path / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\x00")
    opened = open_split(tmp_path, role="train")
    assert [(f.code, Path(f.file).name) for f in opened.findings if f.severity == "error"] == [
        ("annotation-unreadable", "a.txt")
    ]
    assert len(opened.annotations) == 1


@pytest.mark.parametrize("train", ["train/images", "../train/images", "./train/images/"])
def test_locate__split_above_images__labels_beside(tmp_path: Path, train: str) -> None:
    save_picture(tmp_path / "train" / "images" / "a.jpg")
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "train" / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text(f"names: [cat]\ntrain: {train}\n")
    assert len(open_split(tmp_path, role="train").annotations.boxes) == 1


def test_locate__list_of_images__read_from_the_root(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": "0 0.5 0.5 0.5 0.5", "b": "1 0.5 0.5 0.5 0.5"}})
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: train.txt\npath: ../datasets/x\n")
    (tmp_path / "train.txt").write_text("./images/train/b.jpg\nimages/train/no.jpg\n../../etc/passwd.jpg\n")
    opened = open_split(tmp_path, role="train")
    assert opened.annotations.file_names.tolist() == [b"images/train/b.jpg"]
    assert opened.annotations.labels.tolist() == [2]
    assert sorted(f.code for f in opened.findings if f.severity == "error") == [
        "file-name-refused",
        "image-missing",
    ]


@pytest.mark.parametrize("line", [".", "./", "..", "/", ".jpg"])
def test_read__list_with_what_is_no_file__image_dropped_with_finding(tmp_path: Path, line: str) -> None:
    make_yolo(tmp_path, {"train": {"a": "0 0.5 0.5 0.5 0.5"}})
    (tmp_path / "list.txt").write_text(f"images/train/a.jpg\n{line}\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: list.txt\n")
    opened = open_split(tmp_path, role="train")
    assert len(opened.annotations) == 1
    assert [finding.severity for finding in opened.findings] == ["error"]


def test_locate__several_folders__one_split(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"one": {"a": "0 0.5 0.5 0.5 0.5"}, "two": {"b": "1 0.5 0.5 0.5 0.5"}})
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: [images/one, images/two]\n")
    found = open_split(tmp_path, role="train").annotations
    assert found.file_names.tolist() == [b"images/one/a.jpg", b"images/two/b.jpg"]
    assert found.labels.tolist() == [1, 2]


@pytest.mark.parametrize("entry", ["../other", "/etc", "images/../../x"])
def test_locate__out_of_the_folder__refused(tmp_path: Path, entry: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "data.yaml").write_text(f"names: [cat]\ntrain: {entry}\n")
    if entry == "../other":  # may be Roboflow's `other`, which is not there either
        with pytest.raises(InputError, match="no image folder"):
            open_split(root, role="train")
    else:
        with pytest.raises(InputError, match="leads out of"):
            open_split(root, role="train")


def test_open__explicit_yaml_and_images__win(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": "0 0.5 0.5 0.5 0.5"}, "val": {"b": None}})
    found = open_split(
        None,
        role="val",
        annotations=tmp_path / "data.yaml",
        images=tmp_path / "images" / "train",
    ).annotations
    assert (found.file_names.tolist(), len(found.boxes)) == ([b"a.jpg"], 1)


def test_open__no_such_split__says_which_there_are(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": None}})
    with pytest.raises(InputError, match=r"no val split val2017 or val or valid or test; it has train"):
        open_split(tmp_path, role="val")
    with pytest.raises(InputError, match="has no split 'val'; it has train"):
        yolo.locate(tmp_path, "val")


def test_open__no_images__says_where_it_looked(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {}})
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match=r"the split 'train' has no images in .*images/train"):
        open_split(tmp_path, role="train")


def test_open__label_file_added__read_anew(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": None}})
    assert len(open_split(tmp_path, role="train").annotations.boxes) == 0
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    assert len(open_split(tmp_path, role="train").annotations.boxes) == 1


def test_open__class_name_twice__says_where(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": {"a": None}}, names="[cat, cat]")
    with pytest.raises(InputError, match=r"data\.yaml: class name 'cat' occurs twice"):
        open_split(tmp_path, role="train")
