import contextlib
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from detect.api import Prediction
from detect.data.splits import open_split
from detect.deploy.label_files import WRITERS, LabelledImage
from tests.detector_cases import CLASSES

FOUND = Prediction(
    np.array([[10.5, 20.25, 60, 80], [0, 0, 200, 150]], np.float32),
    np.array([0.9, 0.4], np.float32),
    np.array([2, 1]),
    ["disc", "square"],
)
NOTHING = Prediction(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), [])
PICTURES = [
    LabelledImage("a.jpg", "a", (150, 200), FOUND),
    LabelledImage("deeper/b & c.jpg", "b & c", (30, 40), NOTHING),
]


def write(format: str, folder: Path) -> None:
    with WRITERS[format](folder, CLASSES) as writer:
        for picture in PICTURES:
            writer.write(picture)


def test_coco__is_read_back_by_our_reader(tmp_path):
    write("coco", tmp_path)
    for picture in PICTURES:
        path = tmp_path / "images" / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", picture.size[::-1]).save(path)
    annotations = open_split(
        None, role="val", annotations=tmp_path / "annotations.json", images=tmp_path / "images"
    ).annotations
    assert annotations.classes == CLASSES
    assert annotations.labels.tolist() == [2, 1]
    np.testing.assert_allclose(annotations.boxes, FOUND.boxes, atol=0.011)
    assert annotations.offsets.tolist() == [0, 2, 2]
    scores = [row["score"] for row in json.loads((tmp_path / "annotations.json").read_text())["annotations"]]
    assert scores == pytest.approx([0.9, 0.4])


def test_voc__by_hand(tmp_path):
    write("voc", tmp_path)
    root = ElementTree.parse(tmp_path / "Annotations" / "a.xml").getroot()
    assert root.findtext("filename") == "a.jpg"
    assert [root.findtext(f"size/{side}") for side in ("width", "height", "depth")] == ["200", "150", "3"]
    assert [thing.findtext("name") for thing in root.iter("object")] == ["disc", "square"]
    assert [side.text for side in root.find("object/bndbox")] == ["10.5", "20.25", "60", "80"]
    empty = ElementTree.parse(tmp_path / "Annotations" / "b & c.xml").getroot()
    assert empty.findtext("filename") == "deeper/b & c.jpg"
    assert empty.find("object") is None


def test_yolo__by_hand(tmp_path):
    write("yolo", tmp_path)
    # centre ((10.5 + 60) / 2 / 200, (20.25 + 80) / 2 / 150), size (49.5 / 200, 59.75 / 150)
    lines = (tmp_path / "labels" / "a.txt").read_text().splitlines()
    assert lines[0] == "1 0.17625 0.334166666667 0.2475 0.398333333333"
    assert lines[1] == "0 0.5 0.5 1 1"
    assert (tmp_path / "labels" / "b & c.txt").read_text() == ""
    assert (tmp_path / "data.yaml").read_text() == 'nc: 3\nnames:\n  0: "square"\n  1: "disc"\n  2: "bar"\n'


def test_coco__an_error_leaves_no_file(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), WRITERS["coco"](tmp_path, CLASSES) as writer:
        writer.write(PICTURES[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
