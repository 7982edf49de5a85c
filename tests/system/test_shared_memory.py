import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.system import shared_memory
from detect.system.shared_memory import MIB, batch_bytes, bytes_in_flight, require_shared_memory
from tests.conftest import make_coco

Usage = namedtuple("Usage", "total used free")


def shared_memory_of(monkeypatch: pytest.MonkeyPatch, folder: Path, *, total: int, free: int) -> None:
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, total - free, free))


def test_a_batch_weighs_its_tensors(tmp_path: Path) -> None:
    data = DetectionData(
        make_coco(tmp_path / "coco"), total_batch_size=4, workers=0, image_size=(32, 40), check_images=False
    )
    data.open()
    batch = next(iter(data.train_dataloader()))
    tensors = [batch.images, *batch.target, batch.sample_idx, batch.orig_size]
    assert batch_bytes(4, (32, 40), boxes=8) == sum(t.numel() * t.element_size() for t in tensors)


def test_every_worker_holds_its_batches_and_the_trainer_one() -> None:
    assert bytes_in_flight(10, workers=4, prefetch=2) == 90
    assert bytes_in_flight(10, workers=0, prefetch=2) == 0


def test_too_little_is_refused_with_the_size_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared_memory_of(monkeypatch, tmp_path, total=64 * MIB, free=60 * MIB)
    require_shared_memory(60 * MIB, workers=4, prefetch=2)
    message = (
        "60 MiB free, the batches that 4 workers per device prepare 2 ahead need 61 MiB: .*--shm-size=65m"
    )
    with pytest.raises(InputError, match=message):
        require_shared_memory(60 * MIB + 1, workers=4, prefetch=2)


def test_the_training_loader_asks_before_its_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_coco(tmp_path / "coco")

    def data_with(workers: int) -> DetectionData:
        data = DetectionData(root, total_batch_size=4, workers=workers, check_images=False)
        data.open()
        return data

    shared_memory_of(monkeypatch, tmp_path, total=2 * MIB, free=2 * MIB)
    data_with(0).train_dataloader()
    # Training and validation alike: 4 images of 320 x 320 x 3, 3 times: 3.52 MiB each.
    with pytest.raises(InputError, match="that 1 workers per device prepare 2 ahead need 8 MiB"):
        data_with(1).train_dataloader()


def test_a_system_without_it_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path / "nowhere")
    require_shared_memory(10**18, workers=1, prefetch=1)
