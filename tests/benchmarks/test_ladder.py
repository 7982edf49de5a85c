from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import yaml

from detect.commands import main as commands
from detect.commands.fit_cli import settings_reader

ROOT = Path(__file__).resolve().parents[2]
SCRIPT, CONFIG = ROOT / "benchmarks" / "ladder.py", ROOT / "configs" / "plus" / "bccd.yaml"


def test_the_ladder_and_its_trials_lead_to_plus_and_every_step_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[str] = []
    monkeypatch.setattr(commands, "main", lambda words: swept.extend(words) or 0)
    out = tmp_path / "ladder"
    flags = ["--seeds", "0", "1", "--data.root", "BCCD"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--config", str(CONFIG), "--out", str(out), *flags])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    names = sorted(path.stem for path in (out / "configs").iterdir())
    assert sorted(Path(word).stem for word in swept[1:17]) == names
    assert swept[:1] + swept[17:] == ["sweep", "--out", str(out), *flags]
    steps = {name: yaml.safe_load((out / "configs" / f"{name}.yaml").read_text()) for name in names}
    plus = yaml.safe_load(CONFIG.read_text())
    necked = steps["5-neck"]
    assert necked["model"] == plus["model"] | {"loss": steps["4-assigner"]["model"]["loss"]}
    assert necked["data"] == plus["data"] | {"weak_epochs": 0}
    assert steps["0-plain"]["model"]["taps"] == ["c4", "c5"]
    mosaic = [entry["class_path"].rsplit(".", 1)[1] for entry in steps["5-mosaic"]["data"]["augmentations"]]
    assert mosaic[:2] == ["Mosaic", "RandomIoUCrop"]
    for name, config in steps.items():
        read = settings_reader().read(config, Path(name))  # refuses what `detect fit` would
        assert read["model"]["neck"] == config["model"]["neck"]
