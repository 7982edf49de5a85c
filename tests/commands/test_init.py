"""`detect init`: what it writes is taken by `detect fit` as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from detect.commands.fit_cli import FitCLI
from detect.commands.main import main
from tests.conftest import make_coco
from tests.data_sets import make_yolo


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_coco(tmp_path / "birds", train=9, val=3)


@pytest.mark.slow
@pytest.mark.usefixtures("birds")
def test_init__its_file_is_a_configuration_of_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["init", "birds", "--for", "phone", "--start", "none"]) == 0
    *_, check, train = capsys.readouterr().out.splitlines()
    monkeypatch.delenv("DETECT_RUN", raising=False)
    cli = FitCLI(shlex.split(train)[2:])
    assert cli.run_folder == Path("runs/birds-001")
    assert cli.config.model.num_classes == 3
    assert cli.config.data.total_batch_size == 8
    assert cli.model.net.backbone.name == "mobilenet_v3_small"
    assert main(shlex.split(check.removeprefix("next"))[1:]) in (0, 1)


@pytest.mark.usefixtures("birds")
def test_init__a_file_is_never_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("birds.yaml").write_text("mine")
    assert main(["init", "birds", "--start", "none"]) == 2
    assert "birds.yaml exists and is never overwritten" in capsys.readouterr().err
    assert Path("birds.yaml").read_text() == "mine"
    assert main(["init", "birds", "--start", "none", "--for", "phone", "--out", "other.yaml"]) == 0
    assert Path("other.yaml").is_file()
    assert main(["init", "birds", "--start", "none", "--out", "birds/birds.yaml"]) == 2
    assert "lies in birds, which is only read" in capsys.readouterr().err
    assert main(["init", "birds", "--start", "none", "--out", "birds.txt"]) == 2
    assert "ends with .yaml" in capsys.readouterr().err


@pytest.mark.usefixtures("birds")
def test_init__one_split_is_to_be_divided_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_yolo(tmp_path / "one", {"train": {"a": "0 0.5 0.5 0.2 0.2"}})
    assert main(["init", "one"]) == 2
    assert "detect data split one --out one-split" in capsys.readouterr().err
    assert not Path("one.yaml").exists()
