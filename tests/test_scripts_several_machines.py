"""scripts/torchrun and scripts/slurm, on this machine's loopback addresses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from detect.training.run_state import TrainingState
from tests.conftest import make_coco
from tests.fit_cases import TINY, fit_args, read_raw, run_differences, write_config
from tests.processes import free_port
from tests.test_slurm import missing_programs

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
TIMEOUT_S = 600
EPOCHS = 6
HEAD, OTHER = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a run that saves after each step; without `--out`."""
    folder = tmp_path_factory.mktemp("words")
    config = write_config(folder, {**TINY, "trainer": {**TINY["trainer"], "max_epochs": EPOCHS}})
    data = make_coco(folder / "coco", train=16, val=5)
    return [*fit_args(config, data, Path())[:-2], "--checkpoint_minutes", "0"]


def environment(**more: str) -> dict[str, str]:
    own = {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "DEVICES": "1", **own, **more}


def start_node(address: str, port: int, run: Path, words: list[str]) -> subprocess.Popen[str]:
    """One of two machines, in a process group of its own; the run folder is given as people do, runs/NAME."""
    run.parent.mkdir(exist_ok=True)
    with run.with_name(f"{run.name}-{address}.log").open("a") as log:
        return subprocess.Popen(
            ["bash", str(SCRIPTS / "torchrun"), f"{run.parent.name}/{run.name}", *words],
            cwd=run.parents[1],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=environment(NODES="2", HEAD=f"{HEAD}:{port}", ADDRESS=address),
        )


@dataclass
class Nodes:
    """The machines of one run."""

    run: Path
    port: int
    words: list[str]
    alive: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(self, address: str) -> None:
        self.alive[address] = start_node(address, self.port, self.run, self.words)

    def ends(self) -> list[int]:
        return [node.wait(timeout=TIMEOUT_S) for node in self.alive.values()]


def log_of(run: Path) -> str:
    return "".join(path.read_text() for path in sorted(run.parent.glob(f"{run.name}-*.log")))


def epochs_of(run: Path) -> int:
    """Whole rows of metrics.csv without its header."""
    file = run / "metrics.csv"
    return max(file.read_text().count("\n") - 1, 0) if file.exists() else 0


def wait_for_an_epoch(nodes: Nodes) -> None:
    """Until the run is further than it is."""
    known, deadline = epochs_of(nodes.run), time.monotonic() + TIMEOUT_S
    while epochs_of(nodes.run) <= known:
        assert all(node.poll() is None for node in nodes.alive.values()), log_of(nodes.run)
        assert time.monotonic() < deadline, log_of(nodes.run)
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_node(node: subprocess.Popen[str]) -> None:
    """A machine goes down: torchrun and all that it started end at once, without a word."""
    processes = [node.pid]
    for pid in processes:
        processes += children_of(pid)
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    node.wait()


@pytest.fixture(scope="module")
def straight(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where torchrun has made the run on two processes that nobody touched, without `--out`."""
    here = tmp_path_factory.mktemp("straight")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    done = subprocess.run(
        [*command, "-m", "detect", "fit", *words, *two],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        cwd=here,
        env=environment(DETECT_CACHE=str(here / "cache")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run folder: runs/tiny-001" in done.stdout
    return here


@pytest.fixture
def nodes(words: list[str], tmp_path: Path) -> Iterator[Nodes]:
    """Two machines that begin to train."""
    started = Nodes(tmp_path / "runs" / "two", free_port(), words)
    try:
        for address in (HEAD, OTHER):
            started.start(address)
        yield started
    finally:
        for node in started.alive.values():
            if node.poll() is None:
                kill_node(node)


@pytest.mark.slow
def test_ranks_of_torchrun_agree_on_a_new_run_folder(straight: Path) -> None:
    assert [folder.name for folder in (straight / "runs").iterdir()] == ["tiny-001"]
    assert TrainingState(**read_raw(straight / "runs" / "tiny-001")["position"]).epoch == EPOCHS


@pytest.mark.slow
def test_a_process_a_machine_and_the_head_lost_one_after_the_other_cost_no_step(
    straight: Path, nodes: Nodes
) -> None:
    wait_for_an_epoch(nodes)
    (worker,) = children_of(nodes.alive[OTHER].pid)
    os.kill(worker, signal.SIGKILL)  # torchrun starts it again

    wait_for_an_epoch(nodes)
    kill_node(nodes.alive[OTHER])
    nodes.start(OTHER)  # the machine comes back to the others

    wait_for_an_epoch(nodes)
    kill_node(nodes.alive[HEAD])
    assert nodes.alive[OTHER].wait(timeout=TIMEOUT_S) != 0  # where nobody can meet, nobody goes on alone
    for address in (HEAD, OTHER):
        nodes.start(address)
    assert nodes.ends() == [0, 0], log_of(nodes.run)

    said = log_of(nodes.run)
    assert "4 images per step = 2 per device x 2 device(s) x 1 forward pass(es)" in said
    assert said.count("continuing runs/two/checkpoints/last.ckpt") >= 3
    assert run_differences(straight / "runs" / "tiny-001", nodes.run) == []


SRUN = """#!/bin/bash
# Two tasks on one machine, as srun of SLURM starts them; SIGTERM to all of them, as its --signal does.
[ "$1" = --kill-on-bad-exit=1 ] && shift
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 "$@" &
done
if [ -n "$STOP_AFTER" ]; then
    until [ -e "$STOP_AFTER" ]; do sleep 0.05; done
    kill -TERM $(jobs -p)
fi
code=0
for task in $(jobs -p); do wait "$task" || code=$?; done
exit $code
"""
SLURM = {
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "127.0.0.1",
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "detect",
}


@pytest.mark.slow
@pytest.mark.skipif(missing_programs() == [], reason="tests/test_slurm.py has such a job on SLURM itself")
def test_a_slurm_job_whose_time_is_over_is_queued_again_and_goes_on(words: list[str], tmp_path: Path) -> None:
    tools, run = tmp_path / "bin", tmp_path / "run"
    tools.mkdir()
    (tools / "srun").write_text(SRUN)
    (tools / "scontrol").write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/requeued\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    own = environment(**SLURM, MASTER_PORT=str(free_port()))
    own["PATH"] = f"{tools}:{own['PATH']}"

    def job(stop_after: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(SCRIPTS / "slurm"), str(run), *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            cwd=tmp_path,
            env={**own, "STOP_AFTER": stop_after},
        )

    stopped = job(stop_after=str(run / "metrics.csv"))
    assert stopped.returncode == 143, stopped.stdout + stopped.stderr
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    position = TrainingState(**read_raw(run)["position"])
    assert 1 <= position.epoch < EPOCHS
    done = job(stop_after="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 images per step = 2 per device x 2 device(s) x 1 forward pass(es)" in done.stdout + done.stderr
    assert TrainingState(**read_raw(run)["position"]).epoch == EPOCHS
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"


@pytest.mark.parametrize(
    ("code", "saves", "restarts", "queued"),
    [
        (0, True, 0, False),
        (2, True, 0, False),  # wrong words or data
        (3, True, 0, False),  # NaN
        (143, True, 9, True),  # its time is over
        (143, False, 3, False),  # srun ended it, because another task failed
        (137, False, 2, True),  # killed before it saved
        (1, True, 9, True),
    ],
)
def test_a_slurm_job_is_queued_again_while_it_gets_on(
    tmp_path: Path, code: int, saves: bool, restarts: int, queued: bool
) -> None:
    tools, last = tmp_path / "bin", tmp_path / "run" / "checkpoints" / "last.ckpt"
    tools.mkdir()
    last.parent.mkdir(parents=True)
    last.touch()
    save = f"echo new > {last}.part; mv {last}.part {last}" if saves else "true"
    (tools / "srun").write_text(f"#!/bin/bash\n{save}\nexit {code}\n")
    (tools / "scontrol").write_text(f'#!/bin/bash\necho "$@" > {tmp_path}/queued\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    own = {**os.environ, **SLURM, "SLURM_RESTART_COUNT": str(restarts)}
    own["PATH"] = f"{tools}:{own['PATH']}"
    words = ["bash", str(SCRIPTS / "slurm"), "run"]
    done = subprocess.run(words, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "queued").exists() == queued
    assert ("not queued again" in done.stderr) == (code == 143 and not saves)
