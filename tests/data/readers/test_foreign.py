"""Folders in a format that a tool keeps for itself: the refusal says what to export."""

import json
from pathlib import Path

import pytest

from detect.data.divide import divide
from detect.data.readers.foreign import foreign_format
from detect.data.splits import recognise
from detect.errors import InputError
from tests.data_sets import save_picture

FILES = {
    "annotations.xml": (
        '<?xml version="1.0"?>\n<annotations><image id="0" name="a.jpg"/></annotations>',
        "CVAT's own XML; export the task from CVAT as COCO",
    ),
    "a.json": (
        json.dumps({"version": "5.0", "flags": {}, "shapes": [{"label": "cat"}], "imagePath": "a.jpg"}),
        "LabelMe's; export it as Pascal VOC or COCO",
    ),
    "project.json": (
        json.dumps([{"id": 1, "annotations": [{"id": 7, "result": []}], "data": {"image": "a.jpg"}}]),
        "Label Studio's own; export the project as COCO or YOLO",
    ),
    "createml.json": (
        json.dumps([{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}]),
        "CreateML's; export the set as COCO",
    ),
    "labels.csv": (
        "filename,class,xmin,ymin,xmax,ymax\n",
        "a table; export the boxes as COCO",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_tools_own_format_is_refused_with_what_to_export(tmp_path: Path, name: str) -> None:
    root = tmp_path / "set"
    save_picture(root / "a.jpg")
    content, said = FILES[name]
    (root / name).write_text(content)
    with pytest.raises(InputError) as refused:
        recognise(root)
    first, *_ = str(refused.value).splitlines()
    assert f"{name} is {said}" in first
    assert "data split" not in str(refused.value)
    with pytest.raises(InputError) as refused:
        divide(root, tmp_path / "out")
    assert str(refused.value).startswith(f"{root} cannot be divided: {name} is {said}")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.xml", "<annotation><object/></annotation>"), ("a.json", "{}"), ("a.csv", "a,b"), ("b.json", "\xff")],
)
def test_other_files_are_of_no_tool(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    (tmp_path / "folder.json").mkdir()
    assert foreign_format(tmp_path) == ""
