from __future__ import annotations

import json
import logging
import multiprocessing
import platform
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from detect.data import datamodule
from detect.data.datamodule import DetectionData, align_classes
from detect.data.splits import open_split
from detect.data.workers import choose_workers, start_worker
from detect.errors import InputError
from detect.types import Batch, ClassMap
from tests.conftest import make_coco


def data_of(root: Path, **settings: Any) -> DetectionData:
    return DetectionData(root, **{"total_batch_size": 4, "workers": 0, "image_size": (32, 40), **settings})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_coco(tmp_path / "coco", train=14, val=5)


# Opening


def test_open__gives_both_splits_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = datamodule.open_split

    def spy(*arguments: Any, **settings: Any) -> Any:
        opened.append(settings["role"])
        return original(*arguments, **settings)

    monkeypatch.setattr(datamodule, "open_split", spy)
    data = data_of(root)
    data.open()
    data.open()
    data.setup("fit")
    assert opened == ["train", "val"]
    assert (len(data.train), len(data.val)) == (14, 5)
    assert data.classes.names == ("square", "disc", "bar")
    assert {"train", "val"} <= set(data.findings)


def test_open__validation_alone_needs_no_training_split(root: Path) -> None:
    (root / "annotations" / "instances_train.json").unlink()
    data = data_of(root)
    data.setup("validate")
    assert len(data.val) == 5
    assert data.classes == data.val.classes


def test_open__what_was_chosen_is_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data_of(root).open()
    assert "train: train (coco)" in caplog.text
    assert "14 images" in caplog.text
    assert "3 classes" in caplog.text


def change_categories(root: Path, categories: list[dict[str, Any]]) -> None:
    path = root / "annotations" / "instances_val.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "categories": categories}))


def test_open__validation_labels_follow_the_training_classes(root: Path) -> None:
    before = data_of(root)
    before.open()
    # The same names under other ids: sorted by id, the order of the file is turned around.
    path = root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    new_ids = {3: 300, 7: 200, 11: 100}
    for annotation in content["annotations"]:
        annotation["category_id"] = new_ids[annotation["category_id"]]
    content["categories"] = [
        {"id": new_ids[old], "name": name} for old, name in ((3, "square"), (7, "disc"), (11, "bar"))
    ]
    path.write_text(json.dumps(content))
    after = data_of(root)
    after.open()
    np.testing.assert_array_equal(after.val.labels, before.val.labels)
    assert after.val.classes == after.train.classes


def test_align_classes__names_the_difference(root: Path) -> None:
    val = open_split(root, role="val").annotations
    with pytest.raises(InputError, match=r"not trained: disc, bar; trained but not in it: Disc"):
        align_classes(val, ClassMap(("square", "Disc"), (1, 2)))
    fewer = replace(val, classes=ClassMap(("square", "disc", "bar"), (3, 7, 11)))
    wider = align_classes(fewer, ClassMap(("bar", "new", "disc", "square"), (1, 2, 3, 4)))
    assert [fewer.classes.name(int(a)) for a in fewer.labels] == [
        wider.classes.name(int(b)) for b in wider.labels
    ]


# Loaders without a trainer


def test_train_dataloader__one_epoch(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(root)
    data.setup("fit")
    with caplog.at_level(logging.INFO):
        batches = list(data.train_dataloader())
    assert [len(batch.images) for batch in batches] == [4, 4, 4]
    assert batches[0].images.shape == (4, 3, 32, 40)
    assert (
        "4 images per step = 4 per device x 1 device(s) x 1 forward pass(es); 3 steps per epoch"
        in caplog.text
    )
    assert "2 images of each epoch" in caplog.text


def test_val_dataloader__each_image_once_and_whole(root: Path) -> None:
    data = data_of(root)
    data.setup("fit")
    batches = list(data.val_dataloader())
    assert torch.cat([batch.sample_idx for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(batches[0].images, next(iter(data.val_dataloader())).images)


def test_loaders__cache_changes_nothing_and_stays_in_its_bound(root: Path) -> None:
    plain, cached = data_of(root), data_of(root, cache="disk", cache_gb=16 * 160 * 120 * 3 / 1e9)
    for data in (plain, cached):
        data.setup("fit")
    for name in ("train_dataloader", "val_dataloader"):
        loaders = [getattr(data, name)() for data in (plain, cached)]
        for _ in range(2):
            for batch, other in zip(*loaders, strict=True):
                assert torch.equal(batch.images, other.images)
                assert torch.equal(batch.target.boxes, other.target.boxes)
    caches = {role: cache.num_cached for role, cache in cached._caches.items() if cache is not None}
    assert caches == {"train": 14, "val": 1}  # training first, then what is left


def test_loaders__a_cache_that_training_fills__validation_goes_without(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = 160 * 120 * 3
    data = data_of(root, cache="disk", cache_gb=(3.5 * image + 14) / 1e9)
    data.setup("fit")
    assert data.train_dataloader().dataset.cache is not None
    assert data.val_dataloader().dataset.cache is None
    assert "cache of val in disk: 0 of 5 images" in caplog.text
    too_small = data_of(root, cache="disk", cache_gb=image / 2 / 1e9)
    too_small.setup("fit")
    with pytest.raises(InputError, match="not one image fits"):
        too_small.train_dataloader()


def test_loaders__a_cache_is_opened_once(root: Path) -> None:
    data = data_of(root, cache="disk")
    data.setup("fit")
    first = data.val_dataloader().dataset.cache
    assert first is not None
    assert data.val_dataloader().dataset.cache is first


def test_loaders__no_augmentation_is_no_augmentation(root: Path) -> None:
    data = data_of(root, augmentations=[])
    data.setup("fit")
    loader = data.train_dataloader()
    first, second = list(loader), list(loader)
    assert torch.equal(first[0].images, second[0].images)
    order = torch.cat([batch.sample_idx for batch in first])
    whole = {
        int(row): image for batch in first for row, image in zip(batch.sample_idx, batch.images, strict=True)
    }
    assert len(whole) == len(order) == 12


@pytest.mark.parametrize(
    ("cores", "ranks", "workers"), [(1, 1, 0), (2, 1, 1), (2, 2, 0), (16, 1, 8), (16, 4, 3), (4, 8, 0)]
)
def test_choose_workers__never_more_than_the_cores(cores: int, ranks: int, workers: int) -> None:
    assert choose_workers(cores, ranks) == workers
    assert ranks * (workers + 1) <= max(cores, ranks)


# Under Lightning


class Recorder(L.LightningModule):
    """Learns nothing; remembers which images came."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, ...]] = []
        self.validated: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append(tuple(batch.sample_idx.tolist()))
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated += batch.sample_idx.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class StopAfter(L.Callback):
    """Saves at the end of an optimizer step and kills the run there."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise RuntimeError("killed")


def trainer_of(callbacks: list[L.Callback] | None = None, **settings: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=callbacks,
        **settings,
    )


THIRD_PARTY = [
    "ignore:The '.*' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.`",
    "ignore:.*srun.*",
]


@pytest.mark.parametrize("step", [1, 3, 4, 6, 8])
@pytest.mark.parametrize("batch_size", [4, 2])
@pytest.mark.filterwarnings(*THIRD_PARTY)
def test_resume__continues_with_the_next_batch(
    root: Path, tmp_path: Path, step: int, batch_size: int
) -> None:
    def settings() -> DetectionData:
        return data_of(root, batch_size=batch_size)

    straight = Recorder()
    trainer_of().fit(straight, settings())
    stopped, resumed = Recorder(), Recorder()
    with pytest.raises(RuntimeError, match="killed"):
        trainer_of([StopAfter(step, tmp_path / "last.ckpt")]).fit(stopped, settings())
    trainer_of().fit(resumed, settings(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert stopped.seen + resumed.seen == straight.seen
    assert len(straight.seen) == 9 * 4 // batch_size


@pytest.mark.filterwarnings(*THIRD_PARTY)
def test_fit__accumulation_follows_from_the_batch_size(root: Path) -> None:
    module, trainer = Recorder(), trainer_of()
    trainer.fit(module, data_of(root, batch_size=2))
    assert trainer.accumulate_grad_batches == 2
    assert trainer.global_step == 9  # 3 epochs of 14 // 4
    alone = Recorder()
    trainer_of().fit(alone, data_of(root))
    assert [a + b for a, b in zip(module.seen[::2], module.seen[1::2], strict=True)] == alone.seen


class WritingRecorder(Recorder):
    """Writes what it saw, for the process that started it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self) -> None:
        content = {"seen": self.seen, "validated": self.validated}
        (self.folder / f"rank{self.global_rank}.json").write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.filterwarnings(*THIRD_PARTY, "ignore:.*fork.*", "ignore:.*zero length.*", "ignore:.*zero")
@pytest.mark.parametrize("val_images", [1, 2, 5])
def test_fit__two_processes_share_the_batches_of_one(tmp_path: Path, val_images: int) -> None:
    root = make_coco(tmp_path / "coco", train=14, val=val_images)
    alone = Recorder()
    trainer_of().fit(alone, data_of(root))
    # Validation has a different number of batches on each rank, so the ranks must not talk in its forward.
    # Not forked from here: autograd refuses that where a backward pass has run, as in other tests.
    strategy = DDPStrategy(start_method="forkserver", broadcast_buffers=False)
    trainer_of(devices=2, strategy=strategy).fit(WritingRecorder(tmp_path), data_of(root))
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    together = [(*a, *b) for a, b in zip(ranks[0]["seen"], ranks[1]["seen"], strict=True)]
    assert together == alone.seen
    assert sorted(ranks[0]["validated"] + ranks[1]["validated"]) == sorted(alone.validated)
    assert set(ranks[0]["validated"]).isdisjoint(ranks[1]["validated"])


# Repeats


def test_train_dataloader__repeat_threshold__keeps_the_length_and_says_what_it_does(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, repeating = data_of(root), data_of(root, repeat_threshold=1.0)
    for data in (plain, repeating):
        data.open()
    with caplog.at_level(logging.INFO):
        loader = repeating.train_dataloader()
    assert "repeat_threshold: " in caplog.text
    assert len(loader) == len(plain.train_dataloader())
    assert loader.batch_sampler.repeats is not None
    assert loader.batch_sampler.repeats.max() > 1
    assert {len(batch.images) for batch in loader} == {4}


def test_train_dataloader__repeat_threshold_of_nothing__refused(root: Path) -> None:
    data = data_of(root, repeat_threshold=0.0)
    data.open()
    with pytest.raises(InputError, match=r"data.repeat_threshold 0\.0: a share of the images"):
        data.train_dataloader()


def page_faults_of_a_worker() -> int:
    """Of arrays of 64 MiB taken and freed again and again, once the heap has room for one."""
    start_worker(0)
    for _ in range(8):
        np.ones(2**26, dtype=np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(2**26, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is not here")
def test_start_worker__memory_of_an_image_is_used_for_the_next() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(page_faults_of_a_worker) < 64  # 128 and more where it is given back


def test_open__validated_on_the_training_split__a_warning(tmp_path: Path) -> None:
    data = DetectionData(root=make_coco(tmp_path, train=4, val=2), val_split="train", workers=0)
    data.open()
    (warning,) = [finding for finding in data.findings["both"] if finding.severity == "warning"]
    assert warning.code == "split-trained-on"
    assert "what is scored was trained on" in str(warning)
