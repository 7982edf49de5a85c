from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from detect.inspection.data_check import check
from detect.inspection.data_check_text import PLAIN_WIDTH, print_report
from tests.data_sets import coco_file, make_coco_split, make_voc

GOOD = [4.0, 6.0, 20.0, 10.0]


def printed(root: Path) -> str:
    file = io.StringIO()
    print_report(check(root), Console(file=file))
    return file.getvalue()


def make(root: Path, *boxes: list[float], classes: dict[int, str]) -> Path:
    objects = [(1, category, box) for category in classes for box in boxes]
    return make_coco_split(root, coco_file([("a.jpg", 64, 48)], objects, classes))


def test_print__splits_classes_findings_anchors_verdict(tmp_path: Path) -> None:
    root = make(tmp_path, GOOD, [1, 1, 0, 5], classes={3: "cat", 9: "dog"})
    text = printed(root)
    for part in (
        f"{root}  COCO",
        "train (training)        1               0       2       2        0       0         0         2",
        "error   box-without-area x 2: box dropped",
        "a.jpg, annotation 2 (train): xmin 1, ymin 1, xmax 1, ymax 6",
        "Anchors against the boxes of train (paper head, 320 x 320 px)",
        "reduced tail",
        "can be trained on: 2 errors, 0 warnings, 1 note\n",
    ):
        assert part in text
    assert max(map(len, text.splitlines()[1:])) <= PLAIN_WIDTH


def test_print__nothing_trainable__the_verdict_says_why(tmp_path: Path) -> None:
    text = printed(make(tmp_path, [1, 1, 0, 5], classes={3: "cat"}))
    assert "cannot be trained on: train: the training split train" in text
    assert text.splitlines()[-1].startswith("cannot be trained on: 1 error, 0 warnings, ")


def test_print__a_finding_in_two_splits__said_once(tmp_path: Path) -> None:
    root = make_voc(tmp_path, {"all": {"a": [("cat", (9, 9, 9, 9)), ("cat", (1, 1, 20, 20))]}})
    (root / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    text = printed(root)
    assert "box-without-area x 1" in text
    assert "Annotations/a.xml, annotation 1 (all, val)" in text


def test_print__many_classes__commonest_and_rarest(tmp_path: Path) -> None:
    text = printed(make(tmp_path, GOOD, classes={i: f"class {i:02d}" for i in range(1, 40)}))
    assert "... 15 more" in text
    assert "class 12" in text
    assert "class 13 " not in text.split("Findings")[0]
    assert "class 28 " in text


def test_print__file_name_that_would_move_the_cursor__is_spelt_out(tmp_path: Path) -> None:
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, GOOD)], {3: "[red]cat\x1b[2J"})
    make_coco_split(tmp_path, content)
    content["images"].append({"id": 2, "file_name": "\x1b[2Jx\n.jpg", "width": 9, "height": 9})
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    text = printed(tmp_path)
    assert "\x1b" not in text
    assert "\\x1b[2Jx\\x0a.jpg" in text
    assert "[red]cat\\x1b" in text


def test_print__nothing_can_be_read__no_counts_of_findings_and_lines_as_lines(tmp_path: Path) -> None:
    root = make(tmp_path, GOOD, classes={3: "cat"})
    for image in (root / "train").iterdir():
        image.unlink()
    text = printed(root)
    assert "No findings" not in text
    assert "\\x0a" not in text
    assert "cannot be trained on: train: no usable image in " in text
    assert any(line.startswith("  error: image-missing x 1") for line in text.splitlines())
    assert text.splitlines()[-1] == "cannot be trained on"
