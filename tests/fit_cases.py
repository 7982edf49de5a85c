"""Small runs of `detect fit` inside the test's process, and ways to end them at a chosen moment."""

from __future__ import annotations

import csv
import os
import signal
from itertools import zip_longest
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml

from detect.commands.fit import fit
from detect.commands.fit_cli import FitCLI

STEPS_PER_EPOCH = 4
EPOCHS = 2
TINY: dict[str, Any] = {
    "seed_everything": 0,
    "model": {
        "backbone": {
            "class_path": "detect.model.backbones.MobileNetV3",
            "init_args": {"size": "small", "width": 0.35, "reduced_tail": True},
        },
        "image_size": [64, 64],
        "optimizer": {
            "class_path": "torch.optim.SGD",
            "init_args": {"lr": 0.05, "momentum": 0.9, "fused": True},
        },
        "schedule": {"warmup_steps": 2},
    },
    "data": {"total_batch_size": 4, "workers": 0},
    "trainer": {
        "max_epochs": EPOCHS,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "callbacks": [
            {
                "class_path": "detect.training.averaging.AveragedWeights",
                "init_args": {"decay": 0.9},
            }
        ],
    },
}
"""16 training images make 4 steps an epoch."""


def write_config(folder: Path, config: dict[str, Any] = TINY) -> Path:
    """Save a configuration as YAML."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def fit_args(config: Path, data: Path, out: Path, *more: str) -> list[str]:
    """The words of a run."""
    return ["--config", str(config), "--data.root", str(data), "--out", str(out), *more]


class Killed(BaseException):
    """Stands for a kill -9: nothing of ours catches it."""


class EndAt(L.Callback):
    """Ends the run in a hook, at the first step from `step` on: by an exception, or by a signal."""

    def __init__(self, hook: str, step: int, *, signum: int | None = None) -> None:
        self.hook, self.step, self.signum = hook, step, signum

    def _in(self, hook: str, trainer: L.Trainer) -> None:
        if hook != self.hook or trainer.global_step < self.step:
            return
        if self.signum is None:
            raise Killed
        os.kill(os.getpid(), self.signum)

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self._in("batch_start", trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._in("batch_end", trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._in("validation", trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._in("epoch_end", trainer)


def fit_until(end: EndAt, args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `fit` with `end` before all of its own callbacks."""
    own = FitCLI._callbacks
    with monkeypatch.context() as patch:
        patch.setattr(FitCLI, "_callbacks", lambda self: [end, *own(self)])
        if end.signum is None:
            with pytest.raises(Killed):
                fit(args)
        else:
            fit(args)


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested values of tensors and plain values differ, bit for bit."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{path}: keys {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [found for key in a for found in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: lengths {len(a)} and {len(b)}"]
        return [found for i in range(len(a)) for found in differences(a[i], b[i], f"{path}.{i}")]
    return [] if a == b else [f"{path}: {a!r} and {b!r}"]


def read_raw(run: Path, name: str = "last") -> dict[str, Any]:
    """All that a checkpoint of a run holds."""
    raw: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return raw


def run_differences(a: Path, b: Path) -> list[str]:
    """Where the results of two runs differ: every value of both checkpoints, and metrics.csv."""
    found = []
    for name in ("last", "best"):
        one, other = read_raw(a, name), read_raw(b, name)
        for raw in (one, other):
            # How often a checkpoint is written changes none, nor do machines of one device or one of several.
            raw["run"]["config"].pop("checkpoint_minutes")
            for key in ("devices", "num_nodes", "strategy"):
                raw["run"]["config"]["trainer"].pop(key)
        found += differences(one, other, name)
    rows = [list(csv.reader((run / "metrics.csv").open())) for run in (a, b)]
    for one, other in zip_longest(*rows, fillvalue=[]):
        if one != other:
            found.append(f"metrics.csv: {one} and {other}")
    return found


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
