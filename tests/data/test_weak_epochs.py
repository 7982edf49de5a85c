"""The last epochs of a run show weak augmentations: by epoch alone, on any number of workers and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.data.annotations import Annotations
from detect.data.augment import (
    Augmentation,
    Mosaic,
    PhotometricDistort,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    RandomZoomOut,
)
from detect.data.cache import PixelCache
from detect.data.datamodule import DetectionData
from detect.data.dataset import DetectionDataset, SampleKey
from detect.data.sampler import TrainLoader
from detect.data.splits import open_split
from detect.errors import InputError
from tests.conftest import make_coco
from tests.data.loader_cases import loader_of, same_on_workers_and_ranks

SIZE = (32, 40)
STRONG = [Mosaic(1.0), PhotometricDistort(), RandomHorizontalFlip(), RandomZoomOut(), RandomVerticalFlip()]
FLIPS = [STRONG[2], STRONG[4]]
FIRST_WEAK = 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_coco(tmp_path / "coco", train=9)


@pytest.fixture
def annotations(root: Path) -> Annotations:
    return open_split(root, role="train").annotations


def of(annotations: Annotations, steps: list[Augmentation], **settings: Any) -> DetectionDataset:
    return DetectionDataset(annotations, SIZE, augmentations=steps, seed=5, **settings)


def opened(root: Path, *, epochs: int | None, **settings: Any) -> DetectionData:
    data = DetectionData(root, total_batch_size=4, workers=0, image_size=SIZE, **settings)
    data.open(("train",))
    data.run_epochs = epochs
    return data


def test_sample__of_a_weak_epoch__is_that_of_the_weak_steps_alone(annotations: Annotations) -> None:
    both = of(annotations, STRONG, weak_augmentations=FLIPS, weak_from=FIRST_WEAK)
    strong, weak = of(annotations, STRONG), of(annotations, FLIPS)
    cached = of(annotations, STRONG, weak_augmentations=FLIPS, weak_from=FIRST_WEAK)
    cached.cache = PixelCache(annotations, cached.draft_scales, place="disk", limit_gb=1)
    for epoch in range(2 * FIRST_WEAK):
        for row in range(len(annotations)):
            key = SampleKey(epoch, row, 32)
            expected = (weak if epoch >= FIRST_WEAK else strong)[key]
            for dataset in (both, cached):
                for ours, theirs in zip(dataset[key], expected, strict=True):
                    np.testing.assert_array_equal(ours, theirs)


def test_padding__follows_the_steps_of_the_epoch(annotations: Annotations) -> None:
    """A mosaic pads for four images, a weak epoch for one; and the reverse where the weak steps have it."""
    counts = np.diff(annotations.offsets)
    for steps, weak in ((STRONG, FLIPS), (FLIPS, STRONG)):
        dataset = of(annotations, steps, weak_augmentations=weak, weak_from=FIRST_WEAK)
        assert dataset.shows_several
        assert dataset.most_boxes == 4 * counts.max()
        for epoch in range(2 * FIRST_WEAK):
            for row in range(len(annotations)):
                key = SampleKey(epoch, row, 32)
                several = dataset.steps(epoch) is STRONG
                assert len(dataset.layout(key)) == (4 if several else 1)
                assert len(dataset.boxes(key).boxes) <= dataset.count_boxes(key)
                if not several:
                    assert dataset.count_boxes(key) == counts[row]


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_loader__workers_and_ranks_change_nothing(annotations: Annotations) -> None:
    def loader(**how: int) -> TrainLoader:
        return loader_of(of(annotations, STRONG, weak_augmentations=FLIPS, weak_from=1), **how)

    assert same_on_workers_and_ranks(loader, epochs=2)


@pytest.mark.parametrize(("epochs", "first"), [(5, 3), (30, 28), (1, 0), (None, None)])
def test_data_module__the_last_epochs_of_the_run(root: Path, epochs: int | None, first: int | None) -> None:
    data = opened(root, epochs=epochs, augmentations=STRONG, weak_epochs=2)
    assert data.train_dataset().weak_from == first
    assert opened(root, epochs=epochs, augmentations=STRONG).train_dataset().weak_from is None


def test_data_module__weak_steps__the_flips_unless_given(root: Path) -> None:
    data = opened(root, epochs=5, augmentations=STRONG, weak_epochs=2)
    assert data.train_dataset().weak_augmentations == FLIPS
    ssd = opened(root, epochs=5, weak_epochs=2).train_dataset()
    assert [type(step) for step in ssd.weak_augmentations] == [RandomHorizontalFlip]
    for given in ([], [STRONG[1]]):
        data = opened(root, epochs=5, augmentations=STRONG, weak_epochs=2, weak_augmentations=given)
        assert data.train_dataset().weak_augmentations == given


def test_data_module__says_from_when_on(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        opened(root, epochs=5, weak_epochs=2).train_dataloader()
    assert "weak augmentations from epoch 4 on: RandomHorizontalFlip" in caplog.text


def test_data_module__what_cannot_be__refused() -> None:
    with pytest.raises(InputError, match=r"data\.weak_epochs is -1; give 0 or more"):
        DetectionData(weak_epochs=-1)
    with pytest.raises(InputError, match=r"Mosaic shows several images at once; name it first"):
        DetectionData(weak_epochs=1, weak_augmentations=[RandomHorizontalFlip(), Mosaic()])
