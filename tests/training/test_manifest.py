import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from detect.data.datamodule import DetectionData
from detect.training.manifest import (
    MOST_DIFF_CHARACTERS,
    append_manifest,
    changes_of,
    commit_of,
    describe_split,
    hash_code,
    hash_files,
    hash_weights,
    make_manifest,
)


def test_a_manifest_says_how_to_repeat_the_run(coco_root: Path) -> None:
    data = DetectionData(root=coco_root)
    data.open()
    config = {"seed_everything": 3, "model": {"image_size": [64, 64]}}
    described = {"train": describe_split(data.train)}
    manifest = make_manifest(
        args=["--config", "a.yaml"], config=config, data=described, device="cpu", processes=2
    )
    assert manifest["command"] == ["detect", "fit", "--config", "a.yaml"]
    assert manifest["seed"] == 3
    assert manifest["config"] == config
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["machine"]["cores"] >= 1
    assert manifest["runs_on"] == {"device": "cpu", "processes": 2, "threads": torch.get_num_threads()}
    assert json.loads(json.dumps(manifest)) == manifest


def test_hash_files__follows_the_pixels_and_not_the_annotations(coco_root: Path) -> None:
    data = DetectionData(root=coco_root)
    data.open()
    before = hash_files(data.train)
    assert hash_files(replace(data.train, boxes=data.train.boxes + 1)) == before
    picture = data.train.path(0)
    Image.new("RGB", (160, 120), (1, 2, 3)).save(picture)
    assert hash_files(data.train) != before


def test_hash_weights__every_bit_name_and_shape_counts() -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}
    known = hash_weights(weights)
    assert hash_weights(dict(reversed(weights.items()))) == known
    next_float = torch.nextafter(weights["a"], torch.tensor(10.0))
    for changed in (
        {**weights, "a": next_float},
        {**weights, "a": weights["a"].T},
        {**weights, "steps": torch.tensor(7.0)},
        {"b": weights["a"], "steps": weights["steps"]},
    ):
        assert hash_weights(changed) != known


def test_hash_code__equal_for_equal_code_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "x.py").write_text("x = 1\n")
        (tmp_path / name / "note.txt").write_text(name)
    assert hash_code(tmp_path / "a") == hash_code(tmp_path / "b")
    (tmp_path / "b" / "inner" / "x.py").write_text("x = 2\n")
    assert hash_code(tmp_path / "a") != hash_code(tmp_path / "b")


def test_the_hash_follows_what_the_files_say_and_not_where_they_lie(coco_root: Path) -> None:
    data = DetectionData(root=coco_root)
    data.open()
    train = data.train
    described = describe_split(train)
    assert described["images"] == len(train)
    assert described["boxes"] == len(train.boxes)
    assert describe_split(replace(train, root=Path("elsewhere"))) == described
    for changed in (
        replace(train, boxes=train.boxes + 1),
        replace(train, labels=train.labels % 3 + 1),
        replace(train, ignore=~train.ignore),
        replace(train, classes=replace(train.classes, names=("a", "b", "c"))),
    ):
        assert describe_split(changed)["sha256"] != described["sha256"]


def test_without_git_the_commit_is_what_the_image_was_built_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECT_COMMIT", "0f" * 20)
    assert commit_of(tmp_path) == {"hash": "0f" * 20, "modified": False}
    monkeypatch.setenv("DETECT_COMMIT", "0f" * 20 + "-dirty")
    assert commit_of(tmp_path) == {"hash": "0f" * 20, "modified": True}
    monkeypatch.setenv("DETECT_COMMIT", "")  # an image built without the argument
    assert commit_of(tmp_path) is None


def test_the_commit_is_that_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETECT_COMMIT", raising=False)
    assert commit_of(tmp_path) is None
    assert changes_of(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "1"], check=True)
    commit = commit_of(tmp_path)
    assert commit is not None
    assert len(commit["hash"]) == 40
    assert not commit["modified"]
    unchanged = changes_of(tmp_path)
    assert unchanged is not None
    assert (unchanged["diff"], unchanged["untracked"]) == ("", [])
    (tmp_path / "file").write_text("2")
    (tmp_path / "new").write_text("3")
    assert commit_of(tmp_path) == commit | {"modified": True}
    changes = changes_of(tmp_path)
    assert changes is not None
    assert changes["diff"].splitlines()[-4:-2] == ["-1", "\\ No newline at end of file"]
    assert changes["untracked"] == ["new"]
    (tmp_path / "file").write_text("x" * MOST_DIFF_CHARACTERS)
    long = changes_of(tmp_path)
    assert long is not None
    assert long["diff"] is None
    assert long["diff_sha256"] != changes["diff_sha256"]


def test_a_resumed_run_keeps_the_first_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(append_manifest(path, {"seed": 0, "command": "first"}))
    path.write_text(append_manifest(path, {"seed": 0, "command": "second"}))
    path.write_text(append_manifest(path, {"seed": 0, "command": "third"}))
    manifest = json.loads(path.read_text())
    assert manifest["command"] == "first"
    assert [later["command"] for later in manifest["continued"]] == ["second", "third"]
