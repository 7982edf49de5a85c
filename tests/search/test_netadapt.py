"""Searches on a tiny network with latencies that follow from its widths."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from detect.data.datamodule import DetectionData
from detect.errors import InputError
from detect.model.checkpoint import checkpoint_content, read_checkpoint, write_checkpoint
from detect.search import netadapt
from detect.search.netadapt import (
    MultiplyAdds,
    NetAdaptOptions,
    Search,
    in_order,
    ratio_for,
    steps_needed,
)
from detect.search.proposals import OneByOne, PerDevice, Task, Trainer
from detect.search.state import (
    STATE_FILE,
    Proposal,
    SearchState,
    Step,
    read_state,
    refuse_other_settings,
)
from detect.search.trial import TrialOptions, Trials
from detect.search.widths import Widths, explicit, widths_of
from detect.system.devices import CPU
from tests.conftest import make_coco
from tests.fit_cases import differences
from tests.search.cases import FIXED_MS, MS_PER_CHANNEL, SETTINGS, latency_ms

pytestmark = pytest.mark.slow

TRAINING: dict[str, Any] = {
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05, "momentum": 0.9}},
    "statistics_images": 4,
}
START = explicit({**SETTINGS, "num_classes": 3})
START_MS = latency_ms(START)
OPTIONS = NetAdaptOptions(0.85 * START_MS, ratio=0.04)


class Killed(BaseException):
    """Stands for a kill -9: nothing of ours catches it."""


class ByWidths:
    """Predicts what `latency_ms` says, but for the shares of a group of blocks, which it takes once."""

    def predict(self, widths: Widths, *, base: Widths, base_value: float) -> float:
        return base_value + MS_PER_CHANNEL * sum(widths[name] - base[name] for name in widths)

    def lowest(self, name: str) -> int:
        return 8


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_coco(tmp_path_factory.mktemp("search") / "coco", train=10, val=2)


def open_trials(root: Path, **options: Any) -> Trials:
    data = DetectionData(root, total_batch_size=2, workers=0, image_size=(64, 64), check_images=False)
    data.open(("train",))
    settings = TrialOptions(train_steps=2, held_out=0.3, **options)
    return Trials(TRAINING, data, settings, device=torch.device("cpu"))


def make_search(
    folder: Path,
    root: Path,
    options: NetAdaptOptions = OPTIONS,
    *,
    trainer: Trainer | None = None,
    **trial: Any,
) -> Search:
    """The search of `folder`, begun or as far as it is."""
    trials = open_trials(root, **trial)
    trainer = trainer or OneByOne(trials)
    (folder / "networks").mkdir(parents=True, exist_ok=True)
    state = read_state(folder / STATE_FILE)
    if state is None:
        torch.manual_seed(0)
        write_checkpoint(folder / "networks" / "000.ckpt", checkpoint_content(trials.module(START).detector))
        state = SearchState(folder / STATE_FILE, {}, START_MS, options.target_ms, options.ratio)
    resource = MultiplyAdds(START, least=0.5) if options.resource == "madds" else ByWidths()
    return Search(folder, START, state, options, trainer, resource, measure=latency_ms)


def network_of(search: Search) -> dict[str, Any]:
    return read_checkpoint(search.network_file(search.state.current.number)).raw


def without_seconds(state: SearchState) -> list[Any]:
    content = json.loads(state.path.read_text())["steps"]
    for step in content:
        for proposal in step["proposals"]:
            del proposal["seconds"]
    return content


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Search:
    search = make_search(tmp_path_factory.mktemp("whole"), data_root)
    search.run()
    return search


def test_search__every_step_takes_its_share_until_the_network_is_fast_enough(whole: Search) -> None:
    first, *steps = whole.state.steps
    assert first.measured_ms == START_MS
    assert first.widths == widths_of(START)
    before = first
    assert len(steps) >= 2
    for step in steps:
        wanted = before.value - OPTIONS.reduction(step.number) * START_MS
        assert step.target == pytest.approx(max(wanted, OPTIONS.target_ms))
        assert step.accepted is not None
        assert {name for name in step.widths if step.widths[name] != before.widths[name]} == {step.accepted}
        for proposal in step.proposals:
            assert proposal.channels % 8 == 0
            assert proposal.predicted <= step.target
        best = max(
            step.proposals, key=lambda p: (p.accuracy - before.accuracy) / (before.value - p.predicted)
        )
        assert step.accepted == best.name
        assert step.widths[best.name] == best.channels
        before = step
    assert whole.state.current.measured_ms <= OPTIONS.target_ms < whole.state.steps[-2].measured_ms
    # Of a group of two blocks the prediction takes one: 8 channels less are 0.08 ms, and were 0.16 ms.
    assert whole.state.median_error is not None
    assert whole.state.median_error < 0.05
    assert [path.name for path in sorted((whole.folder / "networks").iterdir())] == [
        "000.ckpt",
        f"{before.number:03d}.ckpt",
    ]


def test_search__network_on_disk_has_the_widths_and_scores_what_was_noted(
    whole: Search, data_root: Path
) -> None:
    current = whole.state.current
    checkpoint = read_checkpoint(whole.network_file(current.number))
    found = explicit(checkpoint.description["model"])
    assert widths_of(found) == current.widths
    assert latency_ms(found) == pytest.approx(current.measured_ms)
    trials = open_trials(data_root)
    assert trials.score(trials.load(found, checkpoint)) == current.accuracy


def test_search_killed_ten_times__gives_the_same_network(
    whole: Search, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = {"count": 0}
    write, write_network = SearchState.write, netadapt.write_checkpoint

    def die_sometimes(moment: str) -> None:
        events["count"] += 1
        if events["count"] % 3 == 0:
            raise Killed(moment)

    def write_or_die(state: SearchState) -> None:
        die_sometimes("before the state is written")
        write(state)
        die_sometimes("after it was written")

    def write_network_or_die(path: Path, content: dict[str, Any]) -> None:
        write_network(path, content)
        die_sometimes("after a network is written")

    monkeypatch.setattr(SearchState, "write", write_or_die)
    monkeypatch.setattr(netadapt, "write_checkpoint", write_network_or_die)
    kills = 0
    while True:
        search = make_search(tmp_path, data_root)
        try:
            search.run()
        except Killed:
            kills += 1
            continue
        break
    assert kills >= 10
    assert not differences(network_of(search), network_of(whole))
    assert without_seconds(search.state) == without_seconds(whole.state)
    assert sorted(path.name for path in (tmp_path / "networks").iterdir()) == sorted(
        path.name for path in (whole.folder / "networks").iterdir()
    )


@pytest.mark.slow  # two processes import torch
def test_search_with_a_process_per_device__gives_the_same_network(
    whole: Search, tmp_path: Path, data_root: Path
) -> None:
    with PerDevice([CPU, CPU], partial(open_trials, data_root)) as trainer:
        for process, _ in trainer.workers:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)  # as Ctrl-C does, while they begin
        search = make_search(tmp_path, data_root, trainer=trainer)
        search.run()
        assert not differences(network_of(search), network_of(whole))
        assert without_seconds(search.state) == without_seconds(whole.state)
        for process, _ in trainer.workers:
            process.kill()
        with pytest.raises(InputError, match=r"was killed from outside, .* the same command resumes"):
            list(trainer.run([Task(0, START, search.network_file(0), None)]))


def test_best_of_equal_proposals__the_first_of_the_network(whole: Search) -> None:
    before = whole.state.steps[-2]
    first, second = list(before.widths)[:2]
    equal = [Proposal(name, 8, before.value, 0.5, 1.0) for name in (second, first)]
    assert in_order(Step(9, before.widths, 1.0, equal)) == equal[::-1]


def test_trials__every_proposal_of_a_step_sees_the_same_batches_and_none_that_score(data_root: Path) -> None:
    trials, again = open_trials(data_root), open_trials(data_root)
    first, second = trials.batches(1), again.batches(1)
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, second, strict=True))
    assert trials.batches(1) is first
    assert not torch.equal(trials.batches(2)[0].images, first[0].images)
    trained = {name for name in trials.data.train.file_names.tolist()}
    scored = {name for name in trials.scored.file_names.tolist()}
    assert len(trained) == 7
    assert len(scored) == 3
    assert not trained & scored
    assert not hasattr(trials.data, "val")  # validation images are not even read


@pytest.mark.parametrize(
    ("options", "trial"),
    [
        (NetAdaptOptions(0.97 * START_MS, ratio=0.1, proposals="random", resource="madds"), {}),
        (
            NetAdaptOptions(0.93 * START_MS, ratio=0.05, proposals="random", step_channels=16),
            {"keep": "taylor"},
        ),
    ],
)
def test_search__random_proposals_multiply_adds_and_taylor(
    options: NetAdaptOptions, trial: dict[str, Any], tmp_path: Path, data_root: Path
) -> None:
    search = make_search(tmp_path, data_root, options, **trial)
    search.run()
    assert search.state.current.measured_ms <= options.target_ms
    for step in search.state.steps[1:]:
        assert len(step.proposals) == 1
        assert step.proposals[0].channels % options.step_channels == 0
        assert (step.predicted_ms is None) == (options.resource == "madds")


def test_search__nothing_small_enough__ends(tmp_path: Path, data_root: Path) -> None:
    search = make_search(tmp_path, data_root, NetAdaptOptions(FIXED_MS / 2, ratio=0.6))
    search.run()
    assert len(search.state.steps) == 1


def test_steps_and_ratio() -> None:
    # 0.03 (1 + 0.96 + ... 0.96^6) = 0.187, with an eighth 0.209
    assert steps_needed(0.2, ratio=0.03, decay=0.96) == 8
    assert steps_needed(0.2, ratio=0.05, decay=1.0) == 4
    assert steps_needed(0.8, ratio=0.03, decay=0.96) is None  # 0.03 / 0.04 is all that it can take
    assert ratio_for(0.2, 3, decay=0.5) == pytest.approx(0.2 / 1.75)


def test_state__broken_or_other_settings__refused(tmp_path: Path) -> None:
    path = tmp_path / STATE_FILE
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read as the state of a search"):
        read_state(path)
    state = SearchState(path, {"target": 0.8, "seed": 0}, 2.0, 1.6, 0.03)
    refuse_other_settings(state, {"target": 0.8, "seed": 0})
    with pytest.raises(InputError, match=r"other settings: target 0.8 \(now 0.7\). Give the same ones"):
        refuse_other_settings(state, {"target": 0.7, "seed": 0})
