"""Inputs of several sizes: which, in which step, and what samples and batches make of them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.data import datamodule
from detect.data.annotations import Annotations
from detect.data.augment import Mosaic, RandomHorizontalFlip, default_augmentations
from detect.data.cache import PixelCache
from detect.data.datamodule import DetectionData
from detect.data.dataset import DetectionDataset, SampleKey
from detect.data.multi_scale import MultiScale, sizes_between
from detect.data.sampler import TrainLoader
from detect.data.splits import open_split
from detect.errors import InputError
from tests.conftest import make_coco
from tests.data.loader_cases import loader_of, same_on_workers_and_ranks

SIZES = ((64, 96), (96, 128), (128, 192))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_coco(tmp_path / "coco", train=13, val=2)


@pytest.fixture
def annotations(root: Path) -> Annotations:
    return open_split(root, role="train").annotations


def test_sizes_between__by_hand() -> None:
    assert sizes_between((256, 384), (320, 320)) == tuple((side, side) for side in (256, 288, 320, 352, 384))
    # 64 * 1.5 = 96, 96 * 1.5 = 144 = 4.5 * 32, which Python rounds to the even 4, 128 * 1.5 = 192
    assert sizes_between((64, 128), (200, 300)) == SIZES
    assert sizes_between((96, 96), (300, 200)) == ((128, 96),)


@pytest.mark.parametrize("sides", [(384, 256), (0, 64), (250, 320), (256, 330), (-32, 64)])
def test_sizes_between__no_range__refused(sides: tuple[int, int]) -> None:
    message = rf"data\.multi_scale is {re.escape(str(list(sides)))}; .*multiples of 32"
    with pytest.raises(InputError, match=message):
        sizes_between(sides, (320, 320))
    with pytest.raises(InputError, match=message):
        DetectionData(multi_scale=sides)


def test_size__is_a_pure_function_of_seed_epoch_and_step() -> None:
    keys = [(epoch, step) for epoch in range(20) for step in range(30)]
    drawn = [MultiScale(SIZES, 3).size(*key) for key in keys]
    assert [MultiScale(SIZES, 3).size(*key) for key in reversed(keys)][::-1] == drawn
    assert [MultiScale(SIZES, 4).size(*key) for key in keys] != drawn
    for size in SIZES:
        assert drawn.count(size) == pytest.approx(200, abs=47)  # 4 standard deviations


def test_size__from_the_weak_epochs_on__is_the_inputs_own() -> None:
    ending = MultiScale(SIZES, 3, until=2)
    assert [ending.size(epoch, 5) for epoch in (0, 1)] == [MultiScale(SIZES, 3).size(e, 5) for e in (0, 1)]
    assert ending.size(2, 5) is None
    assert ending.size(7, 0) is None


@pytest.mark.parametrize("mosaic", [False, True])
def test_sample__of_a_size__is_that_of_a_data_set_of_this_size(
    annotations: Annotations, mosaic: bool
) -> None:
    steps = [*([Mosaic(1.0)] if mosaic else []), *default_augmentations()]
    settings: dict[str, Any] = {"augmentations": steps, "seed": 5, "largest_size": SIZES[-1]}
    several, cached = (DetectionDataset(annotations, (64, 64), **settings) for _ in range(2))
    cached.cache = PixelCache(annotations, cached.draft_scales, place="disk", limit_gb=1)
    for size in SIZES:
        alone = DetectionDataset(annotations, size, **settings)
        for row in range(6):
            expected = alone[SampleKey(1, row, 64)]
            assert expected.image.shape[:2] == size
            for dataset in (several, cached):
                sample = dataset[SampleKey(1, row, 64, image_size=size)]
                np.testing.assert_array_equal(sample.image, expected.image)
                np.testing.assert_array_equal(sample.boxes, expected.boxes)


def test_draft_scales__are_those_of_the_largest_input(annotations: Annotations, tmp_path: Path) -> None:
    """A file is decoded once for all sizes, with the pixels that the largest needs."""
    big = open_split(make_coco(tmp_path / "big", train=1), role="train").annotations
    big.sizes[:] = (1200, 1600)
    small, large = (
        DetectionDataset(big, (64, 64), augmentations=[], largest_size=size).draft_scales.tolist()
        for size in (None, (256, 256))
    )
    assert (small, large) == ([8], [2])


def sized(annotations: Annotations, **how: int) -> TrainLoader:
    steps = [Mosaic(0.5), RandomHorizontalFlip()]
    dataset = DetectionDataset(annotations, (64, 64), augmentations=steps, seed=5)
    return loader_of(dataset, multi_scale=MultiScale(SIZES, 5), **how)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_loader__workers_and_ranks_change_nothing(annotations: Annotations) -> None:
    batches = same_on_workers_and_ranks(partial(sized, annotations), epochs=4)
    assert {tuple(batch.images.shape[-2:]) for batch in batches} == set(SIZES)


def test_sampler__one_size_in_an_accumulation_window_and_the_same_after_a_restart(
    annotations: Annotations,
) -> None:
    plain, window = sized(annotations), sized(annotations, accumulate=2)
    whole = [{key.image_size for key in keys} for keys in plain.batch_sampler]
    halves = [{key.image_size for key in keys} for keys in window.batch_sampler]
    assert [size for size in whole for _ in range(2)] == halves
    assert {len(sizes) for sizes in whole} == {1}
    plain.batch_sampler.start_batch = 2
    assert [{key.image_size for key in keys} for keys in plain.batch_sampler] == whole[2:]
    of_rank = plain.batch_sampler.of_rank(0)
    assert [{key.image_size for key in keys} for keys in of_rank] == whole


def test_data_module__sizes_of_training_and_of_validation(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[int, int]] = []
    own = datamodule.batch_bytes

    def spy(batch_size: int, image_size: tuple[int, int], **more: Any) -> int:
        counted.append(image_size)
        return own(batch_size, image_size, **more)

    monkeypatch.setattr(datamodule, "batch_bytes", spy)
    data = DetectionData(
        root, total_batch_size=4, workers=0, image_size=(64, 64), multi_scale=(32, 96), weak_epochs=1
    )
    data.setup("fit")
    data.run_epochs = 5
    assert data.train_sizes == ((32, 32), (64, 64), (96, 96))
    loader = data.train_dataloader()
    assert counted == [(96, 96), (64, 64)]  # training's largest, validation's own
    shapes = set()
    for epoch in range(5):
        loader.batch_sampler.set_epoch(epoch)
        found = {tuple(batch.images.shape[-2:]) for batch in loader}
        shapes |= found
        assert epoch < 4 or found == {(64, 64)}
    assert shapes == set(data.train_sizes)
    assert {tuple(batch.images.shape[-2:]) for batch in data.val_dataloader()} == {(64, 64)}


def test_data_module__the_inputs_own_size_is_among_those_of_training() -> None:
    assert DetectionData(image_size=(300, 300)).train_sizes == ((300, 300),)
    assert DetectionData(image_size=(300, 300), multi_scale=(256, 320)).train_sizes == (
        (256, 256),
        (288, 288),
        (300, 300),
        (320, 320),
    )
