import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.evaluation.evaluator import CocoEvaluator
from detect.training.build import build_module
from detect.training.callbacks.run_checks import (
    FRESH_LOSS_MARGIN,
    RunChecks,
    check_fresh_loss,
    explain_near_zero,
    first_batch,
)
from detect.training.module import DetectionModule
from detect.types import Batch, Detections

BACKBONE = {"class_path": "detect.model.backbones.MobileNetV1", "init_args": {"width": 0.25}}


def module_of(loss: str = "detect.training.losses.MultiBoxLoss", **settings: Any) -> DetectionModule:
    torch.manual_seed(0)
    settings = {"backbone": BACKBONE, "num_classes": 3, "image_size": [128, 128], **settings}
    return build_module({**settings, "loss": {"class_path": loss}})


@pytest.fixture
def data(coco_root: Path) -> DetectionData:
    opened = DetectionData(root=coco_root, total_batch_size=4, workers=0, image_size=(128, 128))
    opened.open()
    return opened


@pytest.fixture
def batch(data: DetectionData) -> Batch:
    return first_batch(data.train_dataloader())


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("detect.training.losses.MultiBoxLoss", math.log(3 + 1)),
        # Background anchors, nearly all: ln(1 + 3 * 0.01 / 0.99) = 0.030
        ("detect.training.losses.FocalLoss", 0.030),
    ],
)
def test_a_fresh_head_has_the_loss_of_its_biases(loss: str, expected: float, batch: Batch) -> None:
    module = module_of(loss)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert abs(check_fresh_loss(module, batch) - expected) < FRESH_LOSS_MARGIN
    assert all(value.equal(before[key]) for key, value in module.state_dict().items())


def test_a_head_that_is_not_fresh_is_found(batch: Batch) -> None:
    module = module_of()
    for head in module.net.cls_heads:
        torch.nn.init.normal_(head.predictor.weight, std=1.0)  # type: ignore[union-attr, arg-type]
    with pytest.raises(
        InputError, match=r"class loss is .*, where 3 classes and an untrained head give 1\.386"
    ):
        check_fresh_loss(module, batch)


def test_a_broken_environment_stops_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> None:
        raise RuntimeError("backend 'faster' gives mAP 0.1")

    monkeypatch.setattr("detect.training.callbacks.run_checks.self_test", broken)
    trainer = SimpleNamespace(global_step=0, is_global_zero=True)
    with pytest.raises(InputError, match="backend 'faster' gives mAP"):
        RunChecks(tmp_path).on_train_start(trainer, module_of())  # type: ignore[arg-type]


def validated(data: DetectionData, boxes_of: Any) -> tuple[Any, DetectionModule]:
    """A trainer and a module after a validation whose detections are `boxes_of` the ground truth."""
    module = module_of()
    evaluator = CocoEvaluator(data.val)
    for row in range(len(data.val)):
        own = data.val.rows(row)
        boxes = torch.from_numpy(boxes_of(data.val.boxes[own])).float()[None]
        labels = torch.from_numpy(data.val.labels[own])[None]
        evaluator.update(torch.tensor([row]), Detections(boxes, torch.full(labels.shape, 0.9), labels))
    evaluator.gather()
    module.evaluator, module.metrics = evaluator, evaluator.compute()
    return SimpleNamespace(datamodule=data, current_epoch=6, is_global_zero=True), module


def test_a_mix_up_is_named_as_the_cause_of_a_zero(data: DetectionData, tmp_path: Path) -> None:
    trainer, module = validated(data, lambda boxes: boxes / [160, 120, 160, 120])
    assert module.metrics.mAP < 0.01
    RunChecks(tmp_path).on_validation_end(trainer, module)
    text = (tmp_path / "diagnosis.txt").read_text()
    assert "after 7 epochs; the likely cause is box scale" in text


def test_a_detector_that_learnt_nothing_is_told_from_a_mix_up(data: DetectionData) -> None:
    rng = np.random.default_rng(0)
    trainer, module = validated(data, lambda boxes: rng.uniform(0, 5, boxes.shape).cumsum(axis=1))
    assert "nothing is mixed up" in explain_near_zero(trainer, module)


def test_nothing_is_explained_where_nothing_is_wrong(data: DetectionData, tmp_path: Path) -> None:
    trainer, module = validated(data, lambda boxes: boxes)
    RunChecks(tmp_path).on_validation_end(trainer, module)
    early, module = validated(data, lambda boxes: boxes[:, [1, 0, 3, 2]])
    early.current_epoch = 1
    RunChecks(tmp_path).on_validation_end(early, module)
    assert not list(tmp_path.glob("diagnosis.txt"))


class Diverging:
    """A trainer whose logged loss at step 10, 20, ... is given."""

    log_every_n_steps = 10
    is_global_zero = True

    def __init__(self) -> None:
        self.global_step = 0
        self.callback_metrics: dict[str, torch.Tensor] = {}
        self.optimizers = [SimpleNamespace(param_groups=[{"lr": 0.05}])]
        self.datamodule = SimpleNamespace(total_batch_size=8)


def said_of(losses: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    trainer, checks, module = Diverging(), RunChecks(tmp_path), module_of()
    module._epoch_sums = torch.tensor([8.0, 4.0, 1.0])  # the first step: a loss of 12 per positive
    with caplog.at_level("INFO"):
        for step, loss in enumerate([12.0, *losses]):
            trainer.global_step = max(1, 10 * step)
            trainer.callback_metrics["train_step/loss"] = torch.tensor(loss)
            checks.on_train_batch_end(trainer, module, None, None, step)  # type: ignore[arg-type]
    return [record.message for record in caplog.records if "the loss is" in record.message]


def test_a_loss_that_explodes_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (said,) = said_of([20.0, 500.0, 712.0, 900.0, 990.0], tmp_path, caplog)
    assert said.startswith("the loss is 712 at step 30, 59 times its first value of 12: training diverges")
    assert "The learning rate, 0.05 now, is too high for batches of 8" in said


def test_one_hard_batch_is_no_explosion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert said_of([20.0, 500.0, 12.0, 500.0, 9.0, 100.0, 110.0], tmp_path, caplog) == []
