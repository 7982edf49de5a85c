from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from detect.commands import sweep as sweep_module
from detect.commands.sweep import SweepOptions, sweep
from detect.commands.sweep_jobs import Job, plan_jobs
from detect.errors import InputError, RunStopped
from detect.system.output_folder import alone_in

CPU_ALONE = SweepOptions([()])


def jobs_of(tmp_path: Path, seeds: tuple[int, ...] = (0,), **configs: str) -> list[Job]:
    paths = []
    for name, content in configs.items():
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(content)
    return plan_jobs(paths, seeds, tmp_path / "out", ("--data.root", "d"))


def commands(calls: Path) -> list[str]:
    """Command and folder of each call."""
    lines = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
    return [
        f"{line[3]} {Path(line[line.index('--out') + 1]).name}" if line[3] == "fit" else line[3]
        for line in lines
    ]


@pytest.mark.slow
def test_sweep__trains_exports_benchmarks_and_compares(tmp_path: Path, calls: Path) -> None:
    jobs = jobs_of(tmp_path, (0, 1), a="one", b="two")
    assert sweep(jobs, tmp_path / "out", CPU_ALONE) == 0
    assert commands(calls) == [
        *("fit a-seed0", "export", "fit b-seed0", "export"),
        *("fit a-seed1", "export", "fit b-seed1", "export"),
        "benchmark",
    ]
    benchmark = json.loads(calls.read_text().splitlines()[-1])
    measured = [argument for argument in benchmark if str(argument).endswith("model.onnx")]
    assert measured == [str(tmp_path / "out" / name / "model.onnx") for name in ("a-seed0", "b-seed0")]
    table = (tmp_path / "out" / "comparison" / "table.md").read_text()
    assert "| a | 2 | 0.500 ± 0.000" in table
    assert "onnxruntime (ms)" in table.splitlines()[2]  # the rows are tied to the runs


@pytest.mark.slow
def test_sweep__again__nothing_is_done_twice(tmp_path: Path, calls: Path) -> None:
    jobs = jobs_of(tmp_path, a="one")
    sweep(jobs, tmp_path / "out", CPU_ALONE)
    calls.unlink()
    assert sweep(jobs, tmp_path / "out", CPU_ALONE) == 0
    assert commands(calls) == []
    (tmp_path / "out" / "a-seed0" / "metrics.json").unlink()
    sweep(jobs, tmp_path / "out", CPU_ALONE)
    assert commands(calls)[0] == "fit a-seed0"


@pytest.mark.slow
def test_sweep__benchmark_without_hashes_of_the_weights__measured_again(tmp_path: Path, calls: Path) -> None:
    jobs = jobs_of(tmp_path, a="one")
    sweep(jobs, tmp_path / "out", CPU_ALONE)
    calls.unlink()
    benchmark = tmp_path / "out" / "benchmark.json"
    content = json.loads(benchmark.read_text())
    del content["rows"][0]["checkpoint_sha256"]
    benchmark.write_text(json.dumps(content))
    sweep(jobs, tmp_path / "out", CPU_ALONE)
    assert commands(calls) == ["benchmark"]


@pytest.mark.slow
def test_sweep__failing_job__told_and_the_rest_goes_on(
    tmp_path: Path, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = jobs_of(tmp_path, a="bad", b="two")
    assert sweep(jobs, tmp_path / "out", CPU_ALONE) == 1
    assert commands(calls) == ["fit a-seed0", "fit b-seed0", "export", "benchmark"]
    log = tmp_path / "out" / "logs" / "a-seed0.fit.log"
    assert f"FAILED a-seed0: fit ended with 3: the reason (log: {log})" in capsys.readouterr().out
    (tmp_path / "out" / "a-seed0" / "mended").touch()
    assert sweep(jobs, tmp_path / "out", CPU_ALONE) == 0
    assert commands(calls)[4:] == ["fit a-seed0", "export", "benchmark"]  # there is a new file to measure


@pytest.mark.slow
def test_sweep__two_gpus__two_jobs_at_a_time_each_on_its_own(tmp_path: Path, calls: Path) -> None:
    jobs = jobs_of(tmp_path, a="together, one", b="together, two", c="three")
    assert sweep(jobs, tmp_path / "out", SweepOptions([("4",), ("5",)])) == 0  # neither waited in vain
    fits = [json.loads(line) for line in calls.read_text().splitlines() if '"fit"' in line]
    assert {fit[1] for fit in fits[:2]} == {"4", "5"}
    ended = [(tmp_path / "out" / f"{job}-seed0" / "metrics.json").stat().st_mtime for job in "ab"]
    assert fits[2][0] > min(ended)
    assert all(fit[fit.index("--trainer.devices") + 1] == "1" for fit in fits)


@pytest.mark.slow
def test_sweep__no_run_folder_is_inherited(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECT_RUN", "elsewhere")
    sweep(jobs_of(tmp_path, a="one"), tmp_path / "out", CPU_ALONE)
    assert json.loads(calls.read_text().splitlines()[0])[2] is False


@pytest.fixture
def terminated_when_ready(tmp_path: Path) -> Iterator[None]:
    """SIGTERM to this process once the job has begun."""

    def terminate() -> None:
        ready, until = tmp_path / "out" / "a-seed0" / "ready", time.monotonic() + 30
        while not ready.exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    yield
    thread.join()


@pytest.mark.usefixtures("terminated_when_ready")
def test_sweep__terminated__jobs_save_and_the_sweep_stops(tmp_path: Path, calls: Path) -> None:
    jobs = jobs_of(tmp_path, a="slow", b="two")
    with pytest.raises(RunStopped, match="the same command resumes it") as stopped:
        sweep(jobs, tmp_path / "out", CPU_ALONE)
    assert stopped.value.exit_code == 143
    assert (tmp_path / "out" / "a-seed0" / "saved").exists()
    assert commands(calls) == ["fit a-seed0"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_sweep__export_packages_missing__said_and_left_out(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_module, "EXPORT_PACKAGES", ("no_such_package",))
    assert sweep(jobs_of(tmp_path, a="one"), tmp_path / "out", CPU_ALONE) == 0
    assert commands(calls) == ["fit a-seed0"]
    assert "export and benchmark are left out: no_such_package not installed" in capsys.readouterr().out


@pytest.mark.parametrize("changed", ["configuration", "flags"])
def test_sweep__begun_with_other_settings__error(tmp_path: Path, calls: Path, changed: str) -> None:
    jobs = jobs_of(tmp_path, a="one")
    sweep(jobs, tmp_path / "out", CPU_ALONE)
    if changed == "configuration":
        jobs[0].config.write_text("two")
    else:
        jobs = plan_jobs([jobs[0].config], [0], tmp_path / "out", ("--data.root", "other"))
    with pytest.raises(InputError, match="has a-seed0 begun with another configuration or other flags"):
        sweep(jobs, tmp_path / "out", CPU_ALONE)


def test_sweep__another_works_in_the_folder__error(tmp_path: Path, calls: Path) -> None:
    jobs = jobs_of(tmp_path, a="one")
    with alone_in(tmp_path / "out", "runs a sweep in"):
        with pytest.raises(InputError, match=r"another process runs a sweep in .*out; wait for it"):
            sweep(jobs, tmp_path / "out", CPU_ALONE)
    assert commands(calls) == []


@pytest.mark.parametrize("text", ["{", "[" * 50_000], ids=["open", "deep"])
def test_sweep__state_file_broken__error(tmp_path: Path, calls: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.json").write_text(text)
    with pytest.raises(InputError, match=r"sweep\.json is broken .* remove it to run every job again"):
        sweep(jobs_of(tmp_path, a="one"), tmp_path / "out", CPU_ALONE)


def test_fit_command__several_gpus__torchrun(tmp_path: Path) -> None:
    command = jobs_of(tmp_path, a="one")[0].fit_command(("0", "1"))
    assert command[1:9] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("-m", "detect", "fit"),
    ]
    assert command[-4:] == ["--data.root", "d", "--trainer.devices", "2"]


def test_plan_jobs__cannot_be__error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.yaml").touch()
    with pytest.raises(InputError, match=r"absent\.yaml: no such configuration"):
        plan_jobs([tmp_path / "absent.yaml"], [0], tmp_path, ())
    with pytest.raises(InputError, match="two configurations are named a"):
        plan_jobs([tmp_path / "a.yaml", tmp_path / "b" / "a.yaml"], [0], tmp_path, ())
    with pytest.raises(InputError, match="--seeds 0 0: give one or more, each once"):
        plan_jobs([tmp_path / "a.yaml"], [0, 0], tmp_path, ())
