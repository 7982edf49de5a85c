"""The page of a search, its found.yaml and its lines of progress, of a search that is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from detect.model.checkpoint import build_detector
from detect.search.found import found_config, write_found
from detect.search.latency_table import LatencyTable
from detect.search.page import pareto_front, tried, write_search_page
from detect.search.progress import SearchProgress, remaining
from detect.search.state import Proposal, SearchState, Step
from detect.search.widths import explicit, widths_of, with_widths
from tests.search.cases import ROWS, SETTING, SETTINGS

START = explicit(SETTINGS)
WIDTHS = widths_of(START)
ONE = {**WIDTHS, "block3.expansion": 40}
TWO = {**ONE, "extra.out": 24}
FIXED = {"runtime": "onnxruntime", "precision": "fp32", "threads": 1, "resource": "latency"}


@pytest.fixture
def state(tmp_path: Path) -> SearchState:
    """Two steps and a half."""
    first = [
        Proposal("block3.expansion", 40, 9.5, 0.41, 20.0),
        Proposal("extra.out", 24, 9.4, 0.30, 10.0),
    ]
    second = [Proposal("extra.out", 24, 9.1, 0.39, 30.0)]
    steps = [
        Step(0, WIDTHS, 10.0, [], None, None, 10.0, 0.4, 10.0),
        Step(1, ONE, 9.6, first, "block3.expansion", 9.5, 9.6, 0.41, 9.6),
        Step(2, TWO, 9.2, second, "extra.out", 9.1, 9.0, 0.39, 9.0),
    ]
    under_way = Step(3, TWO, 8.7, [Proposal("last", 40, 8.6, 0.2, 20.0)])
    return SearchState(tmp_path / "search.json", FIXED, 10.0, 8.0, 0.05, steps, under_way, 4)


def test_page__has_the_path_the_predictions_and_every_proposal(state: SearchState, tmp_path: Path) -> None:
    write_search_page(tmp_path, state, LatencyTable(SETTING, START, WIDTHS, 3))
    page = (tmp_path / "search.html").read_text()
    for words in (
        "The search is not finished: the network is slower than wanted.",
        "Step 3 is under way: 1 of 4 proposals are scored.",
        "Step 1: block3.expansion 48 → 40, 9.60 ms, mAP 0.410",
        '<td class="left">extra.out</td><td class="left">32 → 24</td><td>9.40</td><td>0.300</td>',
        "<td>9.10</td><td>9.00</td><td>1.1%</td>",
        "48 → 40",
        "onnxruntime 1.0, fp32, 1 thread(s), input 64 x 64 px; a processor",
    ):
        assert words in page, words
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing from anywhere


def test_pareto_front__what_no_faster_network_reaches(state: SearchState) -> None:
    networks = tried(state)
    assert len(networks) == 5  # two proposals are the networks of their steps
    assert [(one.latency_ms, one.accuracy) for one in pareto_front(networks)] == [
        (8.6, 0.2),
        (9.0, 0.39),
        (9.6, 0.41),
    ]


def test_found_config__reads_as_table_1_and_builds_the_network(state: SearchState, tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "seed_everything": 0,
        "model": {
            "backbone": {
                "class_path": "detect.model.backbones.MobileNetV3",
                "init_args": {"size": "small", "rows": ROWS},
            },
            "num_classes": 2,
            "init_from": "start.ckpt",
            "image_size": [64, 64],
            "extra_levels": [[16, 32], [8, 16]],
        },
        "trainer": {"max_epochs": 3},
    }
    path = write_found(tmp_path / "found.yaml", config, START, state)
    text = path.read_text()
    assert "\n      - [5, 40, 24, false, HS, 1]\n" in text
    assert "# Found by detect search in 2 steps: 9.00 ms, the start 10.00 ms, wanted 8.00 ms" in text
    found = yaml.safe_load(text)
    assert "init_from" not in found["model"]
    assert found["trainer"] == {"max_epochs": 3}
    built, wanted = build_detector(found["model"]), build_detector(with_widths(START, TWO))
    assert [tuple(p.shape) for p in built.parameters()] == [tuple(p.shape) for p in wanted.parameters()]


def test_found_config__width_and_reduced_tail_are_stated_as_rows() -> None:
    backbone = {
        "class_path": "detect.model.backbones.MobileNetV3",
        "init_args": {"size": "small", "width": 0.35, "reduced_tail": True, "weights": None},
    }
    config: dict[str, Any] = {"model": {"backbone": backbone, "num_classes": 2}}
    start = explicit(config["model"])
    found = found_config(config, start)["model"]
    assert not found["backbone"]["init_args"].keys() & {"width", "reduced_tail"}
    built, wanted = build_detector(found), build_detector(config["model"])
    assert [tuple(p.shape) for p in built.parameters()] == [tuple(p.shape) for p in wanted.parameters()]


def test_progress__says_what_was_tried_and_what_is_left(
    state: SearchState, capsys: pytest.CaptureFixture[str]
) -> None:
    # 0.1 of the start is left to take, 0.05 * 0.96^2 in the next step: 3 steps of 4 proposals, one is scored.
    assert remaining(state, decay=0.96, workers=1)[:2] == (4, 11)
    with SearchProgress(unit="ms", scale=1.0, decay=0.96, workers=1) as progress:
        progress(state)
        state.unfinished = None
        progress(state)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "  step 3, 1 of 4: last 48 -> 40, predicted 8.60 ms, mAP 0.200 (-0.190), 20 s".replace("48", last()),
        "step 2: extra.out 32 -> 24: 9.00 ms, mAP 0.390 on held-out images (predicted 9.10, error 1.1%); "
        "about 4 min left",
    ]


def last() -> str:
    """Channels of the start's last convolution."""
    return str(WIDTHS["last"])
