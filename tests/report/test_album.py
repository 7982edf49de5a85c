from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.data.datamodule import DetectionData
from detect.evaluation.backends import ground_truth_rows
from detect.evaluation.error_types import classify_detections
from detect.report.album import Album, ImageScore, choose_images, rank_images
from tests.coco_cases import annotations_of, coco_dict, result
from tests.conftest import make_coco
from tests.evaluation.test_matching import rows_of
from tests.run_cases import noisy_evaluator

BOX, FAR = [100.0, 100.0, 40.0, 40.0], [300.0, 100.0, 40.0, 40.0]


@pytest.fixture
def album(tmp_path: Path) -> Album:
    data = DetectionData(root=make_coco(tmp_path / "coco", val=6))
    data.open()
    truth = ground_truth_rows(data.val)
    evaluator = noisy_evaluator(data.val, noise_px=9)
    return Album(data.val, truth, classify_detections(data.val, truth, evaluator.detections))


def test_rank_images__worst_first() -> None:
    boxes = [(1, 1, BOX), (2, 1, BOX), (3, 1, BOX), (3, 1, FAR)]
    annotations = annotations_of(coco_dict(boxes, image_ids=[1, 2, 3, 4]))
    results = [result(1, 1, BOX, 0.5), result(2, 1, FAR, 0.5), result(3, 1, BOX, 0.5)]
    truth = ground_truth_rows(annotations)
    ranked = rank_images(truth, classify_detections(annotations, truth, rows_of(annotations, results)), 4)
    assert ranked == [
        ImageScore(1, found=0, wrong=1, missed=1),
        ImageScore(2, found=1, wrong=0, missed=1),
        ImageScore(0, found=1, wrong=0, missed=0),
        ImageScore(3, found=0, wrong=0, missed=0),
    ]
    assert [score.f1 for score in ranked] == pytest.approx([0, 2 / 3, 1, 1])


def test_choose_images__the_worst_and_some_up_to_the_best() -> None:
    ranked = [ImageScore(row, 1, 0, 0) for row in range(20)]
    assert [score.row for score in choose_images(ranked, worst=3, spread=3)] == [0, 1, 2, 3, 11, 19]
    assert len(choose_images(ranked[:2], worst=3, spread=3)) == 2


def test_pairs__two_panels_per_image_that_browsers_can_show(album: Album) -> None:
    pairs = album.pairs([ImageScore(0, 1, 2, 3), ImageScore(1, 1, 0, 0)])
    assert [len(pair.images) for pair in pairs] == [2, 2]
    first = pairs[0].images[0]
    with Image.open(io.BytesIO(base64.b64decode(first.base64))) as image:
        assert image.size == (480, 360) == (first.width, first.height)
    assert pairs[0].caption == "000.jpg: 1 found, 2 wrong, 3 missed, F1 0.29"


def test_galleries__no_more_than_asked_for(album: Album) -> None:
    assert len(album.false_positives(most=3)) == 3
    assert len(album.misses(most=2)) == 2


def test_album__no_room_left__no_image(album: Album) -> None:
    album.bytes_left = 1000
    assert album.pairs([ImageScore(0, 1, 0, 0)]) == []
    assert album.misses() == []


def test_album__files_gone__noted(album: Album, tmp_path: Path) -> None:
    album.annotations = replace(album.annotations, root=tmp_path / "away")
    assert album.pairs([ImageScore(0, 1, 0, 0)]) == []
    assert album.false_positives() == []
    assert "cannot read image" in album.unreadable[0]


def test_misses__classes_in_turn(album: Album) -> None:
    album.outcomes = album.outcomes._replace(found_boxes=np.zeros_like(album.outcomes.found_boxes))
    captions = [figure.caption.partition(",")[0] for figure in album.misses(most=3)]
    present = {album.annotations.classes.name(int(label)) for label in album.annotations.labels}
    assert set(captions) == present if len(present) <= 3 else len(set(captions)) == 3
