"""docs/code.md against the code: its packages, its files, and the path of one image."""

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import detect
from detect.boxes import rescale_boxes
from detect.data.datamodule import DetectionData
from detect.evaluation.evaluator import CocoEvaluator
from detect.model.backbones import MobileNetV3
from detect.model.detector import TorchDetector
from tests.documents import ROOT
from tests.test_imports import ORDER, PACKAGE

PAGE = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
ONCE, EACH_BATCH, AT_THE_END = "Once: annotations", "Each batch: files", "At the end: detections"


def listed(part: str) -> list[str]:
    """Files of one of the three lists, in order."""
    section = PAGE[PAGE.index(f"**{part}") :].partition("\n\n")[2].partition("\n\n")[0]
    return re.findall(r"^\d+\. `([\w/.]+)`", section, re.MULTILINE)


def entered(frames: list[str], files: list[str]) -> list[str]:
    """Those of `files` that were entered, in the order of their first call."""
    return [name for name in dict.fromkeys(frames) if name in files]


class Trace:
    """Notes the file of every call into the package."""

    def __init__(self) -> None:
        self.frames: list[str] = []

    def __enter__(self) -> list[str]:
        sys.setprofile(self._note)
        return self.frames

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            self.frames.append(path.relative_to(PACKAGE).as_posix())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_image_passes_the_listed_files_in_their_order(coco_root: Path) -> None:
    detector = TorchDetector(MobileNetV3("small", width=0.35), num_classes=3, image_size=(64, 64)).eval()
    with Trace() as opening:
        data = DetectionData(coco_root, image_size=(64, 64), workers=0)
        data.open()
    evaluator = CocoEvaluator(data.val)
    with Trace() as batches, torch.no_grad():
        for batch in data.val_dataloader():
            found = detector(batch.images)
            boxes = rescale_boxes(found.boxes, detector.image_size, batch.orig_size)
            evaluator.update(batch.sample_idx, found._replace(boxes=boxes))
    with Trace() as end:
        evaluator.gather()
        evaluator.compute()

    assert entered(opening, listed(ONCE)) == listed(ONCE)
    assert entered(batches, listed(EACH_BATCH)) == listed(EACH_BATCH)
    assert entered(end, listed(AT_THE_END)) == listed(AT_THE_END)
    # and a batch passes no file that the page is silent about
    beside = {"data/annotations.py", "data/datamodule.py", "data/stall.py", "types.py"}
    assert set(batches) - set(listed(EACH_BATCH)) <= beside | set(listed(AT_THE_END))


def test_every_package_has_its_row_in_the_order_of_the_law() -> None:
    rows = re.findall(r"^\| `(\w+)/`(?: itself)? \|", PAGE, re.MULTILINE)
    assert rows == ["detect", *ORDER[1:]]
    assert Path(detect.__file__).parent == PACKAGE


def test_every_file_that_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:detect/|tests/|scripts/)?[\w/]+\.py)`", PAGE))
    bare = {"voc.py", "yolo.py", "__init__.py"}
    for name in named - bare:
        places = [ROOT / name, PACKAGE / name, *(PACKAGE / package / name for package in ORDER[1:])]
        assert "NAME" in name or any(place.is_file() for place in places), name
