from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detect.data.augment import Mosaic
from detect.data.datamodule import DetectionData
from detect.data.sampler import TrainLoader
from detect.model.backbones import MobileNetV3
from detect.model.checkpoint import read_checkpoint, write_checkpoint
from detect.model.classifier import Classifier
from detect.training.classification import ClassificationModule, classification_module_from_checkpoint
from detect.training.nan_report import images_shown, keys_of_step, replay_batch
from detect.training.run_module import draws_of_batch
from detect.types import Batch, ClassMap, Target
from tests.conftest import make_coco


def test_replay_batch__a_classifier__smooths_and_mixes_as_the_step_did(tmp_path: Path) -> None:
    classifier = Classifier(MobileNetV3("small", width=0.35), 3, image_size=(32, 32))
    classifier.classes = ClassMap(("a", "b", "c"), (1, 2, 3))
    module = ClassificationModule(classifier, label_smoothing=0.2, mixup_alpha=0.4)
    labels = torch.tensor([[1], [3], [2], [3]])
    target = Target(torch.zeros(4, 1, 4), labels, labels > 3)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batch = Batch(images, target, torch.arange(4), torch.full((4, 2), 32))
    write_checkpoint(tmp_path / "w.ckpt", {"detect": module.describe(), "state_dict": module.state_dict()})
    draws, other = draws_of_batch(0, 1, 2, 0), draws_of_batch(0, 1, 3, 0)

    torch.manual_seed(draws)
    loss = module.train().batch_terms(batch).total.item()
    read = read_checkpoint(tmp_path / "w.ckpt", task="classification")
    again = classification_module_from_checkpoint(read)
    replayed = replay_batch(again, batch, draws=draws, precision="32-true")
    assert replayed.finite
    assert replayed.sums.total.item() == loss
    assert replay_batch(again, batch, draws=other, precision="32-true").sums.total.item() != loss
    torch.manual_seed(draws)
    one_by_one = again.sample_terms(again.net.train(), batch)
    assert sum(sums.total.item() for sums in one_by_one) == pytest.approx(loss, rel=1e-5)


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
