from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from detect.boxes import box_iou
from detect.data.checks.duplicates import DUPLICATE_IOU, alike_pairs, duplicate_boxes, equal_groups
from detect.data.checks.scan import ImageScan, scan_images
from tests.data_sets import save_picture

ALL = np.ones(500, dtype=np.bool_)


def alike(scan: ImageScan) -> list[list[int]]:
    return alike_pairs(scan.hashes, scan.thumbnails, ALL[: len(scan.hashes)]).tolist()


def test_alike_pairs__copies_in_other_clothes__found_and_nothing_else(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / f"{i}.jpg", (320, 240), seed=i, quality=95) for i in range(40)]
    with Image.open(paths[7]) as image:
        image.load()
    image.save(tmp_path / "low.jpg", quality=25)
    image.resize((150, 110)).save(tmp_path / "small.png")
    ImageEnhance.Brightness(image).enhance(1.2).save(tmp_path / "bright.jpg")
    image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.jpg")
    copies = [tmp_path / name for name in ("low.jpg", "small.png", "bright.jpg", "turned.jpg")]
    found = alike(scan_images([*paths, *copies]))
    assert found == [[7, 40], [7, 41], [7, 42], [40, 41], [40, 42], [41, 42]]


def test_alike_pairs__equal_to_comparing_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 255, (300, 16, 16), dtype=np.uint8)
    thumbnails[150:] = thumbnails[:150]
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    hashes[150:] = hashes[:150]
    for row in range(150, 300):  # 0 to 9 bits differ
        for bit in rng.choice(64, row % 10, replace=False):
            hashes[row] ^= np.uint64(1 << int(bit))
    expected = [[row - 150, row] for row in range(150, 300) if row % 10 <= 6]
    assert alike_pairs(hashes, thumbnails, ALL[:300]).tolist() == sorted(expected)
    assert alike_pairs(hashes, thumbnails, ALL[:300] & (np.arange(300) < 150)).tolist() == []


def test_alike_pairs__empty_pictures__are_like_none(tmp_path: Path) -> None:
    thumbnails = np.full((50, 16, 16), 200, np.uint8)
    assert alike_pairs(np.zeros(50, np.uint64), thumbnails, ALL[:50]).tolist() == []


@pytest.mark.parametrize("name", ["coco128/train2017"])
def test_alike_pairs__photographs__none_alike(name: str, coco128: Path) -> None:
    assert alike(scan_images(sorted((coco128 / "train2017").iterdir()))) == []


def test_equal_groups__name_the_first(tmp_path: Path) -> None:
    digests = np.array([b"a", b"b", b"a", b"", b"", b"a"])
    usable = np.array([True, True, True, False, False, True])
    assert equal_groups(digests, usable).tolist() == [0, 1, 0, 3, 4, 0]


def test_duplicate_boxes__by_hand() -> None:
    box = [10.0, 10.0, 110.0, 60.0]
    boxes = np.array([box, [11, 10, 110, 60], [16, 10, 110, 60], box, box, [10, 10, 110, 60.5]])
    labels = np.array([1, 1, 1, 2, 1, 1])
    images = np.array([0, 0, 0, 0, 1, 0])
    # 99 / 100 and 50 / 50.5 of box 0 are above 0.95, 94 / 100 is not; 3 is of another class, 4 elsewhere.
    assert duplicate_boxes(boxes, labels, images).tolist() == [-1, 0, -1, -1, -1, 0]


def test_duplicate_boxes__every_box_with_an_earlier_like__is_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    corner = rng.integers(0, 8, (400, 2)).astype(float)
    boxes = np.concatenate([corner, corner + 40 + rng.integers(0, 6, (400, 2))], axis=1)
    labels, images = rng.integers(1, 3, 400), rng.integers(0, 5, 400)
    iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    found = duplicate_boxes(boxes, labels, images)
    like = (iou > DUPLICATE_IOU) & (labels[:, None] == labels) & (images[:, None] == images)
    np.fill_diagonal(like, False)
    assert (found >= 0).sum() > 60
    for row in np.flatnonzero(found >= 0):
        assert like[row, found[row]]
    # Boxes that stay have no equal among those that stay.
    stay = np.flatnonzero(found < 0)
    assert not like[np.ix_(stay, stay)].any()


def test_duplicate_boxes__none__none() -> None:
    assert len(duplicate_boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.int64))) == 0
