from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from detect.config.trusted_classes import refuse_foreign_classes
from detect.errors import InputError

MINE = "module_of_a_stranger"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that could be imported from here."""
    (tmp_path / f"{MINE}.py").write_text("raise SystemExit('imported')")
    (tmp_path / "more").write_text("settings that nobody has looked at")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"backbone": f"{MINE}.X"}},
        {"model": {"backbone": {"class_path": f"{MINE}.X"}}},
        {"model": {"backbone": {"class_path": "X"}}},
        {"model": {"optimizer": "not_there.X"}},
        {"trainer": {"logger": f"{MINE}.X"}},
        {"trainer": {"callbacks": [f"{MINE}.X"]}},
        {"data": {"augmentations": [f"{MINE}.X"]}},
        {
            "trainer": {
                "callbacks": [
                    {
                        "class_path": "lightning.pytorch.callbacks.LambdaCallback",
                        "init_args": {"on_fit_start": f"{MINE}.f"},
                    }
                ]
            }
        },
        {"config": "more.yaml"},
        {"trainer": "more"},
        {"model": {"schedule": "more"}},
        {"model": {"anything": "./more"}},
        {"model": {"anything": "os.abort"}},
        {"model": {"anything": "builtins.exit"}},
    ],
    ids=str,
)
def test_what_names_code__refused_and_not_imported(config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"run\.ckpt: asks for the class '.*' .*which a file may not name"):
        refuse_foreign_classes(config, Path("run.ckpt"))
    assert MINE not in sys.modules


def test_what_runs_write__taken() -> None:
    config = {
        "model": {
            "backbone": {
                "class_path": "detect.model.backbones.Timm",
                "init_args": {"name": "resnet18.a1_in1k"},
            },
            "loss": "FocalLoss",
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            "resize_rule": "antialias",
        },
        "data": {"root": f"{MINE}.v2", "train_annotations": f"{MINE}.json", "augmentations": None},
        "trainer": {
            "strategy": {"class_path": "lightning.pytorch.strategies.DDPStrategy"},
            "precision": "bf16-mixed",
            "callbacks": [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}],
            "logger": {
                "class_path": "lightning.pytorch.loggers.WandbLogger",
                "init_args": {"project": f"{MINE}.runs", "entity": "nobody.here"},
            },
        },
    }
    refuse_foreign_classes(config, Path("run.ckpt"))
