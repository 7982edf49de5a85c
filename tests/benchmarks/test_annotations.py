from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.coco_cases import pycocotools_numbers

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "annotations.py"


def test_generated__as_many_as_asked_for_and_nothing_wrong(tmp_path: Path) -> None:
    from detect.inspection.data_check import check

    functions = runpy.run_path(str(SCRIPT))
    functions["generate"](tmp_path, 12, 30)
    report = check(tmp_path)
    split = report.to_json()["splits"]["train2017"]
    assert (split["images"], split["boxes"]) == (12, 30)
    assert (report.count("error"), report.count("warning")) == (0, 0)
    content = json.loads((tmp_path / "annotations" / "instances_train2017.json").read_text())
    numbers, _ = pycocotools_numbers(
        content,
        [
            {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 1.0}
            for a in content["annotations"]
        ],
    )
    assert numbers["mAP"] == pytest.approx(1.0)


@pytest.mark.slow
def test_benchmark__every_step__figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--images", "20", "--boxes", "60", "--json", str(tmp_path / "figures.json")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert [row["step"] for row in rows] == ["pycocotools", "open", "open again", "check", "check again"]
    assert rows[1]["result"] == rows[2]["result"] == "20 images, 60 boxes"
    assert all(row["wall_s"] >= 0 for row in rows)
