"""What `detect sweep --slurm` asks of SLURM and makes of the answers; tests/test_slurm.py has a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from submitit.core.utils import FailedJobError

from detect.commands import sweep_slurm
from detect.commands.main import main
from detect.commands.sweep import SweepOptions, sweep
from detect.commands.sweep_slurm import (
    SHIELDED,
    Command,
    Slurm,
    SlurmTask,
    ask_queue,
    sbatch_options,
    to_minutes,
)
from detect.errors import InputError, RunStopped
from tests.commands.test_sweep import commands, jobs_of

ON_SLURM = SweepOptions((), elsewhere=Slurm({}))


class FakeCluster:
    """Takes an array; its tasks run when someone looks at the queue for the second time."""

    def __init__(self) -> None:
        self.arrays: list[list[SlurmTask]] = []
        self.pending: dict[str, SlurmTask] = {}
        self.looks = 0
        self.refuses = False
        self.loses: set[str] = set()

    def submit_array(self, tasks: Sequence[SlurmTask]) -> list[SimpleNamespace]:
        if self.refuses:
            raise FailedJobError("sbatch: error: invalid partition specified: nope")
        self.arrays.append(list(tasks))
        ids = [f"{len(self.arrays)}_{i}" for i in range(len(tasks))]
        self.pending |= dict(zip(ids, tasks, strict=True))
        return [SimpleNamespace(job_id=name) for name in ids]

    def queue(self) -> dict[str, tuple[str, str]] | None:
        self.looks += 1
        if self.looks % 2:
            return {name: ("RUNNING", "node-1") for name in self.pending}
        if self.looks == 2:
            return None  # SLURM is busy
        for name, task in self.pending.items():
            if name not in self.loses:
                task()
        self.pending = {}
        return {}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, calls: Path) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(Slurm, "executor", lambda self, out: fake)
    monkeypatch.setattr(sweep_slurm, "ask_queue", fake.queue)
    monkeypatch.setattr(sweep_slurm, "ASK_SECONDS", 0)
    return fake


def slurm_ids(out: Path) -> dict[str, str]:
    state = json.loads((out / "sweep.json").read_text())["jobs"]
    return {name: job["slurm"] for name, job in state.items()}


@pytest.mark.slow
def test_one_array_trains_exports_and_is_compared(
    tmp_path: Path, calls: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = jobs_of(tmp_path, (0, 1), a="one", b="two")
    assert sweep(jobs, tmp_path / "out", ON_SLURM) == 0
    assert len(cluster.arrays) == 1
    assert commands(calls).count("export") == 4
    assert commands(calls)[-1] == "benchmark"
    assert "| a | 2 | 0.500 ± 0.000" in (tmp_path / "out" / "comparison" / "table.md").read_text()
    said = capsys.readouterr().out
    assert "4 jobs are sent to SLURM as 1" in said
    assert "SLURM does not answer\nSLURM answers again\n" in said
    assert "a-seed0: runs on node-1" in said
    assert "a-seed0: fit done in 0:00:0" in said
    assert slurm_ids(tmp_path / "out") == {job.name: f"1_{i}" for i, job in enumerate(jobs)}


@pytest.mark.slow
def test_again__what_failed_is_sent_alone(
    tmp_path: Path, calls: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = jobs_of(tmp_path, a="bad", b="two")
    assert sweep(jobs, tmp_path / "out", ON_SLURM) == 1
    log = tmp_path / "out" / "logs" / "a-seed0.fit.log"
    assert f"FAILED a-seed0: fit ended with 3: the reason (log: {log})" in capsys.readouterr().out
    (tmp_path / "out" / "a-seed0" / "mended").touch()
    assert sweep(jobs, tmp_path / "out", ON_SLURM) == 0
    assert [len(array) for array in cluster.arrays] == [2, 1]
    assert "1 of 2 jobs are done already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_job_that_ends_without_a_result_is_told(
    tmp_path: Path, calls: Path, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.loses = {"1_0"}
    assert sweep(jobs_of(tmp_path, a="one", b="two"), tmp_path / "out", ON_SLURM) == 1
    said = capsys.readouterr().out
    assert "FAILED a-seed0: SLURM's job 1_0 ended without a result: it wrote nothing" in said
    assert "1 of 2 jobs are trained" in said


@pytest.mark.slow
def test_jobs_of_an_interrupted_sweep_are_waited_for_not_sent_twice(
    tmp_path: Path, calls: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, out = jobs_of(tmp_path, a="one", b="two"), tmp_path / "out"

    def interrupt() -> dict[str, tuple[str, str]]:
        if cluster.arrays:
            os.kill(os.getpid(), signal.SIGTERM)
        return {name: ("PENDING", "") for name in cluster.pending}

    with monkeypatch.context() as patch:
        patch.setattr(sweep_slurm, "ask_queue", interrupt)
        with pytest.raises(
            RunStopped, match=r"2 jobs stay in SLURM's queue: .* `scancel 1` ends them"
        ) as stop:
            sweep(jobs, out, ON_SLURM)
    assert stop.value.exit_code == 143
    cluster.pending.pop("1_1")()  # it ends while no one waits
    assert sweep(jobs, out, ON_SLURM) == 0
    assert len(cluster.arrays) == 1
    assert commands(calls).count("export") == 2


def test_refused_by_sbatch__error(tmp_path: Path, calls: Path, cluster: FakeCluster) -> None:
    cluster.refuses = True
    with pytest.raises(InputError, match="SLURM refuses the jobs: sbatch: error: invalid partition"):
        sweep(jobs_of(tmp_path, a="one"), tmp_path / "out", ON_SLURM)


def test_before_its_time_is_over_a_job_saves_and_runs_again(tmp_path: Path) -> None:
    command = Command("fit", [*SHIELDED, sys.executable, "-S", "-c", TRAINS], tmp_path / "log")
    task = SlurmTask([command], tmp_path / "result")
    again = []

    def warn(signum: int, frame: object) -> None:
        again.append(task.checkpoint())
        raise SystemExit  # as submitit does once the job is queued again

    before = signal.signal(signal.SIGUSR2, warn)
    try:
        helper = subprocess.Popen([sys.executable, "-S", "-c", WARN, str(os.getpid()), str(tmp_path / "log")])
        with pytest.raises(SystemExit):
            task()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert helper.wait() == 0
    assert (
        tmp_path / "log"
    ).read_text() == "on\n"  # SIGUSR2 ended neither the command nor what stands before it
    assert task.process.wait() == 143
    assert again[0].function.commands == [command]
    assert not (tmp_path / "result").exists()


TRAINS = """
import signal, sys, time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("on", flush=True)
time.sleep(60)
"""
WARN = """
import os, signal, sys, time
from pathlib import Path

task, log = int(sys.argv[1]), Path(sys.argv[2])
while not (log.exists() and log.read_text()):
    time.sleep(0.02)
children = Path(f"/proc/{task}/task/{task}/children").read_text().split()
for process in [*(int(child) for child in children if int(child) != os.getpid()), task]:
    os.kill(process, signal.SIGUSR2)
    time.sleep(0.2)
"""


@pytest.fixture
def slurm_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of SLURM that do nothing, alone on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue"):
        (folder / name).write_text("#!/bin/sh\necho '12_1|RUNNING|node-[1-2]'\necho '12_2|PENDING|'\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_what_sbatch_is_given(tmp_path: Path, slurm_programs: Path) -> None:
    words = ("time=1-12:00:00", "gpus_per_node=a100:2", "--partition=gpu", "exclusive", "array-parallelism=4")
    executor = Slurm(sbatch_options(words)).executor(tmp_path / "table6")
    text = executor._make_submission_file_text("detect", "x")
    for line in (
        "time=2160",
        "gpus-per-node=a100:2",
        "partition=gpu",
        "exclusive",
        "requeue",
        "signal=USR2@300",
    ):
        assert f"#SBATCH --{line}\n" in text, line
    assert "#SBATCH --job-name=table6" in text
    assert (executor.parameters["array_parallelism"], "array-parallelism" in text) == (4, False)


def test_a_gpu_of_slurm_is_not_chosen_again(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, a="one")
    for word, gpus in (("gpus-per-node=2", 2), ("gres=gpu:a100:2", 2), ("gres=gpu", 1), ("gres=tmp:5", 0)):
        words = Slurm(sbatch_options([word])).words(job, "fit")
        given = words[words.index("--trainer.devices") + 1] if "--trainer.devices" in words else "0"
        assert (int(given), "torch.distributed.run" in words) == (gpus, gpus > 1), word


def test_queue(slurm_programs: Path) -> None:
    assert ask_queue() == {"12_1": ("RUNNING", "node-[1-2]"), "12_2": ("PENDING", "")}
    (slurm_programs / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert ask_queue() is None


def test_wrong_words__error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [to_minutes(text) for text in ("90", "1:30:00", "0:00:01", "2-00:00:00")] == [90, 90, 1, 2880]
    with pytest.raises(InputError, match="time=soon: give minutes, H:MM:SS or D-HH:MM:SS"):
        to_minutes("soon")
    with pytest.raises(InputError, match=r"--slurm array=1-3: detect sweep gives sbatch its own --array"):
        sbatch_options(["array=1-3"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="there is no sbatch, srun, squeue on this machine"):
        Slurm({}).executor(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--devices_per_job", "2", "--slurm"], "give --slurm gpus-per-node=2"),
        (["--rounds", "2", "--slurm"], "--rounds is 2; a spread needs at least 3"),
    ],
)
def test_wrong_words__refused_before_any_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: tuple[Path, Path], words: list[str], said: str
) -> None:
    assert main(["sweep", str(case[0]), "--out", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
