from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.commands.main import main
from detect.data.convert import Format, convert
from detect.data.splits import open_split, recognise
from detect.errors import InputError
from detect.inspection.data_check import check
from detect.inspection.repair import REPAIRED_WITHOUT_A_DROP, repair
from tests.commands.test_data import BOX, museum, state
from tests.data_sets import coco_file, make_coco_split, make_voc


def test_repair__one_of_each_fault__the_copy_has_none_and_the_original_is_untouched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = museum(tmp_path / "data")
    before = state(root)
    assert main(["data", "check", str(root), "--fix", "--output", str(tmp_path / "copy")]) == 1
    assert state(root) == before
    copy = check(tmp_path / "copy")
    assert copy.count("error") == 0
    gone = {located.finding.code for located in check(root).findings if located.finding.severity == "error"}
    assert not (gone | set(REPAIRED_WITHOUT_A_DROP)) & set(copy.to_json()["codes"])
    text = capsys.readouterr().out
    for line in (
        "repaired copy in",
        "box-without-area x 1: box dropped",
        "image-missing x 2: image dropped",
        "box-clipped x 1: clipped to the image",
        "box-repeated x 1: dropped, the first is kept",
        "exif-boxes-turned x 1: boxes turned with the image",
        "left for you to decide:",
    ):
        assert line in text


def test_repair__keeps_what_training_saw(tmp_path: Path) -> None:
    root = museum(tmp_path / "data")
    repair(root, tmp_path / "copy", splits=["train"])
    original = check(root).splits["train"]
    copy = open_split(tmp_path / "copy", role="train").annotations
    assert len(copy) == len(original)
    assert len(copy.boxes) == len(original.boxes) - 1  # the repeated one
    seen = {tuple(box) for box in original.clipped_boxes().round(6).tolist()}
    assert {tuple(box) for box in copy.boxes.round(6).tolist()} <= seen
    sizes = (copy.boxes[:, 2:] - copy.boxes[:, :2]).prod(axis=1)
    assert (copy.areas <= sizes + 1e-6).all()


@pytest.mark.parametrize("to", ["coco", "voc", "yolo"])
def test_repair__every_format__stays_that_format(tmp_path: Path, to: Format) -> None:
    objects: list[tuple[int, int, Any]] = [(1, 3, BOX), (1, 3, [4, 6, 0, 10]), (1, 3, [60, 40, 20, 20])]
    root = make_coco_split(tmp_path / "a", coco_file([("a.jpg", 64, 48)], objects, {3: "cat"}))
    convert(root, to, output=tmp_path / "b")
    done = repair(tmp_path / "b", tmp_path / "c")
    assert recognise(tmp_path / "c").NAME == done.format == to
    assert (done.images, done.boxes) == (1, 2)
    assert {code: count for (code, _), count in done.repaired.items()} == {
        "box-clipped": 1,
        "box-without-area": 1,
    }
    found = open_split(tmp_path / "c", role="train").annotations.boxes
    np.testing.assert_allclose(found, [[4, 6, 24, 16], [60, 40, 64, 48]], atol=1e-6)


def test_repair__a_fault_in_two_splits__counted_once(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "a", {"all": {"a": [("cat", (9, 9, 9, 9)), ("cat", (1, 1, 20, 20))]}})
    (root / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    assert repair(root, tmp_path / "b").repaired == {("box-without-area", "box dropped"): 1}


def test_repair__every_picture_cut_off__refused_and_nothing_written(tmp_path: Path) -> None:
    root = make_coco_split(tmp_path / "a", coco_file([("a.jpg", 64, 48)], [(1, 3, BOX)], {3: "cat"}))
    path = root / "train" / "a.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="none of its files can be decoded"):
        repair(root, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fix"], "--fix and --out FOLDER belong together"),
        (["--output", "copy"], "--fix and --out FOLDER belong together"),
        (["--fix", "--output", "data/copy"], "which is only read"),
        (["--fix", "--output", "full"], "is not an empty folder"),
    ],
)
def test_fix__where_it_must_not_write__refused_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    make_coco_split(tmp_path / "data", coco_file([("a.jpg", 64, 48)], [(1, 3, BOX)], {3: "cat"}))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    monkeypatch.chdir(tmp_path)
    before = state(tmp_path)
    assert main(["data", "check", "data", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert state(tmp_path) == before
