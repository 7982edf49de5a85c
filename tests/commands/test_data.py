from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.commands.main import main
from detect.data.splits import open_split, recognise
from tests.conftest import make_coco
from tests.data_sets import claim_size, coco_file, make_coco_split, save_picture, save_turned

BOX = [4.0, 6.0, 20.0, 10.0]
CLASSES = {3: "cat", 9: "dog"}


def museum(root: Path) -> Path:
    """A COCO folder with one of each thing that can be wrong and still be trained on."""
    names = ["good", "gone", "cut", "text", "size", "exif", "same", "twice", "alike", "empty"]
    objects: list[tuple[int, int, Any]] = [(i, 3, BOX) for i in range(1, 10)]
    objects += [
        (1, 3, [1, 2, 0, 4]),
        (1, 3, [70, 2, 5, 4]),
        (1, 3, [1, 2, float("nan"), 4]),
        (1, 3, [0, 0, 900, 4]),
        (1, 9, [50, 2, 30, 4]),
        (1, 3, [4.1, 6, 20, 10]),
        (1, 4, BOX),
        (77, 3, BOX),
    ]
    content = coco_file([(f"{name}.jpg", 64, 48) for name in names], objects, {**CLASSES, 11: "owl"})
    make_coco_split(root, content)
    folder = root / "train"
    (folder / "gone.jpg").unlink()
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-200])
    (folder / "text.jpg").write_text("no picture")
    save_picture(folder / "size.jpg", (60, 48), seed=51)
    save_turned(folder / "exif.jpg", (64, 48), 6)
    (folder / "same.jpg").write_bytes((folder / "good.jpg").read_bytes())
    save_picture(folder / "alike.jpg", quality=40)  # as good.jpg
    content["images"] += [{**content["images"][0], "file_name": "again.jpg"}]
    content["images"] += [{**content["images"][7], "id": 12}, {**content["images"][0], "id": 13}]
    content["images"][-1]["file_name"] = "../outside.jpg"
    content["annotations"][12]["id"] = 1
    del content["annotations"][0]["area"]
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    val = coco_file([("leak.jpg", 64, 48)], [(1, 1, BOX), (1, 3, BOX)], {1: "dog", 3: "cat"})
    make_coco_split(root, val, "val")
    (root / "val" / "leak.jpg").write_bytes((folder / "good.jpg").read_bytes())
    return root


def state(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_check__one_of_each_fault__all_found_named_and_nothing_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = museum(tmp_path / "data")
    before = state(root)
    assert main(["data", "check", str(root), "--json", str(tmp_path / "found.json")]) == 1
    assert state(root) == before
    found = json.loads((tmp_path / "found.json").read_text())
    expected = {
        "annotation-id-repeated": "warning",
        "box-clipped": "warning",
        "box-huge": "error",
        "box-not-a-number": "error",
        "box-outside": "error",
        "box-repeated": "warning",
        "box-without-area": "error",
        "category-unknown": "error",
        "class-order-differs": "note",
        "class-rare": "note",
        "class-without-boxes": "note",
        "exif-boxes-turned": "warning",
        "exif-policy": "note",
        "field-missing": "note",
        "file-name-refused": "error",
        "image-alike": "note",
        "image-file-repeated": "warning",
        "image-id-repeated": "error",
        "image-id-unknown": "error",
        "image-in-two-splits": "warning",
        "image-missing": "error",
        "image-repeated": "warning",
        "image-size-differs": "warning",
        "image-undecodable": "error",
        "image-unreadable": "error",
        "images-without-boxes": "note",
    }
    assert {row["code"]: row["severity"] for row in found["findings"]} == expected
    assert set(found["codes"]) == set(expected)
    text = capsys.readouterr().out
    for row in found["findings"]:
        assert all(row[key] for key in ("file", "detail", "action")), row
        assert (row["annotation"] is not None) == row["code"].startswith(
            ("box-", "category-u", "annotation-", "image-id-u")
        )
        assert row["code"] in text


def test_check__html__a_page(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "data")
    main(["data", "check", str(root), "--html", str(tmp_path / "page.html")])
    assert "<h1>Data set data</h1>" in (tmp_path / "page.html").read_text()


def test_check__exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, BOX)], {3: "cat"})
    root = make_coco_split(tmp_path / "a", content)
    assert main(["data", "check", str(root)]) == 0
    assert main(["data", "check", str(root), "--config", str(tmp_path / "none.yaml")]) == 2
    content["annotations"] = []
    assert main(["data", "check", str(make_coco_split(tmp_path / "b", content))]) == 2
    assert "cannot be trained on: train" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "has no format that is known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "message"),
    [("data/annotations/instances_train.json", "which is only read"), ("none/x.json", "there is no folder")],
)
def test_check__json_where_it_must_not_be__refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, message: str
) -> None:
    root = make_coco(tmp_path / "data")
    before = state(root)
    assert main(["data", "check", str(root), "--json", str(tmp_path / place)]) == 2
    assert message in capsys.readouterr().err
    assert state(root) == before


def test_convert__command__writes_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_coco(tmp_path / "data")
    boxes = len(open_split(root, role="train").annotations.boxes)
    arguments = ["data", "convert", str(root), "--to", "yolo", "--splits", "train"]
    assert main([*arguments, "--output", str(tmp_path / "yolo")]) == 0
    assert f"4 images and {boxes} boxes written from coco to yolo" in capsys.readouterr().out
    assert recognise(tmp_path / "yolo").NAME == "yolo"
    assert main([*arguments, "--output", str(tmp_path / "yolo")]) == 2
    assert "is not an empty folder" in capsys.readouterr().err


def test_convert__command__what_is_left_out__exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects: list[tuple[int, int, Any]] = [(1, 3, BOX), (1, 3, "nonsense")]
    root = make_coco_split(tmp_path / "a", coco_file([("a.jpg", 64, 48)], objects, {3: "cat"}))
    assert main(["data", "convert", str(root), "--to", "voc", "--output", str(tmp_path / "b")]) == 1
    assert "left out:\nerror: box-not-a-number x 1" in capsys.readouterr().out


def test_check__box_convention__read_so(tmp_path: Path) -> None:
    corner = np.random.default_rng(0).integers(10, 30, (20, 2))
    boxes = np.concatenate([corner, corner + 9], axis=1).tolist()
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, box) for box in boxes], {3: "cat"})
    root = str(make_coco_split(tmp_path / "a", content))
    assert main(["data", "check", root]) == 2
    assert main(["data", "check", root, "--box_convention", "xyxy"]) == 0


def test_profile__command__figures_and_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, file = make_coco(tmp_path / "data"), tmp_path / "figures.json"
    arguments = ["data", "profile", str(root), "--data.total_batch_size", "4", "--data.image_size", "[32,40]"]
    assert main([*arguments, "--images", "8", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert figures["images"] == 8
    assert figures["decode_ms"] > 0
    assert figures["images_per_s"] > 0
    said = capsys.readouterr().out
    assert "ms per image" in said
    assert f"what would help most: {figures['advice']}" in said
    assert main([*arguments, "--images", "0"]) == 2
    assert "--images 0: give 1 or more" in capsys.readouterr().err


def test_check__command__pillows_warning_without_a_name_is_not_shown(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco", train=2, val=1)
    claim_size(sorted(root.rglob("*.jpg"))[0], 9460, 9460)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(["data", "check", str(root)]) == 1
    assert [str(one.message) for one in caught if issubclass(one.category, RuntimeWarning)] == []
