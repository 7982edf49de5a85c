"""The page on plain Python: its programs are run as they stand, training on less data."""

import json
from pathlib import Path

import pytest

from detect.api import Detector
from detect.commands.main import main
from tests.detector_cases import checkpoint, photo
from tests.documents import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PROGRAM, DETECTING = (part.partition("```")[0] for part in PAGE.split("```python\n")[1:])
MOST_LINES = 15


def test_the_program_is_short() -> None:
    lines = [line for line in PROGRAM.splitlines() if line]
    assert 5 <= len(lines) <= MOST_LINES


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_program_trains_a_detector_that_the_command_line_takes(
    tmp_path: Path, coco_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = PROGRAM.replace('"data/shapes"', repr(str(coco_root))).replace("192, 192", "64, 64")
    program = program.replace("max_epochs=6", "max_epochs=1").replace("size=8", "size=4, workers=0")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(program, "docs/python.md", "exec"), names)
    metrics = names["module"].metrics  # type: ignore[attr-defined]
    checkpoint = tmp_path / "shapes.ckpt"
    assert Detector.load(checkpoint).classes == names["data"].classes  # type: ignore[attr-defined]
    args = ["validate", "--ckpt_path", str(checkpoint), "--data.root", str(coco_root), "--json", "m.json"]
    assert main(args) == 0
    assert metrics.images == 4
    scored = json.loads(Path("m.json").read_text())
    assert scored.pop("baseline").keys() == {"mAP", "AP50"}
    assert scored == metrics.to_json()


def test_the_program_that_detects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo().save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(DETECTING.replace('"best.ckpt"', repr(str(checkpoint()))), "docs/python.md", "exec"), names)
    assert len(names["found"].scores) > 0  # type: ignore[attr-defined]
