"""Peers trained beside ours: one ground truth, one evaluator."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detect.data.datamodule import DetectionData
from detect.data.images.decode import load_pixels
from detect.errors import InputError
from detect.evaluation.evaluator import compute_metrics
from detect.evaluation.results_file import read_detections
from tests.conftest import make_coco
from tests.data_sets import make_voc
from tests.fit_cases import write_config

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "peers_training.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def task(script: dict[str, Any], root: Path, config: Path, **values: Any) -> Any:
    given = {"splits": {}, "epochs": 1, "image_size": 64, "batch": 4, "threads": 1, "out": root / "out"}
    return script["Task"](config=config, root=root, **(given | values))


def test_score__ground_truth_has_a_perfect_score(script: dict[str, Any], tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco", train=4, val=5)
    data = script["open_data"](task(script, root, write_config(tmp_path)))
    rows = iter(range(len(data.val)))

    def find(pixels: np.ndarray) -> Any:
        row = next(rows)
        assert np.array_equal(pixels, load_pixels(data.val.path(row)))
        own = data.val.rows(row)
        boxes, labels = torch.from_numpy(data.val.boxes[own]), torch.from_numpy(data.val.labels[own])
        return script["Found"](boxes, torch.ones(len(boxes)), labels)

    evaluator = script["score"](find, data.val)
    assert evaluator.compute().mAP == pytest.approx(1)
    file = tmp_path / "detections.json"
    file.write_text(json.dumps(evaluator.results()))
    assert compute_metrics(data.val, read_detections(file, data.val)).mAP == pytest.approx(1)


def test_open_data__boxes_as_the_configuration_reads_them(script: dict[str, Any], tmp_path: Path) -> None:
    box = [("cat", [10, 10, 30, 40])]
    root = make_voc(tmp_path / "voc", {"one": {"a": box}, "two": {"b": box}})
    config = tmp_path / "voc.yaml"
    config.write_text("data: {train_split: one, val_split: one, voc_one_based: true}")
    data = script["open_data"](task(script, root, config, splits={"train_split": None, "val_split": "two"}))
    assert data.val.boxes.tolist() == [[9, 9, 30, 40]]
    assert data.val.file_names[0].decode() == "b.jpg"
    assert data.train.file_names[0].decode() == "a.jpg"


def test_yolo_copy__our_boxes_and_the_names_that_peers_expect(script: dict[str, Any], tmp_path: Path) -> None:
    data = DetectionData(make_coco(tmp_path / "coco", train=4, val=2))
    data.open()
    copy = script["yolo_copy"](data, tmp_path)
    again = DetectionData(copy)
    again.open()
    assert again.classes.names == data.classes.names
    for ours, theirs in ((data.train, again.train), (data.val, again.val)):
        assert theirs.labels.tolist() == ours.labels.tolist()
        assert theirs.boxes == pytest.approx(ours.boxes, abs=1e-3)


def test_torchvision_example__without_regions_to_ignore(script: dict[str, Any], tmp_path: Path) -> None:
    data = DetectionData(make_coco(tmp_path / "coco", train=4, val=2))
    data.open()
    image, target = script["torchvision_example"](data.train, 0)
    assert image.shape[0] == 3
    rows = data.train.rows(0)
    assert target["boxes"].tolist() == data.train.boxes[rows].tolist()
    assert target["boxes"].canvas_size == image.shape[1:]
    data.train.ignore[rows] = True
    nothing = script["torchvision_example"](data.train, 0)[1]
    assert nothing["boxes"].shape == (0, 4)
    assert nothing["labels"].shape == (0,)


def test_warm_cosine__from_little_to_nothing(script: dict[str, Any]) -> None:
    rate = script["warm_cosine"]
    assert rate(0, 1000) == pytest.approx(1 / 50)
    assert rate(500, 1000) == pytest.approx(0.5)
    assert rate(999, 1000) < 1e-5


@pytest.mark.parametrize("name", ["ultralytics", "lightly_train"])
def test_a_peer_that_is_not_installed_says_how_it_is(
    name: str, script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"{name} is not installed .*`pip install {name.replace('_', '-')}`"):
        script["train"](name, *[None] * 4)
    assert name not in (SCRIPT.parents[1] / "pyproject.toml").read_text()


def test_an_unknown_peer_is_refused(script: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no peer yolox; there are torchvision, ultralytics, lightly_train"):
        script["train"]("yolox", *[None] * 4)


@pytest.mark.slow
def test_peers_training__both_are_scored_on_the_same_boxes(tmp_path: Path) -> None:
    root, config = make_coco(tmp_path / "coco", train=16, val=5), write_config(tmp_path)
    words = ["--config", config, "--root", root, "--epochs", 1, "--seeds", 0, "--out", tmp_path / "out"]
    words += ["--json", tmp_path / "figures.json"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["subject"] for row in figures["rows"]] == ["ours", "torchvision"]
    assert figures["task"] | {"image_size": 64, "batch": 4, "epochs": 1} == figures["task"]
    data = DetectionData(root)
    data.open(("val",))
    for row in figures["rows"]:
        assert row["images"] == 5
        assert row["train_cpu_s"] > 0
        file = tmp_path / "out" / f"{row['subject']}-seed0" / "detections.json"
        again = compute_metrics(data.val, read_detections(file, data.val))
        assert again.mAP == pytest.approx(row["mAP"], abs=1e-9)
    assert "torchvision" in done.stdout
