from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detect.data.datamodule import DetectionData
from detect.evaluation.draw import label_colour
from detect.training.callbacks.validation_images import SIDE_PX, validation_pictures
from tests.run_cases import noisy_evaluator


@pytest.fixture
def data(coco_root: Path) -> DetectionData:
    data = DetectionData(root=coco_root)
    data.open()
    return data


def test_validation_pictures__truth_and_detections_side_by_side(data: DetectionData) -> None:
    pictures = validation_pictures(noisy_evaluator(data.val, noise_px=0), images=3)
    assert len(pictures) == 3
    for picture in pictures.values():
        assert picture.shape == (SIDE_PX * 3 // 4, 2 * SIDE_PX, 3)  # of 160x120
        for half in np.split(picture, 2, axis=1):
            colours = [label_colour(label) for label in (1, 2, 3)]
            assert any((half == colour).all(axis=-1).any() for colour in colours)


def test_validation_pictures__unreadable_file__left_out(data: DetectionData, tmp_path: Path) -> None:
    moved = replace(data.val, root=tmp_path / "away")
    assert validation_pictures(noisy_evaluator(moved, noise_px=0)) == {}
