from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from jsonargparse import ArgumentParser
from jsonargparse.typing import class_from_function

from detect.config.trusted_classes import (
    CLASS_KEYS,
    GROUP_KEYS,
    TEXT_KEYS,
    TRUSTED_MODULES,
    forget_own_modules,
    hash_own_code,
    own_folders,
    refuse_foreign_classes,
    trust,
)
from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.training.build import detection_module

MINE = "module_of_a_stranger"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that could be imported from here."""
    (tmp_path / f"{MINE}.py").write_text("raise SystemExit('imported')")
    (tmp_path / "more").write_text("settings that nobody has looked at")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"{MINE}.py").write_text("raise SystemExit('imported')")
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
        {"model": {"anything": f"folder.{MINE}.X"}},
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
        "data": {
            "root": f"{MINE}.v2",
            "note": "folder.v2",
            "train_annotations": f"{MINE}.json",
            "augmentations": None,
        },
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


def keys_by_kind(cls: type) -> dict[str, set[str]]:
    """The arguments of a class as the parser of settings takes them: "class", "group", or their type."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    kinds: dict[str, set[str]] = {}
    for action in parser._actions:
        key = action.dest.removesuffix(".help").rpartition(".")[2]
        kind = {"_ActionHelpClassPath": "class", "_ActionConfigLoad": "group"}.get(type(action).__name__)
        kinds.setdefault(key, set()).add(kind or str(getattr(action, "_typehint", None)))
    return kinds


def trusted(*, ours: bool) -> list[type]:
    """Every class that a file may name."""
    return [
        cls
        for module in TRUSTED_MODULES
        if module.startswith("detect.") == ours
        for cls in vars(importlib.import_module(module)).values()
        if inspect.isclass(cls) and cls.__module__.startswith(module) and not issubclass(cls, tuple)
    ]


def test_keys__as_the_parser_takes_them() -> None:
    sections = [L.Trainer, DetectionData, class_from_function(detection_module)]
    found = [keys_by_kind(cls) for cls in (*sections, *trusted(ours=True))]
    classes = {key for kinds in found for key, kind in kinds.items() if "class" in kind}
    groups = {key for kinds in found for key, kind in kinds.items() if "group" in kind}
    inputs = {"detector", "distillation"}  # of a module in training: other keys build them
    both = {"schedule", "settings"}  # classes whose arguments may stand without a class_path
    assert classes - inputs - both == set(CLASS_KEYS)
    assert groups | both | {"config", "model", "data", "trainer", "init_args", "dict_kwargs"} == set(
        GROUP_KEYS
    )
    found += [keys_by_kind(cls) for cls in trusted(ours=False)]
    taken = {key: {kind for kinds in found for kind in kinds.get(key, ())} for key in TEXT_KEYS}
    assert all(taken.values())  # no key that nothing takes
    assert not [key for key, kinds in taken.items() if kinds & {"class", "group"}]


def test_a_name_without_its_module_is_given_whole() -> None:
    steps = {"augmentations": [{"class_path": "RandomIoUCrop"}]}
    with pytest.raises(InputError, match=r"; write its whole path, detect\.data\.augment\.RandomIoUCrop$"):
        refuse_foreign_classes(steps, "the configuration")
