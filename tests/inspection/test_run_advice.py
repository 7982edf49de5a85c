"""The reasons for a weak run are those that its figures show, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detect.data.datamodule import DetectionData
from detect.evaluation.baseline import constant_detections, with_baseline
from detect.evaluation.evaluator import Baseline, Metrics, compute_metrics
from detect.inspection.anchor_layout import AnchorLayout
from detect.inspection.run_advice import RunFacts, explain_weak, gather_facts, is_weak
from tests.conftest import make_coco

SOUND = RunFacts(
    steps=3000,
    steps_wanted=3000,
    epochs=60,
    best_epoch=40,
    train_losses=[10.0, 4.0, 2.0],
    val_losses=[9.0, 5.0, 4.0],
    rate=0.05,
    warmup_steps=100,
    recall=0.95,
    anchor_flags=None,
    median_px=60.0,
    side=320,
    finest_stride=16,
    images=5000,
    started=True,
    unfound=[],
)


def metrics(mAP: float, baseline: float | None = None) -> Metrics:
    names = ("AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    constant = None if baseline is None else Baseline(baseline, 2 * baseline)
    return Metrics(
        mAP, **dict.fromkeys(names, mAP), per_class={}, images=4, backend="faster", baseline=constant
    )


@pytest.mark.parametrize(
    ("mAP", "baseline", "weak"),
    [(0.22, 0.13, False), (0.19, 0.13, True), (0.045, None, True), (0.045, 0.0, True), (0.3, None, False)],
)
def test_weak_is_near_the_constant_boxes_or_near_zero(mAP: float, baseline: float | None, weak: bool) -> None:
    assert is_weak(metrics(mAP, baseline)) == weak
    assert not is_weak(metrics(-1.0))  # nothing to find


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 480, "epochs": 30}, "480 steps are few, about 3,000 are needed: --trainer.max_epochs 188"),
        ({"best_epoch": 59}, "mAP was still rising: --trainer.max_epochs 120"),
        ({"warmup_steps": 2000}, "--model.schedule.warmup_steps 100"),
        (
            {"train_losses": [10.0, 712.0]},
            "the loss rose from 10 to 712: the learning rate, 0.05, is",
        ),
        ({"train_losses": [10.0, float("nan")]}, "the loss rose from 10 to nan"),
        ({"train_losses": [10.0, 9.0], "rate": 0.0001}, "is low, --model.optimizer.init_args.lr 0.02"),
        ({"train_losses": [10.0, 9.0], "rate": 0.5}, "is high, --model.optimizer.init_args.lr 0.05"),
        ({"train_losses": [10.0, 9.0]}, "try other learning rates"),
        ({"val_losses": [9.0, 3.0, 6.0]}, "the validation loss rose from 3 to 6"),
        ({"recall": 0.5, "anchor_flags": "--a 1"}, "anchors overlap only 50% of the training boxes"),
        ({"median_px": 12.0}, "smaller than 12 px on the input: --model.image_size '[480,480]'"),
        ({"median_px": 12.0, "finest_stride": 8}, "smaller than 12 px on the input"),
        ({"images": 300, "started": False}, "300 images from random weights"),
        ({"images": 40}, "40 training images are few"),
        ({"unfound": ["crow"]}, "no box is found of crow"),
    ],
)
def test_each_reason_by_its_figure(changes: dict[str, Any], said: str) -> None:
    head, *reasons = explain_weak(metrics(0.1, 0.09), SOUND._replace(**changes))
    assert head == "mAP 0.100 is low; constant boxes, without looking, score 0.090. Likely reasons:"
    assert len(reasons) == 1
    assert said in reasons[0]


def test_a_sound_run_has_no_usual_reason() -> None:
    assert "none of the usual reasons" in explain_weak(metrics(0.1), SOUND)[1]


def test_the_facts_of_a_run(tmp_path: Path) -> None:
    data = DetectionData(make_coco(tmp_path / "coco", train=6, val=3))
    data.open()
    settings = {
        "model": {
            "backbone": {"class_path": "detect.model.backbones.MobileNetV3", "init_args": {"weights": None}},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02}},
            "schedule": {"class_path": "x.WarmupCosine", "init_args": {"warmup_steps": 7}},
            "init_from": None,
        }
    }
    rows = [
        {"epoch": "1", "step": "4", "train/loss": "9.5", "val/loss": "8", "val/mAP": "0.01"},
        {"epoch": "2", "step": "8", "train/loss": "7.5", "val/loss": "", "val/mAP": ""},
    ]
    scored = with_baseline(compute_metrics(data.val, constant_detections(data.val, 1)), data.val)
    layout = AnchorLayout.default()
    facts = gather_facts(settings, data, layout, rows=rows, metrics=scored)
    assert facts[:9] == (8, 3000, 2, 1, [9.5, 7.5], [8.0], 0.02, 7, facts.recall)
    assert 0 <= facts.recall <= 1
    assert (facts.side, facts.images, facts.started) == (320, 6, False)
    assert 40 < facts.median_px < 110  # of 24 to 48 px in files of 160 x 120
    other = {
        "model": settings["model"] | {"init_from": "a.ckpt", "optimizer": {"class_path": "torch.optim.AdamW"}}
    }
    started = gather_facts(other, data, layout, rows=rows, metrics=scored)
    plain = {
        **settings,
        "model": {**settings["model"], "optimizer": "detect.training.module.default_optimizer"},
    }
    assert gather_facts(plain, data, layout, rows=rows, metrics=scored).rate is None
    assert (started.steps_wanted, started.rate, started.started) == (1500, None, True)
    assert is_weak(scored)
