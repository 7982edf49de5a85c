import json
import subprocess
from dataclasses import replace
from pathlib import Path

import torch

from detect.data.datamodule import DetectionData
from detect.manifest import append_manifest, commit_of, describe_split, make_manifest


def test_a_manifest_says_how_to_repeat_the_run(coco_root: Path) -> None:
    data = DetectionData(root=coco_root)
    data.open()
    manifest = make_manifest(args=["--config", "a.yaml"], seed=3, data={"train": describe_split(data.train)})
    assert manifest["command"] == ["detect", "fit", "--config", "a.yaml"]
    assert manifest["seed"] == 3
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["machine"]["cores"] >= 1
    assert json.loads(json.dumps(manifest)) == manifest


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


def test_the_commit_is_that_of_the_folder(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "1"], check=True)
    commit = commit_of(tmp_path)
    assert commit is not None
    assert len(commit["hash"]) == 40
    assert not commit["modified"]
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path) == commit | {"modified": True}


def test_a_resumed_run_keeps_the_first_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(append_manifest(path, {"seed": 0, "command": "first"}))
    path.write_text(append_manifest(path, {"seed": 0, "command": "second"}))
    path.write_text(append_manifest(path, {"seed": 0, "command": "third"}))
    manifest = json.loads(path.read_text())
    assert manifest["command"] == "first"
    assert [later["command"] for later in manifest["continued"]] == ["second", "third"]
