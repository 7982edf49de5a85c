"""scripts/slurm and `detect sweep --slurm` on a SLURM cluster of two nodes that scripts/test-slurm starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import make_coco
from tests.fit_cases import TINY, run_differences, write_config

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
SEARCHED = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
TIMEOUT_S = 1200
EPOCHS = 6
SMALL_TASKS = ("--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1")


@dataclass
class Cluster:
    """Two nodes; the folder where jobs are sent from."""

    folder: Path
    work: Path
    environment: dict[str, str]

    def call(self, *words: str) -> str:
        done = subprocess.run(
            words,
            cwd=self.work,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=True,
        )
        return done.stdout.strip()

    def script(self, *words: str) -> None:
        action, *rest = words
        self.call("bash", str(SCRIPTS / "test-slurm"), action, str(self.folder), *rest)

    def train(self, name: str, *more: str, root: str = "coco") -> str:
        """Queue a training on both nodes, with more options of sbatch; the id of the job."""
        words = ("--config", "tiny.yaml", "--data.root", root, "--checkpoint_minutes", "0")
        return self.call("sbatch", "--parsable", *SMALL_TASKS, *more, str(SCRIPTS / "slurm"), name, *words)

    def job(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def log(self, job: str) -> str:
        path = self.work / f"detect-{job}.log"
        return path.read_text() if path.exists() else "the job has written nothing"

    def wait_until(self, job: str, *states: str) -> dict[str, str]:
        deadline = time.monotonic() + TIMEOUT_S
        while (now := self.job(job))["JobState"] not in states:
            assert time.monotonic() < deadline, f"{now}\n{self.log(job)}"
            time.sleep(0.5)
        return now

    def wait_for(self, file: Path, job: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not file.exists():
            assert time.monotonic() < deadline, self.log(job)
            time.sleep(0.1)


def missing_programs() -> list[str]:
    """What a cluster needs and this machine has not."""
    return [program for program in PROGRAMS if shutil.which(program, path=SEARCHED) is None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing := missing_programs():
        pytest.skip(f"there is no {', '.join(missing)}: apt-get install slurm-wlm munge")
    folder, work = tmp_path_factory.mktemp("cluster"), tmp_path_factory.mktemp("work")
    python_path = os.pathsep.join([str(SCRIPTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PATH": SEARCHED, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}
    own |= {"DETECT_CACHE": str(work / "cache")}
    # Jobs learn from SLURM alone where ranks meet, not from what a training of another test left behind.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MASTER_")}
    started = Cluster(folder, work, inherited | own)
    write_config(work, {**TINY, "trainer": {**TINY["trainer"], "max_epochs": EPOCHS}})
    make_coco(work / "coco", train=16, val=5)
    started.script("start")
    try:
        for line in (folder / "environment").read_text().splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            started.environment[name] = value
        yield started
    finally:
        started.script("stop")


@pytest.fixture(scope="module")
def straight(cluster: Cluster) -> Path:
    """The run on both nodes that nobody touched."""
    job = cluster.train("straight")
    ended = cluster.wait_until(job, "COMPLETED", "FAILED")
    assert (ended["JobState"], ended["Restarts"], ended["NodeList"].count("-2")) == ("COMPLETED", "0", 1)
    assert "4 images per step = 2 per device x 2 device(s) x 1 forward pass(es)" in cluster.log(job)
    return cluster.work / "straight"


def test_a_job_that_is_queued_again_ends_as_one_that_nobody_touched(cluster: Cluster, straight: Path) -> None:
    job = cluster.train("requeued")
    cluster.wait_for(cluster.work / "requeued" / "metrics.csv", job)
    cluster.call("scontrol", "requeue", job)
    ended = cluster.wait_until(job, "COMPLETED", "FAILED")
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), cluster.log(job)
    assert "DUE TO JOB REQUEUE" in cluster.log(job)
    assert "continuing requeued/checkpoints/last.ckpt" in cluster.log(job)
    assert run_differences(straight, cluster.work / "requeued") == []


def test_a_job_whose_time_is_over_is_queued_again(cluster: Cluster, straight: Path) -> None:
    job = cluster.train("warned")
    cluster.wait_for(cluster.work / "warned" / "metrics.csv", job)
    cluster.call("scancel", "--signal=TERM", job)  # as --signal does before the time is over
    ended = cluster.wait_until(job, "COMPLETED", "FAILED")
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), cluster.log(job)
    assert "stopped by SIGTERM; everything up to here is in warned/checkpoints/last.ckpt" in cluster.log(job)
    assert run_differences(straight, cluster.work / "warned") == []


STUB = """#!/bin/bash
mkdir -p run/checkpoints
[ ! -e run/checkpoints/last.ckpt ] || exit 0
trap 'touch run/checkpoints/last.ckpt; exit 143' TERM
sleep 300 & wait
"""


def test_slurm_itself_says_when_the_time_is_nearly_over(cluster: Cluster) -> None:
    folder = cluster.work / "stub"
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    options = ("--parsable", f"--chdir={folder}", "--nodes=1", *SMALL_TASKS, "--time=2", "--signal=TERM@60")
    job = cluster.call("sbatch", *options, str(SCRIPTS / "slurm"), "run")
    ended = cluster.wait_until(job, "COMPLETED", "FAILED", "TIMEOUT")
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1")


def test_a_node_that_dies_costs_no_step(cluster: Cluster, straight: Path) -> None:
    job = cluster.train("node-died")
    cluster.wait_for(cluster.work / "node-died" / "metrics.csv", job)
    cluster.script("node-down", "2")
    assert cluster.wait_until(job, "PENDING", "FAILED", "COMPLETED")["JobState"] == "PENDING", cluster.log(
        job
    )
    cluster.script("node-up", "2")
    ended = cluster.wait_until(job, "COMPLETED", "FAILED")
    assert ended["JobState"] == "COMPLETED", cluster.log(job)
    assert int(ended["Restarts"]) >= 1
    assert "Node failure on" in cluster.log(job)
    assert run_differences(straight, cluster.work / "node-died") == []


def test_a_task_that_vanishes_costs_no_step(cluster: Cluster, straight: Path) -> None:
    job = cluster.train("task-died", "--export=ALL,SLURM_WAIT=60")
    cluster.wait_for(cluster.work / "task-died" / "metrics.csv", job)
    cluster.script("tasks-down", "2")
    ended = cluster.wait_until(job, "COMPLETED", "FAILED")
    assert ended["JobState"] == "COMPLETED", cluster.log(job)
    assert int(ended["Restarts"]) >= 1
    assert run_differences(straight, cluster.work / "task-died") == []


def test_a_job_that_is_told_something_wrong_ends(cluster: Cluster) -> None:
    job = cluster.train("wrong", root="nowhere")
    ended = cluster.wait_until(job, "COMPLETED", "FAILED")
    assert ended["JobState"] == "FAILED", cluster.log(job)
    assert int(ended["Restarts"]) <= 3  # where srun ends one task before that has said the same: 143
    assert "detect: no data folder nowhere" in cluster.log(job)


def test_a_sweep_is_an_array__a_job_whose_time_is_over_saves_and_runs_again(cluster: Cluster) -> None:
    text = (cluster.work / "tiny.yaml").read_text()
    for name in ("touched", "untouched"):  # the same, on one node each
        (cluster.work / f"{name}.yaml").write_text(text)
    (cluster.work / "wrong.yaml").write_text(text.replace("model:", "model:\n  num_classes: 5", 1))
    words = ["sweep", "touched.yaml", "untouched.yaml", "wrong.yaml", "--data.root", "coco", "--out", "swept"]
    words += ["--rounds", "3", "--slurm", "cpus-per-task=1", "time=60"]
    log = cluster.work / "sweep.log"
    with log.open("w") as file:
        sweep = subprocess.Popen(
            [sys.executable, "-m", "detect", *words],
            cwd=cluster.work,
            env=cluster.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        _meddle_and_wait(cluster, sweep, log)
    finally:
        sweep.kill()


def _meddle_and_wait(cluster: Cluster, sweep: subprocess.Popen[bytes], log: Path) -> None:
    touched = cluster.work / "swept" / "touched-seed0"
    deadline = time.monotonic() + TIMEOUT_S
    while not (touched / "metrics.csv").exists():
        assert sweep.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    state = json.loads((cluster.work / "swept" / "sweep.json").read_text())
    job = state["jobs"]["touched-seed0"]["slurm"]
    cluster.call("scancel", "--signal=USR2", job)  # as --signal does before the time is over
    assert sweep.wait(timeout=TIMEOUT_S) == 1, log.read_text()
    said = log.read_text()
    assert "2 of 3 jobs are trained" in said
    assert "FAILED wrong-seed0: fit ended with 2" in said
    assert said.count("FAILED") == 2  # when it ends, and at the end
    assert cluster.job(job)["Restarts"] == "1"
    fit_log = (cluster.work / "swept" / "logs" / "touched-seed0.fit.log").read_text()
    assert fit_log.count("continuing swept/touched-seed0/checkpoints/last.ckpt") == 1
    assert run_differences(touched, touched.with_name("untouched-seed0")) == []
    assert (cluster.work / "swept" / "comparison" / "index.html").is_file()
