"""Run folders as `detect fit` leaves them, made in a moment: their detections are ground truth with noise."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from torchvision.ops import box_convert

from detect.data.annotations import Annotations
from detect.data.datamodule import DetectionData
from detect.evaluation.backends import ground_truth_rows
from detect.evaluation.evaluator import CocoEvaluator, Metrics
from detect.report.scored_files import write_scored
from detect.types import Detections

MODEL = {
    "backbone": {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "reduced_tail": True, "weights": None},
    },
    "num_classes": 3,
    "image_size": [160, 160],
}


def noisy_evaluator(annotations: Annotations, *, noise_px: float, seed: int = 0) -> CocoEvaluator:
    """Each box found `noise_px` away from where it is, and a false alarm in each image."""
    rng = np.random.default_rng(seed)
    evaluator = CocoEvaluator(annotations)
    truth = ground_truth_rows(annotations)
    for row in range(len(annotations)):
        own = truth.image_rows == row
        boxes_xywh = np.concatenate([truth.boxes_xywh[own], [[2.0, 2.0, 30.0, 20.0]]])
        boxes_xywh[:, :2] += rng.normal(0, noise_px, (len(boxes_xywh), 2))
        labels = np.append(truth.labels[own], 1 + row % annotations.classes.num_classes)
        scores = np.append(rng.uniform(0.3, 1, own.sum()), 0.2 + 0.6 * rng.random())
        detections = Detections(
            box_convert(torch.from_numpy(boxes_xywh), "xywh", "xyxy")[None],
            torch.from_numpy(scores)[None],
            torch.from_numpy(labels)[None],
        )
        evaluator.update(torch.tensor([row]), detections)
    evaluator.gather()
    return evaluator


def give_checkpoint(folder: Path, content: str) -> str:
    """Write best.ckpt into a run folder; returns its hash."""
    (folder / "checkpoints" / "best.ckpt").write_text(content)
    return hashlib.sha256(content.encode()).hexdigest()


def make_run(
    folder: Path, data_root: Path, *, noise_px: float = 2.0, seed: int = 0, lr: float = 0.05
) -> Metrics:
    """A finished run of three epochs, scored on the validation split of `data_root`."""
    data = DetectionData(root=data_root)
    data.open()
    evaluator = noisy_evaluator(data.val, noise_px=noise_px, seed=seed)
    metrics = evaluator.compute()
    (folder / "checkpoints").mkdir(parents=True)
    write_scored(folder, evaluator)
    (folder / "metrics.json").write_text(json.dumps(metrics.to_json()))
    (folder / "manifest.json").write_text(json.dumps({"commit": "0123abcd"}))
    config = {
        "seed_everything": seed,
        "trainer": {"max_epochs": 3},
        "model": {**MODEL, "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": lr}}},
        "data": {"root": str(data_root), "total_batch_size": 4},
        "out": str(folder),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "speed.csv").write_text("epoch,images_per_second\n1,20.0\n2,22.0\n3,21.0\n")
    rows = ["epoch,step,train/loss,train/loss_cls,train/loss_box,val/loss,val/mAP,val/AP50,lr"]
    rows += [
        f"{e},{e},{5 / e},{3 / e},{2 / e},{6 / e},{metrics.mAP * e / 3},{0.2 * e},0.01" for e in (1, 2, 3)
    ]
    (folder / "metrics.csv").write_text("\n".join(rows))
    return metrics
