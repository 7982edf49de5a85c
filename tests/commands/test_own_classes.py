"""Classes of the user's own, from a file beside the configuration: with `--trust` through the whole of a run,
without it refused before anything is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml

from detect.commands.main import main
from detect.config.trusted_classes import forget_own_modules
from tests.conftest import make_coco
from tests.fit_cases import TINY

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")

OWN = "own_parts_of_a_test"
CODE = """
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detect.data.augment.view import View
from detect.model.backbones import MobileNetV3
from detect.training.losses import MultiBoxLoss

Path(__file__).with_suffix(".imported").touch()


class OwnLoss(MultiBoxLoss):
    pass


class OwnBackbone(MobileNetV3):
    pass


class Nothing:
    def __init__(self, table: str) -> None:
        self.table = table

    def __call__(self, view: View, boxes: NDArray[np.float64], rng: np.random.Generator) -> View:
        return view
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    forget_own_modules()
    sys.modules.pop(OWN, None)


def make_parts(folder: Path) -> Path:
    """A folder with a module and a configuration that names its classes; the data lies in `coco`."""
    folder.mkdir()
    (folder / f"{OWN}.py").write_text(CODE)
    (folder / "table.csv").write_text("a,b\n")
    config = deepcopy(TINY)
    config["model"]["loss"] = {"class_path": f"{OWN}.OwnLoss"}
    config["model"]["backbone"]["class_path"] = f"{OWN}.OwnBackbone"
    # A setting that names a file is no class.
    own = {"class_path": f"{OWN}.Nothing", "init_args": {"table": str(folder / "table.csv")}}
    make_coco(folder / "coco", train=8, val=3)
    config["data"] |= {"augmentations": [own], "root": str(folder / "coco")}
    config["trainer"] |= {"max_epochs": 1, "callbacks": []}
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in `run`, and its detector as ONNX in `model.onnx`."""
    folder = make_parts(tmp_path_factory.mktemp("own") / "parts")
    words = ["fit", "--config", str(folder / "own.yaml"), "--out", str(folder / "run"), "--trust", OWN]
    assert main(words) == 0
    assert (folder / "run" / "metrics.json").is_file()
    assert (folder / "run" / "report.html").is_file()
    return folder


def commands_of(parts: Path, tmp_path: Path) -> dict[str, list[str]]:
    """What reads the run, without the permission."""
    run, data = parts / "run", str(parts / "coco")
    best = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    to_onnx = ["--format", "onnx", "--output", str(tmp_path / "model.onnx")]
    preview = ["--samples", "4", "--images", "1", "--output", str(tmp_path / "preview.html")]
    config = ["--config", str(parts / "own.yaml")]
    return {
        "validate": ["validate", *best, "--data.root", data],
        "predict": ["predict", *best, "--source", f"{data}/val", "--output", str(tmp_path / "found")],
        "export": ["export", *best, *to_onnx],
        "export a configuration": ["export", *config, *to_onnx],
        "fit": ["fit", *config, "--out", str(tmp_path / "new")],
        "resume": ["fit", "--out", str(run), "--ckpt_path", "last", "--trainer.max_epochs", "2"],
        "reproduce": ["reproduce", str(run), "--out", str(tmp_path / "again")],
        "data check": ["data", "check", data, *config],
        "data preview": ["data", "preview", data, *config, *preview],
    }


@pytest.mark.parametrize("name", commands_of(Path(), Path()))
def test_without_trust__refused_with_what_to_type_and_nothing_imported(
    name: str,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(parts)  # even where Python would find it
    mark = parts / f"{OWN}.imported"
    mark.unlink(missing_ok=True)
    assert main(commands_of(parts, tmp_path)[name]) == 2
    assert f"allow it with: --trust {OWN}\n" in capsys.readouterr().err
    assert not mark.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in commands_of(Path(), Path()) if name != "reproduce"])
def test_with_trust__works(name: str, parts: Path, tmp_path: Path) -> None:
    words = [*commands_of(parts, tmp_path)[name], "--trust", str(parts / f"{OWN}.py")]
    assert main(words) <= (name == "data check")  # the data has findings


@pytest.mark.slow
def test_reproduce__with_trust__says_what_of_the_own_code_differs(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # `reproduce` sets it
    manifest = json.loads((parts / "run" / "manifest.json").read_text())
    manifest.pop("continued", None)  # by the test that resumes
    assert list(manifest["own_code"]) == [OWN]
    manifest["own_code"][OWN] = "of another file"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    words = ["reproduce", str(tmp_path / "manifest.json"), "--out", str(tmp_path / "again")]
    assert main([*words, "--trust", str(parts / f"{OWN}.py")]) == 0
    out = capsys.readouterr().out
    assert f"own_code.{OWN}" in out
    assert "bit-identical" in out
    torch.set_num_threads(1)


@pytest.mark.slow
def test_an_exported_file__needs_no_code_and_no_permission(parts: Path, tmp_path: Path) -> None:
    words = commands_of(parts, tmp_path)["export"]
    assert main([*words, "--trust", str(parts / f"{OWN}.py")]) == 0
    sys.modules.pop(OWN)
    (parts / f"{OWN}.imported").unlink()
    source = ["--source", str(parts / "coco" / "val"), "--output", str(tmp_path / "found")]
    assert main(["predict", "--model", str(tmp_path / "model.onnx"), *source]) == 0
    assert not (parts / f"{OWN}.imported").exists()


def test_a_permission__is_for_one_command(parts: Path, tmp_path: Path) -> None:
    words = commands_of(parts, tmp_path)["validate"]
    assert main([*words, "--trust", str(parts / f"{OWN}.py")]) == 0
    assert main(words) == 2


def test_trust_in_a_file__is_no_permission(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**TINY, "trust": [OWN]}))
    words = ["fit", "--config", str(tmp_path / "a.yaml"), "--data.root", str(parts / "coco")]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "give --trust on the command line, not in a configuration file" in capsys.readouterr().err
    assert "trust" not in yaml.safe_load((parts / "run" / "config.yaml").read_text())


@pytest.mark.parametrize(
    "words",
    [
        ["--model.loss", f"{OWN}.OwnLoss"],
        [f"--model.loss={OWN}.OwnLoss"],
        ["--model.loss.class_path", f"{OWN}.OwnLoss"],
        ["--data.augmentations", f"[{{class_path: {OWN}.Nothing}}]"],
        ["--data.augmentations+", f"{OWN}.Nothing"],
        ["--model", "section.yaml"],
        ["--config", "including.yaml"],
    ],
    ids=str,
)
def test_fit__however_it_is_named__refused_before_it_is_imported(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{OWN}.py").write_text(CODE)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(TINY))
    (tmp_path / "section.yaml").write_text(yaml.safe_dump({"loss": {"class_path": f"{OWN}.OwnLoss"}}))
    (tmp_path / "including.yaml").write_text("model: section.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["fit", "--config", "a.yaml", "--out", "run", *words]) == 2
    assert f"--trust {OWN}\n" in capsys.readouterr().err
    assert not (tmp_path / f"{OWN}.imported").exists()
