import csv
import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from detect.commands.fit import fit
from detect.system.ranks import max_over_ranks, several_ranks, sum_over_ranks, take_statistics_of_rank_0
from detect.training.module import DetectionModule
from tests.conftest import make_coco
from tests.detector_cases import lively_detector, save_checkpoint
from tests.fit_cases import TINY, fit_args, read_raw, write_config
from tests.processes import run_ranks

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


def test_alone_a_process_hears_itself() -> None:
    values = torch.tensor([1.0, 2.0])
    assert not several_ranks()
    assert sum_over_ranks(values).equal(values)
    assert max_over_ranks(values).equal(values)
    norm = torch.nn.BatchNorm2d(2)
    take_statistics_of_rank_0(norm)
    assert norm.running_mean is not None
    assert norm.running_mean.equal(torch.zeros(2))


def hold_averages(patch: pytest.MonkeyPatch) -> None:
    """BatchNorm's averages stay: the result then does not depend on how a batch is shared out."""
    start_batch = DetectionModule.on_train_batch_start

    def start_batch_with_averages_held(self: DetectionModule, *args: object) -> None:
        for child in self.modules():
            if isinstance(child, nn.BatchNorm2d):
                child.eval()
        start_batch(self, *args)  # type: ignore[arg-type]

    patch.setattr(DetectionModule, "on_train_batch_start", start_batch_with_averages_held)


def hold_averages_for_good() -> None:
    """In a process that trains once."""
    hold_averages(pytest.MonkeyPatch())


def points() -> dict[str, Any]:
    """TINY with a neck, points, ATSS, varifocal loss, sizes that change and a weak epoch at the end."""
    config = deepcopy(TINY)
    config["model"] |= {
        "taps": ["out3", "out4", "out5"],
        "neck": {"class_path": "detect.model.necks.LCPAN", "init_args": {"channels": 16}},
        "anchors": {"style": "points"},
        "loss": {
            "class_path": "detect.training.losses.VarifocalLoss",
            "init_args": {"assigner": "detect.training.assigners.ATSSAssigner"},
        },
        "statistics_images": 6,
    }
    config["data"] |= {"weak_epochs": 1, "multi_scale": [64, 128]}
    return config


def one_and_two(config: Path, data: Path, folder: Path, patch: pytest.MonkeyPatch, *more: str) -> None:
    """Train in FOLDER/on1 on one rank, which is this process, and in FOLDER/on2 on two."""
    with patch.context() as held:
        hold_averages(held)
        assert fit(fit_args(config, data, folder / "on1", *more)) == 0
    run_ranks(["fit", *fit_args(config, data, folder / "on2", *more)], folder, prepare=hold_averages_for_good)


def compare(one: Path, two: Path) -> dict[str, torch.Tensor]:
    """Two runs have the same weights and metrics, up to rounding; the raw weights."""
    read = [read_raw(run) for run in (one, two)]
    for state in ("state_dict", "current_model_state"):  # averaged, with statistics of a validation; raw
        expected, found = (raw[state] for raw in read)
        for key, weights in expected.items():
            torch.testing.assert_close(found[key], weights, rtol=1e-5, atol=1e-5, msg=key)
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (one, two)]
    for row, other in zip(*rows, strict=True):
        for name in ("train/loss", "val/loss", "val/mAP"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-5, abs=1e-9)
    return expected


@pytest.mark.slow
def test_two_ranks_make_the_step_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = write_config(tmp_path), make_coco(tmp_path / "coco", train=16, val=5)
    assert fit(fit_args(config, data, tmp_path / "warm")) == 0
    warm = tmp_path / "warm" / "checkpoints" / "last.ckpt"
    step = ("--model.init_from", str(warm), "--trainer.max_steps", "1", "--trainer.max_epochs", "1")
    one_and_two(config, data, tmp_path, monkeypatch, *step)
    one = compare(tmp_path / "on1", tmp_path / "on2")
    # The sampler does not fill up five images on two ranks; the evaluator refuses doubles and gaps.
    assert json.loads((tmp_path / "on2" / "metrics.json").read_text())["images"] == 5
    start = read_raw(tmp_path / "warm")["state_dict"]
    moved = max((one[key].float() - start[key].float()).abs().max().item() for key in one)
    assert moved > 1e-3


@pytest.mark.slow
def test_two_ranks_train_as_one_with_the_settings_of_plus_and_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of one step, each with a validation, which is rank 0's alone, and its statistics."""
    config = points()
    teacher = save_checkpoint(lively_detector(image_size=[64, 64]), tmp_path / "teacher.ckpt")
    config["model"] = config["model"] | {"teacher": str(teacher)}
    path, data = write_config(tmp_path, config), make_coco(tmp_path / "coco", train=5, val=1)
    one_and_two(path, data, tmp_path, monkeypatch)
    compare(tmp_path / "on1", tmp_path / "on2")
    rows = [list(csv.DictReader((tmp_path / run / "metrics.csv").open()))[-1] for run in ("on1", "on2")]
    for name in ("train/loss_cwd", "train/loss_ld"):
        one, two = (float(row[name]) for row in rows)
        assert one == pytest.approx(two, rel=1e-5)
    assert float(rows[0]["train/loss_cwd"]) > 0


@pytest.mark.slow
def test_a_run_may_go_on_with_other_devices(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, data = write_config(tmp_path), make_coco(tmp_path / "coco", train=16, val=5)
    out = tmp_path / "run"
    assert fit(fit_args(config, data, out, "--trainer.max_epochs", "1")) == 0
    more = ("--out", str(out), "--ckpt_path", "last", "--trainer.max_epochs")
    assert "4 images per step = 2 per device x 2 device(s) x 1" in run_ranks(["fit", *more, "2"], tmp_path)
    caplog.set_level("INFO")
    # It is "ddp" of this process: its group, and where it meets, are not for the tests after this one.
    with patch.dict(os.environ):
        assert fit([*more, "3", "--trainer.devices", "1", "--data.batch_size", "2"]) == 0
    torch.distributed.destroy_process_group()
    assert "4 images per step = 2 per device x 1 device(s) x 2" in caplog.text
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "8"), ("3", "12")]
