from __future__ import annotations

from pathlib import Path

import pytest

from detect.data.augment import Mosaic
from detect.data.datamodule import DetectionData
from detect.data.sampler import TrainLoader
from detect.training.nan_report import images_shown, keys_of_step
from tests.conftest import make_coco


@pytest.fixture
def loader(tmp_path: Path) -> TrainLoader:
    root = make_coco(tmp_path / "coco", train=9)
    data = DetectionData(
        root, total_batch_size=4, workers=0, image_size=(32, 40), augmentations=[Mosaic(0.5)], seed=3
    )
    data.setup("fit")
    return data.train_dataloader()


def test_keys_of_step__are_those_that_were_trained_on(loader: TrainLoader) -> None:
    loader.batch_sampler.set_epoch(1)
    first, second = list(loader.batch_sampler)
    assert list(keys_of_step(loader, epoch=1, step=0)) == [first]
    assert list(keys_of_step(loader, epoch=1, step=1)) == [second]


def test_images_shown__names_every_image_of_a_mosaic_once(loader: TrainLoader) -> None:
    keys = [key for part in keys_of_step(loader, epoch=0, step=0) for key in part]
    shown = images_shown(loader.dataset, keys)
    assert len(shown) == len(set(shown)) > len(keys)
    assert set(shown) == {tile.row for key in keys for tile in loader.dataset.plan(key)}
    single = [key for key in keys if len(loader.dataset.plan(key)) == 1]
    assert single
    assert images_shown(loader.dataset, single) == [key.row for key in single]
