"""The five-way comparison, with latencies that follow from the widths and runs that nobody trained."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from detect.config.model_section import read_config
from detect.deploy.latency import Ratio
from detect.evaluation.bootstrap import Difference
from detect.model.checkpoint import checkpoint_content, write_checkpoint
from detect.search.found import found_config, write_config
from detect.search.latency_table import LatencyTable
from detect.search.widths import widths_of, with_widths
from detect.training.build import build_module
from detect.types import ClassMap
from tests.conftest import CLASSES, make_coco
from tests.run_cases import make_run
from tests.search.cases import SETTING, latency_ms

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "search_comparison.py"
MODEL = {"backbone": {"class_path": "detect.model.backbones.MobileNetV1"}, "image_size": [64, 64]}
FOUND = {"netadapt": "block5.expansion", "random": "block6.expansion", "madds": "last"}
"""The width that each search halves, here; none gives the same latency as another."""


class ByWidths:
    """In place of `Bench`."""

    def __init__(self, *anything: Any) -> None:
        pass

    def measure(self, networks: list[dict[str, Any]]) -> list[Any]:
        return [latency_ms(stated) * np.array([1.0, 1.1, 1.2]) for stated in networks]

    def ratio(self, network: dict[str, Any], start: dict[str, Any]) -> float:
        return latency_ms(network) / latency_ms(start)


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize("slow", [1.3, 0.8])
def test_match__widths_times_the_factor_are_as_fast_as_wanted(script: dict[str, Any], slow: float) -> None:
    matched = script["match"](lambda factor: slow * factor**1.5)
    assert matched.own == slow
    assert slow * matched.factor**1.5 == pytest.approx(1, abs=0.01)


def test_match__fast_enough_stays_and_steps_too_coarse_end_at_the_closest(script: dict[str, Any]) -> None:
    assert script["match"](lambda factor: 1.019) == (1.019, 1.0)
    asked: list[float] = []

    def coarse(factor: float) -> float:
        asked.append(factor)
        return 1.2 if factor > 0.7 else 0.95

    assert coarse(script["match"](coarse).factor) == 0.95
    assert len(asked) == 9


def fake_detect(
    script: dict[str, Any], data_root: Path, calls: list[list[str]]
) -> Callable[[list[str]], int]:
    """`detect` whose searches halve one width, and whose sweeps leave runs."""
    stated = script["stated"]
    module = build_module({**MODEL, "num_classes": 3})
    module.detector.classes = ClassMap(tuple(CLASSES.values()), tuple(CLASSES))
    start = checkpoint_content(module.detector)

    def value(words: list[str], name: str) -> Path:
        return Path(words[words.index(name) + 1])

    def search(words: list[str]) -> None:
        config, out = value(words, "--config"), value(words, "--out")
        wide, name = stated(config, 3), FOUND[out.name]
        found = with_widths(wide, {name: widths_of(wide)[name] // 2})
        write_config(out / "found.yaml", found_config(read_config(config), found), "")
        LatencyTable(SETTING, wide, widths_of(wide), 30).write(out / "latency_table.json")

    def sweep(words: list[str]) -> None:
        for number, config in enumerate(words[1 : words.index("--seeds")]):
            run = value(words, "--out") / f"{Path(config).stem}-seed0"
            if not run.is_dir():
                make_run(run, data_root, noise_px=2.0 + number, lr=0.01 * (1 + number))
            if number == 0:  # the start, whose classes are asked for
                write_checkpoint(run / "checkpoints" / "best.ckpt", start)

    def detect(words: list[str]) -> int:
        calls.append(words)
        {"search": search, "sweep": sweep}[words[0]](words)
        return 0

    return detect


@pytest.mark.slow  # builds some thirty networks
def test_comparison__all_at_one_latency_in_one_table_and_nothing_searched_twice(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    make_coco(tmp_path / "coco", train=4, val=4)
    space = script["main"].__globals__
    monkeypatch.setitem(space, "detect", fake_detect(script, tmp_path / "coco", calls))
    monkeypatch.setitem(space, "Bench", ByWidths)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"model": MODEL}))
    out = tmp_path / "S"
    words = ["--config", str(tmp_path / "my.yaml"), "--out", str(out), "--seeds", "0", "--steps", "8"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words, "--data.root", "D"])
    script["main"]()

    searches = [call for call in calls if call[0] == "search"]
    assert [Path(call[call.index("--out") + 1]).name for call in searches] == ["netadapt", "random", "madds"]
    for call in searches:
        assert call[-6:] == ["--target", "0.75", "--steps", "8", "--data.root", "D"]
    assert searches[1][-8:-6] == ["--proposals", "random"]
    names = ["start", "netadapt", "uniform", "reduced", "random", "madds"]
    assert [Path(word).stem for word in calls[-1][1:7]] == names

    rows = {row["name"]: row for row in json.loads((out / "table.json").read_text())["rows"]}
    assert list(rows) == names
    networks = {name: script["stated"](out / "configs" / f"{name}.yaml", 3) for name in names}
    wanted = latency_ms(networks["netadapt"])
    for name in names[2:]:
        assert latency_ms(networks[name]) == pytest.approx(wanted, rel=0.02)
        assert rows[name]["of_netadapt"]["median"] == pytest.approx(latency_ms(networks[name]) / wanted)
        assert rows[name]["lead"]["mAP"] == pytest.approx(rows["netadapt"]["mAP"][0] - rows[name]["mAP"][0])
    assert rows["uniform"]["matched"]["factor"] < 1
    assert rows["start"]["matched"] is rows["netadapt"]["lead"] is None
    assert rows["start"]["of_start"]["median"] == 1
    before, kept = len(calls), (out / "configs" / "uniform.yaml").stat().st_mtime_ns
    script["search_all"](out, Path("best.ckpt"), [])
    script["match_all"](out, 3, ByWidths())
    assert len(calls) == before
    assert (out / "configs" / "uniform.yaml").stat().st_mtime_ns == kept


def test_markdown__says_what_is_not_as_fast_and_the_spread_of_seeds(script: dict[str, Any]) -> None:
    row, ratio, lead = script["Row"], Ratio(1.03, 1.01, 1.05), Difference(0.02, 0.01, 0.03)
    found = row("netadapt", None, ratio, Ratio(1.0, 1.0, 1.0), 5_000_000, [0.5], None)
    other = row("uniform", script["Matched"](1.4, 0.8), ratio, ratio, 4_000_000, [0.4, 0.6], lead)
    *_, first, second = script["markdown"]([found, other]).splitlines()
    assert first == "| NetAdapt by latency |  |  | 1.030 | 1.000 (1.000 to 1.000) | 5.0 | 0.500 (1) |  |"
    numbers = "1.400 | 0.800 | 1.030 | 1.030 (1.010 to 1.050), not equal | 4.0 | 0.500 ± 0.141 (2)"
    assert second == f"| uniform width | {numbers} | +0.020 [+0.010, +0.030] |"


def test_flags_of_the_network__refused(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--config", "a", "--out", "b", "--model.num_classes", "3"])
    with pytest.raises(SystemExit, match="flags of --model would change all of them"):
        script["read_arguments"]()
