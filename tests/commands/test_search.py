"""`detect search` from its words to found.yaml, with latencies that follow from the widths."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from detect.commands import search as search_module
from detect.commands import search_training
from detect.commands.main import main
from detect.deploy.latency import Protocol
from detect.errors import InputError
from detect.model.checkpoint import checkpoint_content, write_checkpoint
from detect.search.measure import Bench
from detect.search.netadapt import Search
from detect.search.state import SearchState
from detect.search.widths import explicit, widths_of
from detect.training.build import build_module
from detect.types import ClassMap
from tests.conftest import CLASSES, make_coco
from tests.search.cases import ROWS, SETTINGS, latency_ms

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "model": {
        **SETTINGS,
        "num_classes": None,
        "statistics_images": 0,
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}},
    },
    "data": {"total_batch_size": 2, "workers": 0},
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
}


class ByWidths(Bench):
    """In place of `Bench`: exact latencies by `latency_ms`."""

    def __init__(self, folder: Path, options: Any) -> None:
        assert isinstance(options.protocol, Protocol)

    def measure(self, networks: list[dict[str, Any]]) -> list[Any]:
        return [latency_ms(stated) * np.array([1.0, 1.1, 1.2]) for stated in networks]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, its data set and a start."""
    folder = tmp_path_factory.mktemp("case")
    (folder / "my.yaml").write_text(yaml.safe_dump(CONFIG))
    make_coco(folder / "coco", train=10, val=2)
    detector = build_module({**SETTINGS, "num_classes": 3}).detector
    detector.classes = ClassMap(tuple(CLASSES.values()), tuple(CLASSES))
    write_checkpoint(folder / "start.ckpt", checkpoint_content(detector))
    return folder


@pytest.fixture(autouse=True)
def latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "Bench", ByWidths)


def words(case: Path, out: Path, *more: str) -> list[str]:
    files = ["--config", str(case / "my.yaml"), "--data.root", str(case / "coco"), "--out", str(out)]
    return ["search", *files, "--ckpt_path", str(case / "start.ckpt"), "--train_steps", "1", *more]


BUDGET = ("--target", "0.93", "--steps", "2", "--points", "2", "--search_only")


@pytest.mark.slow
def test_search__stopped_and_resumed__writes_the_network_and_its_page(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "S"
    write, seen = SearchState.write, {"proposals": 0}

    def interrupted(state: SearchState) -> None:
        write(state)
        seen["proposals"] += 1
        if seen["proposals"] == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SearchState, "write", interrupted)
    assert main(words(case, out, *BUDGET)) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert "is under way: 3 of" in (out / "search.html").read_text()
    assert main(words(case, out, *BUDGET)) == 0

    state = json.loads((out / "search.json").read_text())
    first, last = state["steps"][0], state["steps"][-1]
    assert last["measured_ms"] <= 0.93 * state["start_ms"] < state["steps"][-2]["measured_ms"]
    assert all(step["error"] < 0.05 for step in state["steps"][1:])
    found = yaml.safe_load((out / "found.yaml").read_text())["model"]
    assert widths_of(explicit({**found, "num_classes": 3})) == last["widths"] != first["widths"]
    assert (out / "latency_table.json").is_file()
    assert "Found by detect search" in (out / "found.yaml").read_text()
    shown = capsys.readouterr().out
    assert f"written: {out / 'found.yaml'}, {out / 'search.html'}" in shown
    assert f"step {last['number']}: {last['accepted']}" in shown

    assert main(words(case, out, "--target", "0.5", *BUDGET[2:])) == 2
    assert "other settings: target 0.93 (now 0.5)" in capsys.readouterr().err


def test_search__flags_reach_found_yaml_and_both_are_trained_and_compared(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []

    def no_sweep(jobs: list[Any], out: Path, options: Any) -> int:
        trained.extend(jobs)
        return 0

    monkeypatch.setattr(search_training, "sweep", no_sweep)
    monkeypatch.setattr(Search, "run", lambda self: self._first())
    flags = ["--trainer.max_epochs", "7", "--seeds", "0", "1", "--target_ms", "2.0", "--hours", "1"]
    assert main(words(case, tmp_path / "S", "--points", "1", *flags)) == 0
    assert [job.name for job in trained] == ["my-seed0", "my-seed1", "found-seed0", "found-seed1"]
    found = yaml.safe_load((tmp_path / "S" / "found.yaml").read_text())
    assert found["trainer"] == {"max_epochs": 7, "accelerator": "cpu"}
    assert "root" not in found["data"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "give --target (a share of the start's latency) or --target_ms, one of them"),
        (["--target", "1.5"], "--target is 1.5; give a share"),
        (["--target", "0.8", "--steps", "3", "--hours", "1"], "give --steps or --hours, one of them"),
        (["--target", "0.8", "--decay", "0"], "--decay is 0.0; give a number above 0"),
        (["--target", "0.8", "--held_out", "1"], "--held_out is 1.0; give a share"),
        (["--target", "0.8", "--most_held_out", "0"], "--most_held_out is 0; give 1 or more"),
        (["--target", "0.8", "--train_steps", "0"], "--train_steps is 0"),
    ],
)
def test_wrong_options__refused(
    case: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(case, tmp_path / "S"), *more]) == 2
    assert message in capsys.readouterr().err


def test_a_start_named_as_what_is_found__refused(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = case / "found.yaml"
    same.write_bytes((case / "my.yaml").read_bytes())
    assert main([*words(case, tmp_path / "S", "--target", "0.8"), "--config", str(same)]) == 2
    assert "found.yaml: what is found is trained beside it" in capsys.readouterr().err


def test_start_of_another_network__refused(case: Path) -> None:
    rows = [*ROWS[:-1], [3, 72, 40, False, "HS", 2]]
    other = {**SETTINGS, "backbone": {**SETTINGS["backbone"], "init_args": {"size": "small", "rows": rows}}}
    checkpoint = search_module.read_checkpoint(case / "start.ckpt")
    with pytest.raises(InputError, match=r"start.ckpt is not the network of my.yaml: block5.expansion is 64"):
        search_module.start_of(checkpoint, Path("my.yaml"), {"model": other})
