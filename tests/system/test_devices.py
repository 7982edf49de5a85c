from __future__ import annotations

import subprocess

import pytest

from detect.errors import InputError
from detect.system import devices
from detect.system.devices import CPU, free_gpus, job_slots, memory_share

ANSWER = "0, GPU-aa, 12, 80000\n1, GPU-bb, 40000, 80000\n2, GPU-cc, 0, 80000\n"


@pytest.fixture(autouse=True)
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is in use."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answer = subprocess.CompletedProcess([], 0, stdout=ANSWER)
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: answer)


def test_memory_share__by_index_and_uuid() -> None:
    assert memory_share()["1"] == memory_share()["GPU-bb"] == 0.5


def test_memory_share__no_driver__empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(devices, "QUERY", ("no-such-program",))
    assert memory_share() == {}


def test_free_gpus__the_one_in_use_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert free_gpus() == ["0", "2"]
    assert "GPU 1 is left out: 50% of its memory is in use" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("visible", "expected"), [("2,0", ["2", "0"]), ("GPU-cc", ["GPU-cc"]), ("", []), ("0,-1,2", ["0"])]
)
def test_free_gpus__visible_ones_alone(
    monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert free_gpus() == expected


def test_free_gpus__all_in_use__error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(InputError, match="all GPUs are in use; name those to share with --devices"):
        free_gpus()


def test_job_slots__groups_of_gpus() -> None:
    assert job_slots(None, 1) == [("0",), ("2",)]
    assert job_slots(None, 2) == [("0", "2")]
    assert job_slots(["0", "1", "2"], 2) == [("0", "1")]
    assert job_slots(["1"], 1) == [("1",)]  # named: taken although it is in use


def test_job_slots__no_gpu__one_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert job_slots(None, 1) == [CPU]


@pytest.mark.parametrize(
    ("wanted", "per_job", "message"),
    [
        (["0", "0"], 1, "--devices 0 0: a device is named twice"),
        (["0"], 2, "--devices_per_job 2: there are 1 GPUs to use"),
        (None, 0, "--devices_per_job is 0; a job needs at least 1"),
    ],
)
def test_job_slots__cannot_be__error(wanted: list[str] | None, per_job: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        job_slots(wanted, per_job)
