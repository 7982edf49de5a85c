"""`detect pretrain` on a tiny folder of classes: its run, its weights, and backbones that take them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from detect.commands import sweep
from detect.commands.main import main
from detect.commands.pretrain import PretrainCLI, pretrain
from detect.commands.reproduce import read_original, values_of_seeds
from detect.commands.sweep_jobs import plan_jobs
from detect.errors import InputError
from detect.model.backbones import MobileNetV2, MobileNetV3
from detect.model.checkpoint import read_checkpoint
from detect.model.classifier import classifier_from_checkpoint
from scripts.figure1 import write_points
from tests.class_folders import make_class_folder
from tests.fit_cases import EndAt, Killed, run_differences

SMALL = {"size": "small", "width": 0.35}
TINY: dict[str, Any] = {
    "task": "classification",
    "model": {
        "backbone": {"class_path": "detect.model.backbones.MobileNetV3", "init_args": SMALL},
        "image_size": [32, 32],
        "mixup_alpha": 0.2,
        "cutmix_alpha": 1.0,
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}},
        "schedule": {
            "class_path": "detect.training.schedules.StepDecay",
            "init_args": {"every_steps": 3, "decay": 0.5},
        },
        "statistics_images": 6,
    },
    "data": {"total_batch_size": 6, "workers": 0, "trivial_augment": True, "licence": "CC0-1.0"},
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "logger": False,
        "callbacks": [
            {"class_path": "detect.training.averaging.AveragedWeights", "init_args": {"decay": 0.9}}
        ],
    },
}
"""12 training images make 2 steps per epoch."""


def words(folder: Path, out: str, *more: str) -> list[str]:
    config = folder / "tiny.yaml"
    if not config.exists():
        config.write_text(yaml.safe_dump(TINY))
        make_class_folder(folder / "set", train=4, val=2)
    return ["--config", str(config), "--data.root", str(folder / "set"), "--out", str(folder / out), *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECT_CACHE", str(folder / "cache"))
        assert pretrain(words(folder, "run")) == 0
    return folder / "run"


def test_the_run_folder_holds_what_a_detectors_does(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["images"] == 6
    assert 0 <= metrics["top1"] <= metrics["top5"] == 1  # 3 classes
    right = sum(row["images"] * row["top1"] for row in metrics["per_class"].values())
    assert right == pytest.approx(6 * metrics["top1"])
    header, *rows = (finished / "metrics.csv").read_text().splitlines()
    assert {"epoch", "train/loss", "val/loss", "val/top1", "val/top5", "lr"} <= set(header.split(","))
    assert len(rows) == 2
    assert rows[0].endswith(",0.01")
    assert rows[1].endswith(",0.005")  # step 3 halves it
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["command"][:2] == ["detect", "pretrain"]
    assert manifest["result"]["metrics"]["top1"] == metrics["top1"]
    assert manifest["result"]["weights"].keys() == {"best", "last"}
    assert "task: classification" in (finished / "config.yaml").read_text()
    page = (finished / "report.html").read_text()
    assert "top1" in page
    assert "mobilenet_v3_small, width 0.35, input 32x32" in page


def test_the_best_checkpoint_scores_as_the_run_says(finished: Path) -> None:
    checkpoint = read_checkpoint(finished / "checkpoints" / "best.ckpt", task="classification")
    classifier = classifier_from_checkpoint(checkpoint)
    assert classifier.classes is not None
    assert classifier.classes.names == ("blue", "green", "red")
    backbone = load_file(finished / "weights.safetensors")
    ours = classifier.backbone.state_dict()
    assert backbone.keys() == ours.keys()
    assert all(torch.equal(backbone[name], ours[name]) for name in ours)


def test_the_weights_carry_origin_and_licence(finished: Path) -> None:
    with safe_open(finished / "weights.safetensors", "pt") as file:
        said = json.loads(file.metadata()["detect_backbone"])
    assert said["name"] == "mobilenet_v3_small"
    assert said["origin"]["licence"] == "CC0-1.0"
    assert said["origin"]["trained on"] == "12 images of 3 classes in set"
    backbone = MobileNetV3(**SMALL, weights=str(finished / "weights.safetensors"))
    assert backbone.weights_origin is not None
    assert backbone.weights_origin["licence"] == "CC0-1.0"
    assert backbone.weights_origin["weights"] == "run/weights.safetensors"
    assert len(backbone.weights_origin["sha256"]) == 64
    assert {row.action for row in backbone.transfer_report} == {"copied"}
    weights = load_file(finished / "weights.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in backbone.state_dict().items())


def test_other_networks_slice_or_refuse_the_weights(finished: Path, tmp_path: Path) -> None:
    path = finished / "weights.safetensors"
    reduced = MobileNetV3(**SMALL, reduced_tail=True, weights=str(path))
    assert {row.action for row in reduced.transfer_report} == {"copied", "sliced"}
    with pytest.raises(InputError, match="is of a mobilenet_v3_small, this backbone is a mobilenet_v3_large"):
        MobileNetV3("large", width=0.35, weights=str(path))
    with pytest.raises(InputError, match="another family"):
        MobileNetV2(width=0.35, weights=str(path))
    save_file(load_file(path), tmp_path / "broken.safetensors", {"detect_backbone": "{}"})
    with pytest.raises(InputError, match="it lacks mean, name"):
        MobileNetV3(**SMALL, weights=str(tmp_path / "broken.safetensors"))


def test_a_killed_run_ends_as_a_straight_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, again = finished.parent, finished.parent / "killed"
    args = words(folder, "killed", "--checkpoint_minutes", "0")
    own = PretrainCLI._callbacks
    with monkeypatch.context() as patch:
        patch.setattr(PretrainCLI, "_callbacks", lambda self: [*own(self), EndAt("batch_end", 3)])
        with pytest.raises(Killed):
            pretrain(args)
    assert pretrain(["--out", str(again), "--ckpt_path", "last"]) == 0
    assert run_differences(finished, again) == []
    weights = [(run / "weights.safetensors") for run in (finished, again)]
    first, second = (load_file(path) for path in weights)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_reproduce__bit_identical(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = finished.parent / "reproduced"
    assert main(["reproduce", str(finished), "--out", str(again)]) == 0
    said = capsys.readouterr().out
    assert ", images of 2 splits, " in said
    assert "nothing differs" in said
    assert "REPRODUCED: the weights of best.ckpt and last.ckpt are bit-identical" in said
    assert json.loads((again / "manifest.json").read_text())["command"][:2] == ["detect", "reproduce"]


def test_reproduce__other_images__judged_by_top1(finished: Path, tmp_path: Path) -> None:
    make_class_folder(tmp_path / "other", train=4, val=2, seed=1)
    verdict = tmp_path / "verdict.json"
    command = ["reproduce", str(finished), "--out", str(tmp_path / "again"), "--json", str(verdict)]
    assert main([*command, "--data.root", str(tmp_path / "other")]) in (0, 1)
    content = json.loads(verdict.read_text())
    assert "data.train.files_sha256" in content["differs"]
    assert list(content["metrics"]) == ["top1", "top5"]
    assert "top1 lies " in content["reason"]
    assert values_of_seeds(read_original(finished), []) == [content["metrics"]["top1"]["original"]]


def test_a_step_that_is_not_finite_can_be_replayed(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished.parent / "bad"
    assert main(["pretrain", *words(finished.parent, "bad", "--model.optimizer.lr", "1e30")]) == 3
    message = capsys.readouterr().err
    report = json.loads((run / "nan" / "report.json").read_text())
    assert report["task"] == "classification"
    first = report["images"][0]
    assert f"{first['file']} ({first['class']})" in message
    assert Path(first["file"]).parent.name == first["class"]
    assert f"detect replay {run / 'nan'}" in message
    assert main(["replay", str(run / "nan")]) == 1
    assert "batch 1: the first layer that is not finite is" in capsys.readouterr().out


def test_a_checkpoint_is_for_its_task(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = finished / "checkpoints" / "best.ckpt"
    with pytest.raises(InputError, match=r"a classifier of `detect pretrain`, no detector.*weights RUN"):
        read_checkpoint(best)
    assert main(["fit", "--config", str(finished.parent / "tiny.yaml")]) == 2
    assert "is a configuration of `detect pretrain`, not of `detect fit`" in capsys.readouterr().err


def test_runs_are_compared_by_top1_and_multiply_adds(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other, ignore=shutil.ignore_patterns("checkpoints"))
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["model"]["image_size"] = [64, 64]
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    figures = tmp_path / "figures.json"
    runs = [str(finished), str(other)]
    assert main(["compare", *runs, "--out", str(tmp_path / "c"), "--json", str(figures)]) == 0
    one, two = json.loads(figures.read_text())["classifiers"]
    assert one["metrics"]["top1"]["mean"] == two["metrics"]["top1"]["mean"]
    assert one["params"] == two["params"]
    assert {one["name"], two["name"]} == {"run", "other"}
    assert sorted((one["madds"], two["madds"]))[1] > 2 * min(one["madds"], two["madds"])
    assert "| run |" in (tmp_path / "c" / "table.md").read_text()
    assert "model.image_size" in (tmp_path / "c" / "index.html").read_text()
    assert (tmp_path / "c" / "pareto.png").is_file()


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--model.label_smoothing", "1", r"label_smoothing is 1\.0"),
        ("--model.mixup_alpha", "-1", r"mixup_alpha is -1\.0"),
        ("--model.num_classes", "4", "num_classes is 4, but the data has 3 classes"),
        ("--data.total_batch_size", "64", "12 training images do not fill"),
        ("--model.drop", "0.1", "drop"),
    ],
)
def test_values_that_cannot_be_are_refused(
    flag: str, value: str, message: str, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        pretrain(words(finished.parent, "refused", flag, value))
    assert not (finished.parent / "refused").exists()


def test_figure_1__a_configuration_per_point(finished: Path, tmp_path: Path) -> None:
    config = finished.parent / "tiny.yaml"
    files = write_points(config, tmp_path, widths=(0.35, 1.0), sides=(32, 48))
    assert [path.stem for path in files] == [
        "tiny-width0.35-input32",
        "tiny-width1-input32",
        "tiny-width1-input48",
    ]
    point = yaml.safe_load(files[2].read_text())
    assert point["model"].pop("image_size") == [48, 48]
    assert point["model"]["backbone"]["init_args"].pop("width") == 1.0
    assert point["model"]["backbone"]["init_args"].pop("expansions") == "input"
    point["model"]["backbone"]["init_args"]["width"] = 0.35
    point["model"]["image_size"] = [32, 32]
    assert point == TINY
    config = tmp_path / "detector.yaml"
    config.write_text("model: {}\n")
    with pytest.raises(InputError, match="no configuration of `detect pretrain`"):
        write_points(config, tmp_path, widths=(), sides=())


@pytest.mark.slow
def test_a_sweep_trains_and_compares_classifiers(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(command: list[str], log: Path, slot: object) -> SimpleNamespace:
        exit_code = main(command[command.index("detect") + 1 :])
        return SimpleNamespace(poll=lambda: exit_code)

    monkeypatch.setattr(sweep, "launch", launch)
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0)
    files = write_points(finished.parent / "tiny.yaml", tmp_path / "c", widths=(0.35, 0.5), sides=())
    flags = ["--data.root", str(finished.parent / "set"), "--trainer.max_epochs", "1"]
    configs = [str(path) for path in files]
    assert (
        main(["sweep", *configs, *flags, "--model.label_smoothing", "0", "--out", str(tmp_path / "s")]) == 0
    )
    table = (tmp_path / "s" / "comparison" / "table.md").read_text()
    assert "tiny-width0.35-input32-seed0" in table
    assert "tiny-width0.5-input32-seed0" in table
    state = json.loads((tmp_path / "s" / "sweep.json").read_text())["jobs"]
    assert [job["steps"] for job in state.values()] == [{"fit": 0}, {"fit": 0}]
    (tmp_path / "detector.yaml").write_text("model: {}\n")
    jobs = plan_jobs([files[0], tmp_path / "detector.yaml"], [0], tmp_path / "s", [])
    with pytest.raises(InputError, match="name one kind"):
        sweep.sweep(jobs, tmp_path / "s", sweep.SweepOptions([()]))
