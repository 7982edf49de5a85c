"""The page on training from plain Python: its program is run as it stands, on less data."""

import json
from pathlib import Path

import pytest

from detect.api import Detector
from detect.commands.main import main
from tests.documents import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PROGRAM = PAGE.partition("```python\n")[2].partition("```")[0]
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
