import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")

from detect.errors import InputError  # noqa: E402
from detect.search.blocks import BlockOptions, BlockSearch, TrialFailed, reward  # noqa: E402
from detect.search.blocks_page import write_blocks_page  # noqa: E402
from detect.search.study import open_storage, require_optuna  # noqa: E402
from detect.search.widths import explicit, widths_of  # noqa: E402
from tests.search.cases import SETTING, SETTINGS, SteadyBench, latency_ms  # noqa: E402

STATED = explicit(SETTINGS)
OPTIONS = BlockOptions(target=1.0, trials=6)


def accuracy_of(network: dict[str, Any]) -> float:
    """More channels are better, and so is SE; a network of twice the channels is no match for that."""
    rows = network["backbone"]["init_args"]["rows"]
    return 0.3 + 0.1 * sum(row[3] for row in rows) / len(rows) + 1e-5 * sum(widths_of(network).values())


def train(network: dict[str, Any], number: int, after_epoch: Any) -> bool:
    return any(after_epoch(share * accuracy_of(network)) for share in (0.5, 1.0))


def open_search(url: str, options: BlockOptions = OPTIONS, **changes: Any) -> BlockSearch:
    setting = replace(SETTING, **changes)
    return BlockSearch(STATED, options, storage=open_storage(url), setting=setting, bench=SteadyBench())


@pytest.fixture(params=["study.journal", "sqlite:///study.db"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(request.param)


def test_reward_weighs_accuracy_by_latency():
    assert reward(0.5, 1.0, power=-0.15) == 0.5
    assert reward(0.5, 2.0, power=-0.15) == pytest.approx(0.5 * 2**-0.15)
    assert reward(0.5, 0.5, power=-0.07) > 0.5


def test_a_study_is_resumed_and_begins_with_the_start(tmp_path: Path):
    url = str(tmp_path / "s.journal")
    first = open_search(url, replace(OPTIONS, trials=2))
    first.run(train)
    assert [result.number for result in first.results()] == [0, 1]
    assert first.results()[0].params == first.space.start
    assert first.start_ms == pytest.approx(1.5 * latency_ms(STATED))
    again = open_search(url)
    again.run(train)
    results = again.results()
    assert len(results) == 6
    best = again.found()
    assert best.reward == max(result.reward for result in results if result.state == "complete")
    network = again.space.network(best.params)
    assert best.accuracy == pytest.approx(accuracy_of(network))
    assert best.latency_ms == pytest.approx(1.5 * latency_ms(network))
    assert again.to_json()["trials"][best.number]["reward"] == best.reward


def test_bad_trials_are_stopped_early(tmp_path: Path):
    search = open_search(str(tmp_path / "s.journal"), replace(OPTIONS, trials=8))
    epochs: dict[int, int] = {}

    def falling(network: dict[str, Any], number: int, after_epoch: Any) -> bool:
        for epoch in range(3):
            epochs[number] = epoch + 1
            if after_epoch(0.5 if number < 6 else 0.01):
                return True
        return False

    search.run(falling)
    states = [result.state for result in search.results()]
    assert states[6:] == ["pruned", "pruned"]
    assert epochs[6] < epochs[0] == 3
    assert search.found().number < 6


def test_a_front_is_what_nothing_beats(tmp_path: Path):
    options = replace(OPTIONS, goal="pareto", target=0.9)
    search = open_search(str(tmp_path / "s.journal"), options)
    search.run(train)
    front = search.front()
    assert [point.latency_ms for point in front] == sorted(point.latency_ms for point in front)
    assert [point.accuracy for point in front] == sorted(point.accuracy for point in front)
    inside = [r for r in search.results() if r.latency_ms <= search.target_ms]
    expected = max(inside, key=lambda r: r.accuracy) if inside else front[0]
    assert search.found() == expected


def be_killed(url: str) -> None:
    def train(network: dict[str, Any], number: int, after_epoch: Any) -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return False

    open_search(url).run(train)


def test_a_killed_worker_loses_one_trial(url: str):
    open_search(url, replace(OPTIONS, trials=2)).run(train)
    process = multiprocessing.get_context("fork").Process(target=be_killed, args=(url,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    search = open_search(url, replace(OPTIONS, trials=4))
    search.run(train)
    assert [result.state for result in search.results()].count("failed") == 1
    assert sum(result.state != "failed" for result in search.results()) == 4


def test_what_stops_a_trial_fails_it_and_failures_in_a_row_stop_the_search(tmp_path: Path):
    search = open_search(str(tmp_path / "s.journal"))

    def interrupted(network: dict[str, Any], number: int, after_epoch: Any) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search.run(interrupted)

    def broken(network: dict[str, Any], number: int, after_epoch: Any) -> bool:
        raise TrialFailed("no memory")

    with pytest.raises(InputError, match="3 trials failed one after the other: no memory"):
        search.run(broken)
    assert [result.state for result in search.results()] == ["failed"] * 4
    with pytest.raises(InputError, match="no trial was completed"):
        search.found()


def test_workers_of_another_machine_join_only_if_told(tmp_path: Path):
    url = str(tmp_path / "s.journal")
    open_search(url)
    with pytest.raises(InputError, match=r"another machine .*cpu a processor, here b.*--other_machine"):
        open_search(url, cpu="b")
    open_search(url, replace(OPTIONS, other_machine=True), cpu="b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BlockOptions(), "give --target"),
        (BlockOptions(target=1.0, target_ms=3.0), "one of them"),
        (BlockOptions(target=1.0, power=0.1), r"--power is 0\.1"),
        (BlockOptions(target=1.0, trials=0), "--trials is 0"),
    ],
)
def test_wrong_options(options: BlockOptions, message: str):
    with pytest.raises(InputError, match=message):
        options.check()


def test_places_of_studies(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"--study a\.txt: give a file that ends in \.journal"):
        open_storage("a.txt")
    with pytest.raises(InputError, match=r"--study nosuch://x"):
        open_storage("nosuch://x")
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(InputError, match=r"optuna, which is not installed: .*\[search\]"):
        require_optuna()


def test_page__trials_front_and_blocks(tmp_path: Path):
    search = open_search(str(tmp_path / "s.journal"))
    write_blocks_page(tmp_path, search)
    assert not (tmp_path / "search.html").exists()  # nothing is scored yet

    def fails_once(network: dict[str, Any], number: int, after_epoch: Any) -> bool:
        if number == 2:
            raise TrialFailed("trial 2 ended with 3")
        return train(network, number, after_epoch)

    search.run(fails_once)
    write_blocks_page(tmp_path, search)
    page = (tmp_path / "search.html").read_text()
    best, start = search.found(), search.results()[0]
    assert best.params != start.params
    stages = {name for name in best.params if best.params[name] != start.params[name]}
    for words in (
        "onnxruntime 1.0, fp32, 1 thread(s), input 64 x 64 px; a processor",
        f"<dd>{best.accuracy:.3f}</dd>",
        f"<dd>{best.latency_ms:.2f}</dd>",
        f'<td class="left">{next(iter(stages))}</td>',
        f"The other {len(start.params) - len(stages)} choices are the start's.".replace("'", "&#39;"),
        "3x3, 16, SE, RE",
        "failed",
    ):
        assert words in page or words.replace("&#39;", "'") in page, words
    assert page.count("<svg") == 3
    assert page.count("stage 1, 1") == 1
    for result in search.results():
        assert f'<tr><td class="left">{result.number}</td>' in page
    assert "http" not in page.replace("http://www.w3.org", "")
