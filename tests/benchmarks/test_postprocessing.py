from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import detector_cases

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "postprocessing.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_share__what_a_form_takes_beyond_the_raw_network(script: dict[str, Any]) -> None:
    raw = {"network": np.array([10.0, 20.0, 10.0]), "post": np.array([1.0, 2.0, 1.0])}
    inside = {"network": np.array([10.5, 21.0, 10.5]), "post": np.zeros(3)}
    assert script["share"](raw, raw)["median"] == pytest.approx(0.1)
    assert script["share"](inside, raw)["median"] == pytest.approx(0.05)


def test_shortfalls__only_where_no_form_keeps_the_promise(script: dict[str, Any]) -> None:
    def row(runtime: str, form: str, median: float) -> dict[str, Any]:
        return {"runtime": runtime, "form": form, "share": {"median": median}}

    kept = [row("onnxruntime", "raw", 0.09), row("onnxruntime", "nms", 0.05)]
    assert script["shortfalls"]({"rows": kept}) == []
    (missed,) = script["shortfalls"]({"rows": [*kept, row("openvino", "raw", 0.1)]})
    assert missed == (
        "openvino: decoding + NMS take 10.0% of the network's time in form raw, its best; promised 8%"
    )


@pytest.mark.slow
def test_postprocessing__three_forms_of_one_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    arguments = [str(detector_cases.checkpoint()), "--runtime", "onnxruntime", "--rounds", "3"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, "--json", str(figures)])
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    output = capsys.readouterr().out
    assert exit_info.value.code == ("falls short" in output)
    result = json.loads(figures.read_text())
    assert [row["form"] for row in result["rows"]] == ["raw", "decoded", "nms"]
    raw = next(row for row in result["rows"] if row["form"] == "raw")
    assert raw["share"]["median"] > 0
    assert result["protocol"]["rounds"] == 3
