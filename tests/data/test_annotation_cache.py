from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from detect.data import annotation_cache, splits
from detect.data.annotation_cache import ARRAYS
from detect.data.splits import OpenedSplit, open_split


def assert_same(opened: OpenedSplit, other: OpenedSplit) -> None:
    for name in ARRAYS:
        ours, theirs = (getattr(o.annotations, name) for o in (opened, other))
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert opened.annotations.classes == other.annotations.classes
    assert opened.annotations.root == other.annotations.root
    assert opened.findings == other.findings


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    reads: list[object] = []
    clean = splits.clean
    monkeypatch.setattr(splits, "clean", lambda raw: (reads.append(raw), clean(raw))[1])
    return reads


def break_one_box(root: Path) -> None:
    """A finding to remember: the first box of the training split loses its area."""
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] = 0
    path.write_text(json.dumps(content))


def test_cache__gives_the_same_without_reading(coco_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_one_box(coco_root)
    reads = count_reads(monkeypatch)
    first = open_split(coco_root, role="train")
    second = open_split(coco_root, role="train")
    assert len(reads) == 1
    assert first.findings
    assert_same(first, second)


def test_cache__arrays_are_mapped_and_read_only(coco_root: Path) -> None:
    open_split(coco_root, role="train")
    boxes = open_split(coco_root, role="train").annotations.boxes
    assert isinstance(boxes.base, np.memmap)
    assert not boxes.flags.writeable


@pytest.mark.parametrize("change", ["json", "new image", "image gone"])
def test_cache__a_change_is_noticed(coco_root: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(monkeypatch)
    before = open_split(coco_root, role="train")
    if change == "json":
        break_one_box(coco_root)
    elif change == "new image":
        (coco_root / "train" / "new.jpg").write_bytes(b"")
    else:
        (coco_root / "train" / "000.jpg").unlink()
    after = open_split(coco_root, role="train")
    assert len(reads) == 2
    assert len(after.annotations) == len(before.annotations) - (change == "image gone")


def test_cache__settings_have_entries_of_their_own(coco_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(monkeypatch)
    plain = open_split(coco_root, role="train")
    other = open_split(coco_root, role="train", box_convention="cxcywh")
    assert len(reads) == 2
    assert not np.array_equal(plain.annotations.boxes, other.annotations.boxes)


def test_cache__a_replaced_entry_leaves_nothing_behind(coco_root: Path, tmp_path: Path) -> None:
    open_split(coco_root, role="train")
    break_one_box(coco_root)
    open_split(coco_root, role="train")
    folders = [path for path in (tmp_path / "cache" / "annotations").iterdir() if path.is_dir()]
    assert len(folders) == 1


@pytest.mark.parametrize("damage", ["array gone", "index cut off"])
def test_cache__a_damaged_entry_is_built_anew(coco_root: Path, tmp_path: Path, damage: str) -> None:
    first = open_split(coco_root, role="train")
    folder = tmp_path / "cache" / "annotations"
    if damage == "array gone":
        next(folder.glob("*/boxes.npy")).unlink()
    else:
        index = next(folder.glob("*.json"))
        index.write_text(index.read_text()[:50])
    assert_same(open_split(coco_root, role="train"), first)


def test_cache__where_it_cannot_be_written_a_warning_says_so(
    coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DETECT_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="parsed annotations are not kept: .*set DETECT_CACHE to a folder"):
        assert len(open_split(coco_root, role="train").annotations) == 4


def test_cache__a_write_that_fails_leaves_nothing(
    coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        open_split(coco_root, role="train")
    assert list((tmp_path / "cache" / "annotations").iterdir()) == []


def open_when_all_are_ready(root: Path, start: multiprocessing.synchronize.Barrier) -> None:
    start.wait()
    assert len(open_split(root, role="train").annotations) == 4


def test_cache__built_by_several_at_once(coco_root: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    runs = [context.Process(target=open_when_all_are_ready, args=(coco_root, start)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=60)
        assert run.exitcode == 0
    assert len(open_split(coco_root, role="train").annotations) == 4


def test_cache_folder__is_the_users_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETECT_CACHE")
    assert annotation_cache.cache_folder() == Path.home() / ".cache" / "detect"
