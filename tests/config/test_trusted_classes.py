from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detect.config.trusted_classes import (
    forget_own_modules,
    hash_own_code,
    own_folders,
    refuse_foreign_classes,
    trust,
)
from detect.errors import InputError

MINE = "module_of_a_stranger"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that could be imported from here."""
    (tmp_path / f"{MINE}.py").write_text("raise SystemExit('imported')")
    (tmp_path / "more").write_text("settings that nobody has looked at")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield
    forget_own_modules()


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


def test_trust__a_module__its_classes_may_be_named(tmp_path: Path) -> None:
    trust([MINE])
    refuse_foreign_classes({"loss": {"class_path": f"{MINE}.X"}}, Path("run.ckpt"))
    for other in (f"{MINE}.os.system", f"{MINE}s.X", "other.X"):
        with pytest.raises(InputError, match="which a file may not name"):
            refuse_foreign_classes({"loss": {"class_path": other}}, Path("run.ckpt"))
    forget_own_modules()
    with pytest.raises(InputError, match=f"allow it with: --trust {MINE}$"):
        refuse_foreign_classes({"loss": {"class_path": f"{MINE}.X"}}, Path("run.ckpt"))
    assert MINE not in sys.modules


@pytest.mark.parametrize("form", ["beside", "file"])
def test_trust__a_folder_that_python_does_not_know__at_the_end_of_its_path(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / "unknown_to_python.py").touch()
    if form == "beside":
        trust(["unknown_to_python"], beside=[folder / "my.yaml"])
    else:
        trust([str(folder / "unknown_to_python.py")])
    assert sys.path[-1] == str(folder)
    assert own_folders() == [str(folder)]
    assert hash_own_code() == {}  # nothing was imported
    forget_own_modules()
    assert str(folder) not in sys.path


def test_trust__what_cannot_be_trusted__refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--trust os: a module of Python itself"):
        trust(["os"])
    with pytest.raises(
        InputError, match=r"--trust nowhere: no such module in .*: --trust path/to/nowhere\.py"
    ):
        trust(["nowhere"])
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / f"{MINE}.py").touch()
    with pytest.raises(InputError, match=rf"Python would take .*{MINE}\.py instead of .*exp.*: rename yours"):
        trust([f"exp/{MINE}.py"])


@pytest.mark.parametrize(
    ("own", "content", "refused"),
    [(True, "a,b", False), (True, "class_path: os.X", True), (False, "a,b", True)],
)
def test_a_file_in_a_setting__of_an_own_class__looked_into(
    own: bool, content: str, refused: bool, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text(content)
    value = {"class_path": "torch.optim.SGD", "init_args": {"table": "table.csv"}}
    if own:
        trust([MINE])
        value["class_path"] = f"{MINE}.X"
    if refused:
        with pytest.raises(InputError, match="which a file may not name"):
            refuse_foreign_classes(value, Path("run.ckpt"))
    else:
        refuse_foreign_classes(value, Path("run.ckpt"))
