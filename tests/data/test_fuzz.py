from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz_data import CPU_LIMIT_S, Fuzzer, Outcome
from tests.mutations import MUTATIONS


def failures(outcomes: list[Outcome]) -> list[str]:
    return [f"{o.format}, {o.mutation}: {o.detail}" for o in outcomes if o.end not in ("usable", "refused")]


@pytest.fixture(autouse=True)
def no_advice_about_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time of a check, and not about files."""
    monkeypatch.setattr("detect.inspection.anchor_fit.advise", lambda *_: [])


@pytest.mark.slow
def test_slice__usable_or_refused_with_a_name(tmp_path: Path) -> None:
    fuzzer = Fuzzer(tmp_path, seed=1)
    outcomes = [fuzzer.run(number) for number in range(30)]
    assert failures(outcomes) == []
    assert {"usable", "refused"} == {outcome.end for outcome in outcomes}
    assert len({outcome.mutation for outcome in outcomes}) > 15
    assert max(outcome.cpu_s for outcome in outcomes) < CPU_LIMIT_S


@pytest.mark.slow
def test_every_mutation__often(tmp_path: Path) -> None:
    fuzzer = Fuzzer(tmp_path, seed=0)  # its first sixty have every mutation
    outcomes = [fuzzer.run(number) for number in range(60)]
    assert failures(outcomes) == []
    assert {outcome.mutation for outcome in outcomes} == set(MUTATIONS)


def test_case__is_a_function_of_seed_and_number(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one, other = Fuzzer(tmp_path / "one", seed=3), Fuzzer(tmp_path / "other", seed=3)
    for number in (4, 5):
        assert one.run(number)[:4] == other.run(number)[:4]


def test_harm_done_outside__is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzer = Fuzzer(tmp_path, seed=0)

    def write_outside(root: Path) -> None:
        (fuzzer.outside / "new.txt").write_text("")
        raise RuntimeError("never reached by a traceback")

    monkeypatch.setattr("tests.fuzz_data.check", write_outside)
    outcome = fuzzer.run(0)
    assert outcome.end == "FAILED"
    assert "never reached" in outcome.detail
