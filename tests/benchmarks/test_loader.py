from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_coco

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "loader.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*os.fork.*")
def test_benchmark__writes_ratios_and_raw_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_coco(tmp_path / "coco", train=32)
    run(monkeypatch, "--root", str(root), "--rounds", "2", "--json", str(tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())
    for name in ("ratio", "ratio_cached", "ratio_wall", "ratio_cached_wall"):
        assert figures[name] > 0
    assert figures["images"] == 32
    assert set(figures["images_per_s"]) == {"torchvision", "ours", "ours_cached"}
    for rounds in figures["images_per_s"].values():
        assert len(rounds) == 2
        assert all(value > 0 for figures_of_round in rounds for value in figures_of_round.values())
    assert "medians of paired rounds" in capsys.readouterr().out


def test_benchmark__refuses_too_few_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_coco(tmp_path / "coco")
    with pytest.raises(SystemExit) as exit_info:
        run(monkeypatch, "--root", str(root))
    assert exit_info.value.code == 2
    assert "has 4 images, at least 16 are needed" in capsys.readouterr().err


def test_generated_photographs__weigh_as_much_as_cocos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script: dict[str, Any] = runpy.run_path(str(SCRIPT))
    # The function's own globals, which runpy has made a copy of.
    monkeypatch.setitem(script["generate_photographs"].__globals__, "GENERATED_IMAGES", 3)
    script["generate_photographs"](tmp_path / "photographs")
    paths = sorted((tmp_path / "photographs" / "train2017").iterdir())
    assert len(paths) == 3
    assert Image.open(paths[0]).size == (640, 480)
    # coco128: 173 KB on average.
    assert 80e3 < np.mean([path.stat().st_size for path in paths]) < 250e3
