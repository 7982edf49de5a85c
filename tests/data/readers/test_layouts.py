from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image, features

from detect.data.convert import convert
from detect.data.divide import DivideOptions, divide
from detect.data.images import decode
from detect.data.splits import Role, open_split, recognise
from detect.errors import InputError
from detect.inspection.data_check import check
from tests.data.readers import layouts
from tests.data.readers.layouts import NAMES, XYXY, coco, voc, yolo
from tests.data_sets import save_picture

ROLES: tuple[Role, ...] = ("train", "val")
DATA = NAMES + "train: images/train\n"
OFFICIAL = "annotations/instances_train.json"


class Layout(NamedTuple):
    """A layout, and what is to be read from it."""

    name: str
    build: Callable[[Path], None]
    format: str
    split: str = "train"
    notes: tuple[str, ...] = ()
    """Parts of the findings, beside those on few boxes."""


def yolo_train(files: dict[str, str], lines: dict[str, str] | None = None) -> Callable[[Path], None]:
    return lambda root: yolo(root, "images/train", "labels/train", files, lines)


def official(name: str, folder: str = "train") -> Callable[[Path], None]:
    return lambda root: coco(root, OFFICIAL, folder, name)


MOVED = "2 images were found by the end of their path: "
LAYOUTS = (
    Layout(
        "coco: path from the root", official("images/train/{}.jpg", "images/train"), "coco", notes=(MOVED,)
    ),
    Layout(
        "coco: path with the split",
        official("train/{}.jpg"),
        "coco",
        notes=(MOVED + "'train/a.jpg' -> 'train/a.jpg'",),
    ),
    Layout(
        "coco: more folders than there are",
        official("images/train/{}.jpg"),
        "coco",
        notes=(MOVED + "'images/train/a.jpg' -> 'train/a.jpg'",),
    ),
    Layout("coco: backslashes", official("images\\train\\{}.jpg"), "coco", notes=(MOVED,)),
    Layout("coco: Windows path", official("C:\\Users\\me\\{}.jpg"), "coco", notes=(MOVED,)),
    Layout("coco: path of another machine", official("/home/me/set/{}.jpg"), "coco", notes=(MOVED,)),
    Layout("coco: path upwards", official("../../set/{}.jpg"), "coco", notes=(MOVED,)),
    Layout("coco: other suffix", official("{}.JPEG"), "coco", notes=(MOVED + "'a.JPEG' -> 'train/a.jpg'",)),
    Layout("Label Studio COCO", layouts.label_studio_coco, "coco", "default"),
    Layout(
        "CVAT COCO",
        lambda root: coco(root, "annotations/instances_default.json", "images/default"),
        "coco",
        "default",
    ),
    Layout("Roboflow COCO", layouts.roboflow_coco, "coco", notes=("is the supercategory of others",)),
    Layout("COCO, one file per split in the root", lambda root: coco(root, "train.json", "train"), "coco"),
    Layout("CVAT VOC", layouts.cvat_voc, "voc", "default"),
    Layout("Roboflow VOC", lambda root: voc(root, "train", "train"), "voc"),
    Layout("LabelImg VOC", lambda root: voc(root, "", ""), "voc", "default"),
    Layout("VOC: annots/ and images/", lambda root: voc(root, "annots", "images"), "voc", "default"),
    Layout("VOC in depth", lambda root: voc(root, "labels/day 1/xml", "photos/day 1"), "voc", "default"),
    Layout("VOC, split folders", lambda root: voc(root, "train/annots", "train/images"), "voc"),
    Layout(
        "VOC, unlike names",
        lambda root: voc(root, "annots", "images", xml_name="label_{}.xml"),
        "voc",
        "default",
        ("found by the <filename> of their XML file: 'annots/label_a.xml' -> 'images/a.jpg'",),
    ),
    Layout("YOLO: yaml of another name", yolo_train({"birds.yaml": DATA}), "yolo"),
    Layout(
        "Roboflow YOLO without its test folder",
        lambda root: yolo(
            root,
            "train/images",
            "train/labels",
            {"data.yaml": NAMES + "train: ../train/images\nval: ../train/images\ntest: ../test/images\n"},
        ),
        "yolo",
        notes=("data.yaml names test: ../test/images, which does not exist",),
    ),
    Layout(
        "YOLO: folder of another machine",
        yolo_train({"data.yaml": NAMES + "train: /content/drive/set/images/train\n"}),
        "yolo",
        notes=("'/content/drive/set/images/train' -> 'images/train'",),
    ),
    Layout(
        "YOLO: list of another machine",
        yolo_train(
            {
                "data.yaml": NAMES + "train: train.txt\n",
                "train.txt": "C:\\x\\images\\train\\a.jpg\n/y/images/train/b.jpg\n",
            }
        ),
        "yolo",
        notes=(MOVED,),
    ),
    Layout(
        "CVAT Ultralytics, older",
        yolo_train(
            {
                "data.yaml": "path: ./\ntrain: train.txt\nnames:\n  0: cat\n  1: dog\n",
                "train.txt": "data/images/train/a.jpg\ndata/images/train/b.jpg\n",
            }
        ),
        "yolo",
        notes=(MOVED + "'data/images/train/a.jpg' -> 'images/train/a.jpg'",),
    ),
    Layout(
        "CVAT YOLO 1.1",
        lambda root: yolo(
            root,
            "obj_train_data",
            "obj_train_data",
            {
                "obj.data": "classes = 2\nnames = data/obj.names\ntrain = data/train.txt\nbackup = backup/\n",
                "obj.names": "cat\ndog\n",
                "train.txt": "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n",
            },
        ),
        "yolo",
        notes=(MOVED, "'data/train.txt' -> 'train.txt'"),
    ),
    Layout(
        "Label Studio YOLO",
        lambda root: yolo(root, "images", "labels", {"classes.txt": "cat\ndog\n", "notes.json": "{}"}),
        "yolo",
        "default",
    ),
    Layout(
        "LabelImg YOLO", lambda root: yolo(root, "", "", {"classes.txt": "cat\ndog\n"}), "yolo", "default"
    ),
    Layout(
        "YOLO with a confidence",
        yolo_train({"data.yaml": DATA}, layouts.longer("0.9")),
        "yolo",
        notes=("3 lines have a sixth number",),
    ),
    Layout(
        "YOLO with 2 keypoints",
        yolo_train(
            {"data.yaml": DATA + "kpt_shape: [2, 3]\n"}, layouts.longer("0.1 0.1 2.0 0.9 0.9 1.000000")
        ),
        "yolo",
        notes=("3 lines have keypoints",),
    ),
    Layout(
        "YOLO with 17 keypoints and no kpt_shape",
        yolo_train({"data.yaml": DATA}, layouts.longer(" ".join(["0.9 0.9 2"] * 17))),
        "yolo",
        notes=("3 lines have keypoints",),
    ),
    Layout(
        "YOLO rotated",
        yolo_train({"data.yaml": DATA}, layouts.corners()),
        "yolo",
        notes=("3 lines have four corners (a rotated box)",),
    ),
    Layout(
        "YOLO: nc larger",
        yolo_train({"data.yaml": DATA + "nc: 3\n"}),
        "yolo",
        notes=("nc is 3 and 2 classes are named",),
    ),
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_layout__images_boxes_classes_and_notes(tmp_path: Path, layout: Layout) -> None:
    root = tmp_path / "set"
    layout.build(root)
    opened = open_split(root, role="train")
    found = opened.annotations
    assert (opened.format, opened.split) == (layout.format, layout.split)
    assert [Path(name.decode()).name for name in found.file_names] == ["a.jpg", "b.jpg"]
    assert found.boxes.round(3).tolist() == [list(box) for box in XYXY]
    assert found.offsets.tolist() == [0, 2, 3]
    assert (found.classes.names, found.labels.tolist()) == (("cat", "dog"), [1, 2, 1])
    said = [finding for finding in opened.findings if finding.code not in ("field-missing",)]
    assert len(said) == len(layout.notes)
    for note in layout.notes:
        assert any(note in finding.detail for finding in said)
    again = open_split(root, role="train")  # from the cache
    assert again.findings == opened.findings
    assert again.annotations.path(0) == found.path(0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_layout__path_from_the_current_folder__checked_and_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path("set")
    layout.build(root)
    report = check(root, splits=[layout.split])
    assert report.exit_code in (0, 1)
    assert len(report.splits[layout.split].boxes) == 3
    done = convert(root, "coco", output=tmp_path / "out", splits=[layout.split])
    assert (done.images, done.boxes, done.findings) == (2, 3, [])


@pytest.mark.parametrize(
    "layout", [layout for layout in LAYOUTS if layout.split == "default"], ids=lambda layout: layout.name
)
def test_layout__of_one_split_from_the_current_folder__divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    monkeypatch.chdir(tmp_path)
    layout.build(Path("set"))
    divide(Path("set"), Path("out"), DivideOptions(val_share=0.5))
    sides = [open_split(Path("out"), role=role).annotations for role in ROLES]
    assert [len(side) for side in sides] == [1, 1]
    assert sum(len(side.boxes) for side in sides) == 3


def test_classes_from_one__loud(tmp_path: Path) -> None:
    lines = {"a": "1 0.5 0.5 0.5 0.5\n2 0.2 0.2 0.1 0.1\n", "b": "1 0.5 0.5 0.5 0.5\n"}
    yolo_train({"data.yaml": DATA}, lines)(tmp_path)
    found = {finding.code: finding for finding in open_split(tmp_path, role="train").findings}
    assert found["classes-from-one"].severity == "warning"
    assert "1 boxes have class 2 and none has class 0" in found["classes-from-one"].detail
    assert found["category-unknown"].severity == "error"


def test_path__never_outside_the_folder(tmp_path: Path) -> None:
    root, secret = tmp_path / "set", save_picture(tmp_path / "secret" / "a.jpg")
    coco(root, OFFICIAL, "train", str(tmp_path / "secret" / "{}.jpg"))
    (root / "train" / "a.jpg").unlink()
    (root / "other").mkdir()
    (root / "other" / "a.jpg").symlink_to(secret)
    (root / "linked").symlink_to(secret.parent)
    opened = open_split(root, role="train")
    assert opened.annotations.file_names.tolist() == [b"train/b.jpg"]
    assert [f.code for f in opened.findings if f.severity == "error"] == ["file-name-refused"]


def test_path__images_of_another_split__are_not_taken(tmp_path: Path) -> None:
    coco(tmp_path, OFFICIAL, "train", "/home/me/{}.jpg")
    (tmp_path / "val").mkdir()
    (tmp_path / "train" / "a.jpg").rename(tmp_path / "val" / "a.jpg")
    opened = open_split(tmp_path, role="train")
    assert opened.annotations.file_names.tolist() == [b"train/b.jpg"]


def test_path__several_files_end_so__not_guessed(tmp_path: Path) -> None:
    coco(tmp_path, OFFICIAL, "train", "/home/me/{}.jpg")
    for folder in ("one", "two"):
        save_picture(tmp_path / "train" / folder / "a.jpg")
    (tmp_path / "train" / "a.jpg").unlink()
    opened = open_split(tmp_path, role="train")
    assert [f.detail for f in opened.findings if f.code == "path-unclear"] == [
        "1 images could be any of several files: '/home/me/a.jpg' may be 'train/one/a.jpg' or "
        "'train/two/a.jpg'"
    ]


def test_super_category__with_a_box__stays_a_class(tmp_path: Path) -> None:
    layouts.roboflow_coco(tmp_path)
    file = tmp_path / "train" / "_annotations.coco.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["category_id"] = 0
    file.write_text(json.dumps(content))
    assert open_split(tmp_path, role="train").annotations.classes.names == ("animals", "cat", "dog")


def test_several_yaml_files__refused_with_their_names(tmp_path: Path) -> None:
    yolo_train({"one.yaml": DATA, "two.yml": DATA})(tmp_path)
    with pytest.raises(InputError, match=r"several YAML files .*: one\.yaml, two\.yml; expected one"):
        recognise(tmp_path)


def test_no_images__names_the_kinds_that_are_there(tmp_path: Path) -> None:
    yolo_train({"data.yaml": DATA})(tmp_path)
    for stem in "ab":
        (tmp_path / "images" / "train" / f"{stem}.jpg").rename(tmp_path / "images" / "train" / f"{stem}.svg")
    with pytest.raises(InputError, match=r"expected \.jpg.*, found 2 \.svg"):
        open_split(tmp_path, role="train")


@pytest.mark.parametrize("suffix", [".JPG", ".jfif", ".gif", ".webp", ".avif", ".PNG", ".jp2"])
def test_image_kinds(tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    yolo_train({"data.yaml": DATA})(tmp_path)
    for path in (tmp_path / "images" / "train").glob("*.jpg"):
        Image.open(path).save(path.with_suffix(suffix), **({"format": "JPEG"} if suffix == ".jfif" else {}))
        path.unlink()
    found = open_split(tmp_path, role="train").annotations
    assert (len(found), len(found.boxes)) == (2, 3)
    assert decode.load_pixels(found.path(0)).shape == (48, 64, 3)


def test_image_kinds__wrong_suffix__read_by_content(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert decode.load_pixels(tmp_path / "a.jpg").shape == (48, 64, 3)


def test_image_kinds__heic_without_its_extra__says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "FORMATS", tuple(name for name in decode.FORMATS if name != "HEIF"))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    with pytest.raises(InputError, match=r"a\.heic: HEIC needs pillow-heif; `pip install .*\[heic\]"):
        decode.read_header(tmp_path / "a.heic")
