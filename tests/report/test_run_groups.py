from __future__ import annotations

import json
from pathlib import Path

import pytest

from detect.report.run_files import read_run
from detect.report.run_groups import (
    RunGroup,
    compare_pairs,
    differing_settings,
    flat_settings,
    group_runs,
    unique_names,
)
from tests.conftest import make_coco
from tests.run_cases import make_run


def groups_of(*folders: Path) -> list[RunGroup]:
    return group_runs([(read_run(folder), None) for folder in folders])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_coco(tmp_path / "coco", val=24)


def test_group_runs__seeds_together_other_settings_apart(tmp_path: Path, root: Path) -> None:
    folders = [tmp_path / name for name in ("a-seed0", "b-seed0", "a-seed1")]
    maps = [
        make_run(folder, root, seed=seed, lr=lr).mAP
        for folder, seed, lr in zip(folders, (0, 0, 1), (0.1, 0.2, 0.1), strict=True)
    ]
    first, second = groups_of(*folders)
    assert (first.name, [run.seed for run in first.runs]) == ("a", [0, 1])
    assert (second.name, len(second.runs)) == ("b-seed0", 1)
    assert first.mean("mAP") == pytest.approx((maps[0] + maps[2]) / 2)
    assert first.spread("mAP") == pytest.approx(abs(maps[0] - maps[2]) / 2**0.5)
    assert second.spread("mAP") is None
    assert differing_settings([first, second]) == {"model.optimizer.init_args.lr": [0.1, 0.2]}


def test_group_runs__without_configuration__each_alone(tmp_path: Path, root: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / name, root)
        (tmp_path / name / "config.yaml").unlink()
    assert [group.name for group in groups_of(tmp_path / "a", tmp_path / "b")] == ["a", "b"]


def test_curve__mean_over_the_seeds_that_reached_the_epoch(tmp_path: Path, root: Path) -> None:
    for seed, rows in ((0, "1,4\n2,2\n"), (1, "1,2\n2,\n")):
        make_run(tmp_path / f"a{seed}", root, seed=seed)
        (tmp_path / f"a{seed}" / "metrics.csv").write_text("epoch,train/loss\n" + rows)
    epochs, values = groups_of(tmp_path / "a0", tmp_path / "a1")[0].curve("train/loss")
    assert epochs.tolist() == [1, 2]
    assert values.tolist() == [3, 2]


def test_flat_settings__seed_and_place_left_out() -> None:
    config = {"seed_everything": 3, "out": "x", "data": {"seed": 3, "root": "d"}, "model": {"a": {}}}
    assert flat_settings(config) == {"data.root": "d", "model.a": {}}


def test_unique_names__alike__parent_folders_tell_them_apart() -> None:
    assert unique_names([[Path("/x/run")], [Path("/y/run")]]) == ["x/run", "y/run"]
    assert unique_names([[Path("/x/v3-seed0"), Path("/x/v3-seed1")], [Path("/x/v2")]]) == ["v3", "v2"]
    assert unique_names([[Path("/x/0"), Path("/x/1")]]) == ["0"]  # nothing would be left
    assert unique_names([[Path("/x")], [Path("/x")]]) == ["/x (1)", "/x (2)"]


def test_compare_pairs__clear_difference_and_none(tmp_path: Path, root: Path) -> None:
    for name, noise_px, lr in (("good", 0.5, 0.1), ("same", 0.5, 0.2), ("bad", 8.0, 0.3)):
        make_run(tmp_path / name, root, noise_px=noise_px, lr=lr)
    good, same, bad = groups_of(*(tmp_path / name for name in ("good", "same", "bad")))
    pairs = {
        (p.first.name, p.second.name): p.difference for p in compare_pairs([good, same, bad], resamples=200)
    }
    assert str(pairs["good", "same"]) == "not distinguishable: +0.000 [+0.000, +0.000]"
    worse = pairs["good", "bad"]
    assert worse is not None
    assert worse.distinguishable
    bad_map, good_map = bad.mean("mAP"), good.mean("mAP")
    assert bad_map is not None
    assert good_map is not None
    assert worse.mAP == pytest.approx(bad_map - good_map, abs=1e-9)
    assert worse.low <= worse.mAP <= worse.high < 0


def test_compare_pairs__other_images_or_no_detections__not_comparable(tmp_path: Path, root: Path) -> None:
    make_run(tmp_path / "a", root, lr=0.1)
    make_run(tmp_path / "b", make_coco(tmp_path / "other", val=5, seed=1), lr=0.2)
    make_run(tmp_path / "c", root, lr=0.3)
    (tmp_path / "c" / "detections.json").unlink()
    pairs = compare_pairs(groups_of(*(tmp_path / name for name in "abc")), resamples=10)
    assert [pair.reason for pair in pairs] == [
        "scored on different images or boxes",
        "c has no detections.json: run detect report on it",
        "c has no detections.json: run detect report on it",
    ]


def test_compare_pairs__split_without_boxes__not_comparable(tmp_path: Path, root: Path) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        make_run(tmp_path / name, root, lr=lr)
        truth = json.loads((tmp_path / name / "ground_truth.json").read_text())
        (tmp_path / name / "ground_truth.json").write_text(json.dumps({**truth, "annotations": []}))
    pairs = compare_pairs(groups_of(tmp_path / "a", tmp_path / "b"), resamples=10)
    assert pairs[0].reason == "the split has no boxes"
