"""Folders of classes through the loader: labels, crops, pixel steps, and what is wrong with files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detect.data.augment.mosaic import Mosaic
from detect.data.class_data import ClassificationData
from detect.data.dataset import SampleKey
from detect.errors import InputError
from tests.class_folders import COLOURS, make_class_folder


def opened(root: Path, **settings) -> ClassificationData:
    data = ClassificationData(root, image_size=(32, 32), workers=0, total_batch_size=6, **settings)
    data.open()
    return data


def test_labels_are_those_of_the_rows(tmp_path: Path) -> None:
    data = opened(make_class_folder(tmp_path / "set"))
    assert data.classes.names == ("blue", "green", "red")
    assert (data.train.labels - 1).tolist() == [0] * 8 + [1] * 8 + [2] * 8
    colours = np.array(list(COLOURS.values()))
    seen = 0
    for loader, labels in (
        (data.train_dataloader(), data.train.labels - 1),
        (data.val_dataloader(), data.val.labels - 1),
    ):
        for batch in loader:
            assert batch.images.shape[1:] == (3, 32, 32)
            assert batch.images.dtype == torch.uint8
            means = batch.images.float().mean(dim=(2, 3)).numpy()
            nearest = np.abs(means[:, None] - 20 - colours).sum(axis=2).argmin(axis=1)
            assert nearest.tolist() == labels[batch.sample_idx.numpy()].tolist()
            seen += len(batch.images)
    assert seen == 24 + 12


def test_a_sample_is_a_function_of_seed_epoch_and_row(tmp_path: Path) -> None:
    root = make_class_folder(tmp_path / "set", train=2, val=1)
    settings = {"trivial_augment": True, "erasing_probability": 1.0}
    dataset = opened(root, **settings).train_dataset()
    key = SampleKey(0, 3, 8)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = dataset[key].image
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert np.array_equal(dataset[key].image, first)
    assert not np.array_equal(dataset[SampleKey(1, 3, 8)].image, first)
    assert not np.array_equal(opened(root).train_dataset()[key].image, first)


def test_validation_sees_the_middle(tmp_path: Path) -> None:
    data = opened(make_class_folder(tmp_path / "set", train=2, val=1, size=(160, 80)))
    (tile,) = data.val_dataset().plan(SampleKey(0, 0, 8))
    # the middle 70 x 70 of 160 x 80
    assert (tile.view.x0, tile.view.y0, tile.view.x1, tile.view.y1) == (45, 5, 115, 75)


def test_bad_files_are_named_and_left_out(tmp_path: Path) -> None:
    root = make_class_folder(tmp_path / "set", train=3, val=2)
    (root / "train" / "red" / "broken.jpg").write_bytes(b"no image")
    whole = (root / "train" / "red" / "000.jpg").read_bytes()
    (root / "train" / "blue" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train" / "blue" / "notes.txt").write_text("no image, and not taken for one")
    (root / "train" / "empty").mkdir()
    (root / "val" / "green" / "copy.jpg").write_bytes(whole)
    data = opened(root)
    assert len(data.train) == 9
    found = {(finding.code, finding.file) for finding in data.findings["train"]}
    assert {("image-unreadable", "red/broken.jpg"), ("image-undecodable", "blue/cut.jpg")} <= found
    assert ("class-empty", str(root / "train" / "empty")) in found
    (leak,) = data.findings["both"]
    assert (leak.code, leak.file) == ("image-in-two-splits", "green/copy.jpg")
    assert "red/000.jpg" in leak.detail


def test_folders_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(InputError, match="SPLIT/NAME"):
        opened(tmp_path)
    root = make_class_folder(tmp_path / "set", train=2, val=1)
    (root / "val" / "red").rename(root / "val" / "rot")
    with pytest.raises(InputError, match="classes that are not trained: rot"):
        opened(root)


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"erasing_probability is 1\.5"):
        ClassificationData(tmp_path, erasing_probability=1.5)
    with pytest.raises(InputError, match=r"centre crop .* got 0\.0"):
        ClassificationData(tmp_path, val_crop=0.0)
    with pytest.raises(InputError, match="Mosaic shows several images"):
        ClassificationData(tmp_path, augmentations=[Mosaic()])
