from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from detect.data.readers import coco
from detect.data.splits import open_split
from detect.errors import InputError
from tests.data_sets import coco_file, make_coco_split

BOX = [4.0, 6.0, 20.0, 10.0]


def one_image(root: Path, **changes: Any) -> Path:
    content = coco_file([("a.jpg", 64, 48)], [(1, 3, BOX)], {3: "cat", 9: "dog"})
    make_coco_split(root, content)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content | changes))
    return root


def test_read__roboflow_layout(tmp_path: Path) -> None:
    root = one_image(tmp_path / "a")
    (root / "annotations" / "instances_train.json").rename(root / "train" / coco.ROBOFLOW_FILE)
    opened = open_split(root, role="train")
    assert (opened.format, opened.split, len(opened.annotations.boxes)) == ("coco", "train", 1)


def test_read__category_ids_with_gaps_in_any_order__labels_by_id(tmp_path: Path) -> None:
    categories = [{"id": 90, "name": "c"}, {"id": 3, "name": "a"}, {"id": 9, "name": "b"}]
    root = one_image(tmp_path, categories=categories)
    random.Random(0).shuffle(categories)
    found = open_split(root, role="train").annotations
    assert (found.classes.names, found.classes.category_ids) == (("a", "b", "c"), (3, 9, 90))
    assert found.labels.tolist() == [1]


def test_read__polygon_without_box__its_extent(tmp_path: Path) -> None:
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[5, 6, 25, 9], [7, 30, 8, 20]]}
    opened = open_split(one_image(tmp_path, annotations=[annotation]), role="train")
    assert opened.annotations.boxes.tolist() == [[5, 6, 25, 30]]
    assert {(f.code, f.detail) for f in opened.findings} >= {
        ("field-missing", "1 of 1 annotations have no 'bbox'")
    }


@pytest.mark.parametrize("polygons", [[], [[]], [[1]], "x", {"counts": [1], "size": [4, 4]}, [["a", "b"]]])
def test_read__no_box_and_no_polygon__box_not_a_number(tmp_path: Path, polygons: Any) -> None:
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": polygons}
    opened = open_split(one_image(tmp_path, annotations=[annotation]), role="train")
    assert "box-not-a-number" in [f.code for f in opened.findings]


def test_read__crowd__is_a_region_to_ignore(tmp_path: Path) -> None:
    annotations = [
        {"id": i, "image_id": 1, "category_id": 3, "bbox": BOX, "iscrowd": i, "area": 1} for i in (0, 1)
    ]
    assert open_split(
        one_image(tmp_path, annotations=annotations), role="train"
    ).annotations.ignore.tolist() == [
        False,
        True,
    ]


def test_read__ids_as_text_or_beyond_64_bits__kept_as_text(tmp_path: Path) -> None:
    images = [{"id": 10**30, "file_name": "a.jpg", "width": 64, "height": 48}]
    annotations = [{"id": None, "image_id": 10**30, "category_id": 3, "bbox": BOX}]
    found = open_split(one_image(tmp_path, images=images, annotations=annotations), role="train").annotations
    assert (found.image_id(0), len(found.boxes)) == (str(10**30), 1)


def test_read__whole_numbers_written_with_a_point__equal_the_others(tmp_path: Path) -> None:
    annotations = [{"id": 1.0, "image_id": 1.0, "category_id": 3, "bbox": BOX}]
    assert len(open_split(one_image(tmp_path, annotations=annotations), role="train").annotations.boxes) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read .* as JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": ' + "9" * 5000 + "}", "cannot read .* as JSON"),
        ("\udcff", "cannot read .* as JSON"),
        ("[]", "holds a list, expected an object .* results"),
        ('{"a": 1, "images": {}}', "no list 'images'; it has a, images"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"images": [7], "annotations": [], "categories": []}', r"images\[0\] is a int, expected an object"),
        ('{"images": [{"x": [1]}], "annotations": [], "categories": []}', r"no 'id'; it has x \(list\)"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "needs an id and a name; .* id 1"),
        (
            '{"images": [], "annotations": [], "categories":[{"id":1, "name": "a"}, {"id":2, "name": "a"}]}',
            "categories: class name 'a' occurs twice",
        ),
    ],
)
def test_read__what_is_no_coco_file__says_where(tmp_path: Path, text: str, message: str) -> None:
    path = one_image(tmp_path) / "annotations" / "instances_train.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message):
        open_split(tmp_path, role="train")


def test_read__larger_than_memory__refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = one_image(tmp_path)
    monkeypatch.setattr(coco, "MEMORY_PER_BYTE", 1e12)
    with pytest.raises(InputError, match=r"instances_train.json: it has .* MB, at most"):
        open_split(root, role="train")
