from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from detect.data import cache as cache_module
from detect.data.annotations import Annotations
from detect.data.augment.transforms import default_augmentations
from detect.data.cache import GB, CachePlace, PixelCache
from detect.data.dataset import DetectionDataset, SampleKey
from detect.data.splits import open_split
from detect.errors import InputError

IMAGE_BYTES = 160 * 120 * 3


@pytest.fixture
def annotations(coco_root: Path) -> Annotations:
    return open_split(coco_root, role="train").annotations


@pytest.fixture(autouse=True)
def own_ram_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(cache_module, "RAM_FOLDER", folder)


def dataset_of(annotations: Annotations) -> DetectionDataset:
    return DetectionDataset(annotations, (32, 40), augmentations=default_augmentations(), seed=3)


def open_cache(annotations: Annotations, place: CachePlace = "disk", limit_gb: float = 1.0) -> PixelCache:
    scales = np.ones(len(annotations), dtype=np.int64)
    return PixelCache(annotations, scales, place=place, limit_gb=limit_gb)


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.pixels"))


@pytest.mark.parametrize("place", ["ram", "disk"])
@pytest.mark.parametrize("images_that_fit", [2, 4])
def test_cache__pixels_are_the_same_with_and_without(
    annotations: Annotations, place: CachePlace, images_that_fit: int
) -> None:
    plain, cached = dataset_of(annotations), dataset_of(annotations)
    cached.cache = open_cache(annotations, place, (images_that_fit * IMAGE_BYTES + 100) / GB)
    assert cached.cache.num_cached == images_that_fit
    for epoch in range(3):
        for row in range(4):
            key = SampleKey(epoch, row, 8)
            for ours, theirs in zip(cached[key], plain[key], strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert [cached.cache.get(row) is not None for row in range(4)] == [
        row < images_that_fit for row in range(4)
    ]


def test_cache__is_read_instead_of_the_file(annotations: Annotations) -> None:
    cached = dataset_of(annotations)
    cached.cache = open_cache(annotations)
    first = cached[SampleKey(0, 1, 8)]
    annotations.path(1).unlink()
    np.testing.assert_array_equal(cached[SampleKey(0, 1, 8)].image, first.image)


def test_cache__on_disk_serves_the_next_run(annotations: Annotations, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    first = open_cache(annotations)
    first.put(2, pixels)
    first.close()
    second = open_cache(annotations)
    found = second.get(2)
    assert found is not None
    np.testing.assert_array_equal(found, pixels)
    assert second.get(1) is None
    assert len(files(tmp_path / "cache")) == 1


def test_cache__in_ram_goes_with_its_last_user(annotations: Annotations, tmp_path: Path) -> None:
    first, second = open_cache(annotations, "ram"), open_cache(annotations, "ram")
    first.put(0, np.full((120, 160, 3), 7, dtype=np.uint8))
    shared = second.get(0)
    assert shared is not None
    assert (shared == 7).all()
    first.close()
    assert len(files(tmp_path / "shm")) == 1
    second.close()
    assert files(tmp_path / "shm") == []


def test_cache__in_ram_clears_what_a_killed_run_left(annotations: Annotations, tmp_path: Path) -> None:
    folder = tmp_path / "shm" / f"detect-{os.getuid()}"
    folder.mkdir()
    (folder / "left.pixels").write_bytes(b"x" * 100)
    open_cache(annotations, "ram")
    assert [path.name for path in files(folder)] != ["left.pixels"]
    assert len(files(folder)) == 1


def test_cache__on_disk_stays_within_its_bound(annotations: Annotations, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "pixels"
    folder.mkdir(parents=True)
    for name, age in (("old", 200), ("young", 100)):
        (folder / f"{name}.pixels").write_bytes(bytes(3 * IMAGE_BYTES))
        os.utime(folder / f"{name}.pixels", (1e9 - age, 1e9 - age))
    open_cache(annotations, limit_gb=4 * IMAGE_BYTES / GB)
    assert {path.name for path in files(folder)} >= {"young.pixels"}
    assert not (folder / "old.pixels").exists()


def test_cache__another_run_removes_the_same_leftovers(
    annotations: Annotations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shm" / f"detect-{os.getuid()}"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.pixels").write_bytes(b"x" * 100)
    open_file = os.open

    def open_late(path: Path, *arguments: int) -> int:
        (folder / "b.pixels").unlink(missing_ok=True)  # what the other run does in between
        return open_file(path, *arguments)

    monkeypatch.setattr(os, "open", open_late)
    open_cache(annotations, "ram")
    assert len(files(folder)) == 1


@pytest.mark.parametrize("change", ["file", "scale"])
def test_cache__another_file_or_scale_is_another_cache(annotations: Annotations, change: str) -> None:
    first = open_cache(annotations)
    first.put(0, np.zeros((120, 160, 3), dtype=np.uint8))
    scales = np.ones(4, dtype=np.int64)
    if change == "file":
        os.utime(annotations.path(3), (1, 1))
    else:
        scales[3] = 2
    other = PixelCache(annotations, scales, place="disk", limit_gb=1)
    assert other.get(0) is None


def test_cache__pixels_of_another_size_are_not_kept(annotations: Annotations) -> None:
    ours = open_cache(annotations)
    ours.put(0, np.zeros((60, 80, 3), dtype=np.uint8))
    assert ours.get(0) is None


def fill(annotations: Annotations, scales: np.ndarray, start: multiprocessing.synchronize.Barrier) -> None:
    dataset = dataset_of(annotations)
    start.wait()
    dataset.cache = PixelCache(annotations, scales, place="disk", limit_gb=1)
    for epoch in range(5):
        for row in range(4):
            dataset[SampleKey(epoch, row, 8)]


def test_cache__two_runs_fill_it_at_once(annotations: Annotations) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    scales = np.ones(4, dtype=np.int64)
    runs = [context.Process(target=fill, args=(annotations, scales, start)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=60)
        assert run.exitcode == 0
    filled = open_cache(annotations)
    plain, cached = dataset_of(annotations), dataset_of(annotations)
    cached.cache = filled
    for row in range(4):
        assert filled.get(row) is not None
        key = SampleKey(0, row, 8)
        np.testing.assert_array_equal(cached[key].image, plain[key].image)


def test_cache__travels_to_a_worker_that_is_not_forked(annotations: Annotations) -> None:
    ours = open_cache(annotations)
    theirs = pickle.loads(pickle.dumps(ours))
    theirs.put(1, np.full((120, 160, 3), 9, dtype=np.uint8))
    found = ours.get(1)
    assert found is not None
    assert (found == 9).all()


def test_cache__says_when_nothing_fits(annotations: Annotations) -> None:
    with pytest.raises(
        InputError, match=r"not one image fits .* 1e-06 GB allowed.*--data.cache_gb, or set DETECT_CACHE"
    ):
        open_cache(annotations, limit_gb=1e-6)
    with pytest.raises(InputError, match=r"use --data.cache disk, or give the container --shm-size=1g"):
        open_cache(annotations, "ram", limit_gb=1e-6)


def test_cache__says_when_space_cannot_be_reserved(
    annotations: Annotations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"cannot reserve 0.00023 GB in .*: .*No space left on device"):
        open_cache(annotations)


def test_cache__in_ram_needs_shared_memory(annotations: Annotations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "RAM_FOLDER", Path("/nowhere"))
    with pytest.raises(InputError, match=r"no /nowhere here.*use --data.cache disk"):
        open_cache(annotations, "ram")
