from __future__ import annotations

import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from detect.config.model_section import read_model_section
from detect.deploy.benchmark import Measured
from detect.inspection.models import TABLE_6

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "table6.py"
ROUNDS = 8
PROTOCOL = {
    "cpu": "a processor",
    "cores": 2,
    "pinned_to": [0],
    "governor": None,
    "system": "a system",
    "python": "3.11",
    "versions": {"torch": "2"},
    "rounds": ROUNDS,
    "warmup": 5,
    "clock": "cpu",
    "pictures": ["480x640"],
    "load_average_before": [0.0, 0.0, 0.0],
    "load_average_after": [0.0, 0.0, 0.0],
}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def as_in_the_paper(script: dict[str, Any], runtimes: list[str], *, noise: float = 0.0) -> Any:
    """A measurement that gives the paper's latencies: a tenth of them on the first runtime, a fifth..."""
    rng = np.random.default_rng(0)
    samples = [
        {"network": script["PAPER_MS"][row] * (place + 1) / 10 * (1 + noise * rng.standard_normal(ROUNDS))}
        for row in script["CONFIG_OF_ROW"]
        for place in range(len(runtimes))
    ]
    return script["Result"](Measured([{} for _ in samples], samples, PROTOCOL), runtimes)


def test_rows__are_the_papers_and_their_configs(script: dict[str, Any]) -> None:
    assert list(script["CONFIG_OF_ROW"]) == [row.row for row in TABLE_6]
    for row in TABLE_6:
        settings = read_model_section(script["CONFIGS"] / f"{script['CONFIG_OF_ROW'][row.row]}.yaml")
        assert settings is not None
        init_args = settings["backbone"].get("init_args", {})
        assert init_args.get("reduced_tail", False) == row.reduced_tail
        assert init_args.get("width", 1.0) == row.width
        family, _, size = row.backbone.replace("mobilenet_", "mobilenet").partition("_")
        assert family in settings["backbone"]["class_path"].lower()
        assert init_args.get("size", size) == size


def test_pairs__of_the_paper_are_its_ratios(script: dict[str, Any]) -> None:
    result = as_in_the_paper(script, ["onnxruntime", "openvino"])
    ratios = script["to_json"](result)["ratios"]
    assert {name: round(pair["paper"], 2) for name, pair in ratios.items()} == {
        "V3† / V3": 0.87,  # 119 / 137
        "V3-Small† / V3-Small": 0.83,  # 43 / 52
        "V3† / V2": 0.73,  # 119 / 162
        "V3-Small† / V2 0.35": 0.65,  # 43 / 66
        "V3-Small† / MnasNet 0.35": 0.63,  # 43 / 68
    }
    for pair in ratios.values():
        assert pair["onnxruntime"]["median"] == pytest.approx(pair["paper"], abs=1e-4)
        assert pair["openvino"]["median"] == pytest.approx(pair["paper"], abs=1e-4)


def test_order__is_that_of_the_times(script: dict[str, Any]) -> None:
    result = as_in_the_paper(script, ["onnxruntime"])
    paper = [row.row for row in sorted(TABLE_6, key=lambda row: float(row.latency_ms))]
    assert result.order("onnxruntime") == paper
    assert result.order("onnxruntime")[0] == "V3-Small†"
    assert result.median("onnxruntime", "V1") == pytest.approx(22.8)


def test_tables__say_place_ratio_and_spread(script: dict[str, Any]) -> None:
    console = Console(width=160, file=io.StringIO(), record=True)
    result = as_in_the_paper(script, ["onnxruntime", "openvino"], noise=0.02)
    console.print(script["latency_table"](result), script["ratio_table"](result))
    lines = console.export_text().splitlines()
    (v1,) = (line for line in lines if "│ V1 " in line)
    assert "228 (11)" in v1
    assert v1.count("(11)") == 3
    (tail,) = (line for line in lines if "V3† / V3 " in line)
    ratio = result.ratio("openvino", ("V3†", "V3"))
    assert "0.869" in tail
    assert str(ratio) in tail
    assert ratio.low < ratio.median < ratio.high


def test_plot__is_a_picture_with_every_runtime(script: dict[str, Any], tmp_path: Path) -> None:
    script["plot"](as_in_the_paper(script, ["onnxruntime", "openvino"]), tmp_path / "a.png")
    script["plot"](as_in_the_paper(script, ["onnxruntime"]), tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as two, Image.open(tmp_path / "b.png") as one:
        assert two.width > 800
        assert two.tobytes() != one.tobytes()
    assert (tmp_path / "a.png").stat().st_size < 150e3


def test_installed__names_what_is_left_out(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    console = Console(soft_wrap=True)
    assert script["installed"](["onnxruntime", "litert"], console) == ["onnxruntime"]
    output = capsys.readouterr().out
    assert "left out litert" in output
    assert "pip install --editable '.[litert]'" in output


def test_table6__measures_every_row_on_the_runtimes_asked_for(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[Path]] = []

    def plan(configs: list[Path], *rest: object) -> list[Path]:
        asked.append(configs)
        return configs

    # The function's own globals: runpy gives back a copy. Exporting eleven networks takes minutes.
    own = script["main"].__globals__
    monkeypatch.setitem(own, "plan_rows", plan)
    monkeypatch.setitem(own, "measure", lambda rows, *rest: as_in_the_paper(script, ["onnxruntime"]).measured)
    file = tmp_path / "figures.json"
    arguments = ["--runtime", "onnxruntime", "--rounds", "3", "--folder", str(tmp_path / "files")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, "--json", str(file)])
    script["main"]()
    assert len(asked[0]) == 11
    assert all(config.is_file() for config in asked[0])
    figures = json.loads(file.read_text())
    assert figures["fastest_first"]["onnxruntime"][0] == "V3-Small†"
    assert figures["protocol"]["rounds"] == ROUNDS
    assert file.with_suffix(".png").is_file()
