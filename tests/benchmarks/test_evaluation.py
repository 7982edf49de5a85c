from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "evaluation.py"


@pytest.mark.slow
def test_benchmark__writes_ratio_and_raw_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--images", "40", "--detections", "20", "--classes", "3", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *size, "--json", str(tmp_path / "figures.json")])
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert exit_info.value.code == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["ratio"] > 0
    assert figures["largest_difference"] <= 1e-6
    assert figures["numbers"]["detect"] == pytest.approx(figures["numbers"]["pycocotools"], abs=1e-6)
    assert figures["numbers"]["detect"][0] > 0.05
    assert {len(rounds) for rounds in figures["seconds"].values()} == {2}
    assert "faster-coco-eval" in capsys.readouterr().out
