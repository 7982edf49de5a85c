from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.data.annotations import Annotations
from detect.data.convert import Format, convert
from detect.data.splits import open_split, recognise
from detect.errors import InputError
from tests.conftest import make_coco
from tests.data_sets import coco_file, make_coco_split, make_voc, make_yolo, save_turned

PATHS: list[tuple[Format, ...]] = [
    ("coco",),
    ("voc",),
    ("yolo",),
    ("voc", "yolo", "coco"),
    ("yolo", "coco", "voc"),
]


def same_boxes(one: Annotations, other: Annotations, *, tolerance_px: float = 1e-6) -> None:
    """Picture by picture, whatever names and ids: the same classes, boxes and crowds."""
    assert len(one) == len(other)
    pictures = [[a.path(i).read_bytes() for i in range(len(a))] for a in (one, other)]
    for i, picture in enumerate(pictures[0]):
        j = pictures[1].index(picture)
        rows, columns = one.rows(i), other.rows(j)
        key = np.lexsort((*one.boxes[rows].T.round(3), one.ignore[rows]))
        other_key = np.lexsort((*other.boxes[columns].T.round(3), other.ignore[columns]))
        assert other.boxes[columns][other_key] == pytest.approx(one.boxes[rows][key], abs=tolerance_px)
        assert [one.classes.name(k) for k in one.labels[rows][key]] == [
            other.classes.name(k) for k in other.labels[columns][other_key]
        ]
        assert other.ignore[columns][other_key].tolist() == one.ignore[rows][key].tolist()
        assert other.sizes[j].tolist() == one.sizes[i].tolist()


def walk(root: Path, formats: tuple[Format, ...], scratch: Path) -> Path:
    for step, to in enumerate(formats):
        output = scratch / f"{step}-{to}"
        report = convert(root, to, output=output)
        assert report.findings == []
        assert recognise(output).NAME == to == report.format
        root = output
    return root


@pytest.mark.parametrize("formats", PATHS)
def test_convert__any_way_round__keeps_every_box(tmp_path: Path, formats: tuple[Format, ...]) -> None:
    root = make_coco(tmp_path / "coco", train=6, val=3)
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["bbox"] = [1 / 3, 2 / 3, 100 / 7, 20.00001]
    path.write_text(json.dumps(content))
    back = walk(root, formats, tmp_path)
    for role in ("train", "val"):
        same_boxes(open_split(root, role=role).annotations, open_split(back, role=role).annotations)


@pytest.mark.parametrize(("name", "formats"), [("bccd", ("yolo", "voc")), ("coco128", ("voc", "coco"))])
def test_convert__real_data__keeps_every_box(
    tmp_path: Path, name: str, formats: tuple[Format, ...], request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(name)
    split = {"bccd": "test", "coco128": "train2017"}[name]
    scratch = tmp_path
    for to in formats:
        convert(root, to, output=scratch / to, splits=[split])
        root = scratch / to
        split = recognise(root).find_splits(root)[0]
    original = open_split(request.getfixturevalue(name), {"bccd": "test"}.get(name), role="train")
    same_boxes(original.annotations, open_split(root, split, role="train").annotations)


def test_convert__coco_to_coco__keeps_ids_and_areas(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco")
    convert(root, "coco", output=tmp_path / "copy")
    one, other = (open_split(folder, role="train").annotations for folder in (root, tmp_path / "copy"))
    assert one.classes == other.classes
    for name in ("image_ids", "annotation_ids", "areas", "boxes", "offsets"):
        assert (getattr(one, name) == getattr(other, name)).all(), name


@pytest.mark.parametrize("to", ["coco", "voc", "yolo"])
def test_convert__bad_boxes__stay_as_bad_as_they_were(tmp_path: Path, to: Format) -> None:
    bad = [[4, 6, 0, 10], [60, 40, 20, 20], [70, 50, 5, 5], [-30, -20, 200, 100], [5, 5, 9, 9]]
    root = make_coco_split(
        tmp_path / "a", coco_file([("a.jpg", 64, 48)], [(1, 3, b) for b in bad], {3: "cat"})
    )
    report = convert(root, to, output=tmp_path / "b")
    assert (report.findings, report.boxes) == ([], 5)

    def codes(folder: Path) -> list[str]:
        return sorted(f.code for f in open_split(folder, role="train").findings)

    assert codes(tmp_path / "b") == codes(root)


def test_convert__what_cannot_be_said__left_out_with_a_finding_each(tmp_path: Path) -> None:
    objects: list[tuple[int, int, Any]] = [(1, 3, [4, 6, 9, 9]), (1, 3, "x"), (1, 4, [4, 6, 9, 9])]
    objects += [(9, 3, [4, 6, 9, 9]), (2, 3, [4, 6, 9, 9])]
    root = make_coco_split(
        tmp_path / "a", coco_file([("a.jpg", 64, 48), ("b.jpg", 64, 48)], objects, {3: "cat"})
    )
    (root / "train" / "b.jpg").write_bytes(b"")
    report = convert(root, "yolo", output=tmp_path / "b")
    assert sorted(f.code for f in report.findings) == [
        "box-not-a-number",
        "category-unknown",
        "image-id-unknown",
        "image-unreadable",
    ]
    assert (report.images, report.boxes) == (1, 1)
    assert not list((tmp_path / "b").rglob("b.*"))


def test_convert__boxes_of_another_convention__written_as_the_format_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corner = rng.integers(10, 30, (20, 2))
    boxes = np.concatenate([corner, corner + 9], axis=1)
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, box) for box in boxes.tolist()], {3: "cat"})
    root = make_coco_split(tmp_path / "a", content)
    with pytest.raises(InputError, match="look like xyxy, not xywh"):
        convert(root, "coco", output=tmp_path / "b")
    assert not (tmp_path / "b").exists()
    convert(root, "coco", output=tmp_path / "b", box_convention="xyxy")
    assert open_split(tmp_path / "b", role="train").annotations.boxes.tolist() == boxes.tolist()


def test_convert__official_voc__counts_from_0_afterwards(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "VOC2007", {"train": {"a": [("cat", (1, 1, 64, 48))]}})
    convert(root, "voc", output=tmp_path / "b")
    assert "<xmin>0</xmin><ymin>0</ymin><xmax>64</xmax>" in (tmp_path / "b/Annotations/a.xml").read_text()
    assert open_split(tmp_path / "b", role="train").annotations.boxes.tolist() == [[0, 0, 64, 48]]


def test_convert__splits_that_share_images__share_files(tmp_path: Path) -> None:
    cat = [("cat", (1, 1, 9, 9))]
    root = make_voc(tmp_path / "a", {"train": {"a": cat}, "val": {"b": cat}})
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("a\nb\n")
    convert(root, "voc", output=tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "b" / "JPEGImages").iterdir()) == ["a.jpg", "b.jpg"]
    report = convert(root, "yolo", output=tmp_path / "c")
    assert report.splits == {"train": "train", "val": "val", "trainval": "trainval"}
    assert len(open_split(tmp_path / "c", "trainval", role="train").annotations) == 2


def test_convert__one_name_in_two_splits_or_folders__no_picture_lost(tmp_path: Path) -> None:
    images = [("x/a.jpg", 64, 48), ("y/a.jpg", 64, 48), ("a.png", 64, 48), ("A.jpg", 64, 48)]
    content = coco_file(images, [(i, 3, [i, i, 9, 9]) for i in range(1, 5)], {3: "cat"})
    content["images"].append({**content["images"][0], "id": 5})  # a file with two ids
    content["annotations"].append({**content["annotations"][0], "id": 9, "image_id": 5, "bbox": [5, 5, 9, 9]})
    for split in ("train", "val"):
        make_coco_split(tmp_path / "a", content, split)
    for to in ("voc", "yolo", "coco"):
        convert(tmp_path / "a", to, output=tmp_path / to)
        for role in ("train", "val"):
            found = open_split(tmp_path / to, role=role).annotations
            assert sorted(found.boxes[:, 0].tolist()) == [1, 2, 3, 4, 5]
            assert len({found.path(i).name.lower() for i in range(5)}) == 5


@pytest.mark.parametrize(
    "name", ["../../up.jpg", "new\nline.jpg", "nul\0.jpg", " .jpg", "ünï.JPG", "noending"]
)
@pytest.mark.parametrize("to", ["coco", "voc", "yolo"])
def test_convert__odd_file_names__nothing_outside_and_readable(tmp_path: Path, name: str, to: Format) -> None:
    content = coco_file([("good.jpg", 64, 48)], [(1, 3, [1, 1, 9, 9])], {3: "cat"})
    root = make_coco_split(tmp_path / "in" / "a", content)
    data = (root / "train" / "good.jpg").read_bytes()
    if "\0" not in name:
        (root / "train" / name).resolve().write_bytes(data)
    content["images"].append({"id": 2, "file_name": name, "width": 64, "height": 48})
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    report = convert(root, to, output=tmp_path / "out" / "b")
    refused = name in ("../../up.jpg", "nul\0.jpg")
    assert (len(report.findings), report.images) == ((1, 1) if refused else (0, 2))
    written = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    assert all(p.is_relative_to(tmp_path / "out" / "b") for p in written)
    assert len(open_split(tmp_path / "out" / "b", role="train").annotations) == report.images


def test_convert__classes_differ_between_splits__one_list_for_all(tmp_path: Path) -> None:
    one = coco_file([("a.jpg", 64, 48)], [(1, 1, [1, 1, 9, 9])], {1: "cat"})
    two = coco_file([("b.jpg", 64, 48)], [(1, 1, [1, 1, 9, 9]), (1, 2, [1, 1, 8, 8])], {1: "dog", 2: "cat"})
    make_coco_split(tmp_path / "a", one, "train")
    make_coco_split(tmp_path / "a", two, "val")
    convert(tmp_path / "a", "yolo", output=tmp_path / "b")
    found = open_split(tmp_path / "b", role="val").annotations
    assert (found.classes.names, found.labels.tolist()) == (("cat", "dog"), [2, 1])


@pytest.mark.parametrize("name", ["", " cat", "a\nb", "tab\t"])
@pytest.mark.parametrize("to", ["voc", "yolo"])
def test_convert__class_name_that_no_text_file_holds__refused(tmp_path: Path, name: str, to: Format) -> None:
    make_coco_split(tmp_path / "a", coco_file([("a.jpg", 64, 48)], [(1, 3, [1, 1, 9, 9])], {3: name}))
    with pytest.raises(InputError, match=r"the class name .* cannot be written"):
        convert(tmp_path / "a", to, output=tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("name", ["cat: dog", '"', "null", "yes", "#", "Ü"])
def test_convert__class_names_that_yaml_would_bend__survive(tmp_path: Path, name: str) -> None:
    make_coco_split(tmp_path / "a", coco_file([("a.jpg", 64, 48)], [(1, 3, [1, 1, 9, 9])], {3: name}))
    convert(tmp_path / "a", "yolo", output=tmp_path / "b")
    assert open_split(tmp_path / "b", role="train").annotations.classes.names == (name,)


@pytest.mark.parametrize("images", ["link", "copy"])
def test_convert__images__linked_or_copied(tmp_path: Path, images: Any) -> None:
    root = make_yolo(tmp_path / "a", {"train": {"a": None}})
    convert(root, "coco", output=tmp_path / "b", images=images)
    one, other = root / "images" / "train" / "a.jpg", tmp_path / "b" / "train" / "a.jpg"
    assert os.path.samefile(one, other) == (images == "link")
    assert one.read_bytes() == other.read_bytes()


def test_convert__link_to_a_picture__copy_holds_the_picture(tmp_path: Path) -> None:
    root = make_yolo(tmp_path / "a", {"train": {"a": None}})
    (root / "images" / "train" / "a.jpg").rename(tmp_path / "elsewhere.jpg")
    (root / "images" / "train" / "a.jpg").symlink_to("../../../elsewhere.jpg")
    convert(root, "coco", output=tmp_path / "b")
    assert not (tmp_path / "b" / "train" / "a.jpg").is_symlink()
    assert len(open_split(tmp_path / "b", role="train").annotations) == 1


def test_convert__turned_picture__boxes_upright(tmp_path: Path) -> None:
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, [4, 6, 20, 10])], {3: "cat"})
    root = make_coco_split(tmp_path / "a", content)
    save_turned(root / "train" / "a.jpg", (64, 48), 6)
    convert(root, "coco", output=tmp_path / "b")
    opened = open_split(tmp_path / "b", role="train")
    assert opened.annotations.boxes.tolist() == [[32, 4, 42, 24]]
    assert [f.code for f in opened.findings] == ["exif-policy"]


def test_convert__output_holds_something_or_lies_inside__refused(tmp_path: Path) -> None:
    root = make_yolo(tmp_path / "a", {"train": {"a": None}})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="b exists and is not an empty folder"):
        convert(root, "coco", output=tmp_path / "b")
    with pytest.raises(InputError, match=r"lies in .*a, which is only read"):
        convert(root, "coco", output=root / "b")
    with pytest.raises(InputError, match="has no split 'dev'; it has train"):
        convert(root, "coco", output=tmp_path / "c", splits=["dev"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_convert__split_name_with_a_colon__refused(tmp_path: Path) -> None:
    make_coco_split(tmp_path / "a", coco_file([("a.jpg", 64, 48)], [], {3: "cat"}), "b: c")
    with pytest.raises(InputError, match="split name 'b: c' cannot be that of a folder"):
        convert(tmp_path / "a", "yolo", output=tmp_path / "b")


def test_convert__stopped__leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_yolo(tmp_path / "a", {"train": {"a": None}})

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("detect.data.convert.place_image", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(root, "coco", output=tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_data_yaml__written__read_by_a_yaml_library(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    make_coco_split(tmp_path / "a", coco_file([("a.jpg", 64, 48)], [], {3: "cat: 1", 9: "Ü"}), "train2017")
    convert(tmp_path / "a", "yolo", output=tmp_path / "b")
    content = yaml.safe_load((tmp_path / "b" / "data.yaml").read_text())
    assert content == {"train": "images/train", "names": {0: "cat: 1", 1: "Ü"}}
