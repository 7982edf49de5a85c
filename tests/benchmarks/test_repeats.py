from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.data_sets import make_voc

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "repeats.py"
CAT, DOG = ("cat", (2, 3, 30, 40)), ("dog", (20, 3, 50, 40))


def test_benchmark__shows_the_rare_class_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {f"{i:02d}": [CAT, CAT] if i else [DOG] for i in range(16)}
    root = make_voc(tmp_path / "pets", {"train": images})
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--root", str(root), "--thresholds", "0.25"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["| none | cat | 15.0 | 30 |", "| none | dog | 1.0 | 1 |"]
    # One of 16 images shows the dog: sqrt(0.25 * 16) = 2 showings of 17, of which 16 are used.
    cats, dogs = (float(line.split("|")[3]) for line in lines[4:6])
    assert dogs == pytest.approx(2 * 16 / 17, abs=0.1)
    assert cats + dogs == pytest.approx(16)
