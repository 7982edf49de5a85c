from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.conftest import make_coco

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "step.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.slow
def test_benchmark__writes_the_ratio_and_raw_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_coco(tmp_path / "coco")
    words = ("--root", str(root), "--batch", "2", "--rounds", "2", "--json", str(tmp_path / "figures.json"))
    plus = str(SCRIPT.parents[1] / "configs" / "plus" / "bccd.yaml")
    run(monkeypatch, *words, "--config", plus)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["ratio"] > 0
    assert figures["graph_breaks"]["ours"] == 0
    assert figures["graph_breaks"]["torchvision"] > 0
    assert figures["parameters"]["ours"] == figures["parameters"]["torchvision"]
    assert set(figures["match_and_loss_share"]) == {"8", "32", "100"}
    assert all(0 < share < 1 for share in figures["match_and_loss_share"].values())
    of_config = figures["configs"][plus]
    assert of_config["graph_breaks"] == 0
    assert all(0 < share < 1 for share in of_config["match_and_loss_share"].values())
    assert len(figures["cpu_ms"]) == 3 + 2 * 3
    for times in figures["cpu_ms"].values():
        assert len(times) == 2
        assert min(times) > 0
    assert "graph breaks of forward and loss: ours 0" in capsys.readouterr().out


def test_benchmark__refuses_a_batch_of_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(monkeypatch, "--batch", "1")
    assert exit_info.value.code == 2
    assert "--batch 1: BatchNorm on the last map" in capsys.readouterr().err
