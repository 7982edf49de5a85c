"""scripts/torchrun and scripts/slurm, on this machine's loopback addresses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detect.position import Position
from tests.conftest import make_coco
from tests.fit_cases import TINY, fit_args, read_raw, run_differences, write_config

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
TIMEOUT_S = 600
EPOCHS = 4
HEAD, OTHER = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Of a run that saves after each step; without `--out`."""
    config = write_config(tmp_path, {**TINY, "trainer": {**TINY["trainer"], "max_epochs": EPOCHS}})
    data = make_coco(tmp_path / "coco", train=16, val=5)
    return [*fit_args(config, data, Path())[:-2], "--checkpoint_minutes", "0"]


def environment(**more: str) -> dict[str, str]:
    own = {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "DEVICES": "1", **own, **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        port: int = probe.getsockname()[1]
    return port


def start_node(address: str, port: int, run: Path, words: list[str]) -> subprocess.Popen[str]:
    """One of two machines, in a process group of its own."""
    with run.with_name(f"{run.name}-{address}.log").open("a") as log:
        return subprocess.Popen(
            ["bash", str(SCRIPTS / "torchrun"), str(run), *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=environment(NODES="2", HEAD=f"{HEAD}:{port}", ADDRESS=address),
        )


def log_of(run: Path) -> str:
    return "".join(path.read_text() for path in sorted(run.parent.glob(f"{run.name}-*.log")))


def wait_for(file: Path, nodes: list[subprocess.Popen[str]], run: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not file.exists():
        assert all(node.poll() is None for node in nodes), log_of(run)
        assert time.monotonic() < deadline, log_of(run)
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_process_killed_in_the_middle_costs_no_step(words: list[str], tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    two = ("--out", str(straight), "--trainer.devices", "2", "--trainer.strategy", "ddp")
    command = [sys.executable, "-m", "detect", "fit", *words, *two]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S, env=environment())

    run, port = tmp_path / "run", free_port()
    nodes = [start_node(address, port, run, words) for address in (HEAD, OTHER)]
    try:
        wait_for(run / "metrics.csv", nodes, run)  # after the first epoch
        (worker,) = children_of(nodes[1].pid)
        os.kill(worker, signal.SIGKILL)
        assert [node.wait(timeout=TIMEOUT_S) for node in nodes] == [0, 0], log_of(run)
    finally:
        for node in nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
    said = log_of(run)
    assert "4 images a step = 2 a device x 2 device(s) x 1 forward pass(es)" in said
    assert f"continuing {run / 'checkpoints' / 'last.ckpt'}" in said
    assert run_differences(straight, run) == []


@pytest.mark.slow
def test_ranks_of_torchrun_agree_on_a_new_run_folder(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    more = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "1")
    done = subprocess.run(
        [*command, "-m", "detect", "fit", *words, *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        cwd=tmp_path,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["tiny-001"]
    assert "run folder: runs/tiny-001" in done.stdout
    assert Position(**read_raw(tmp_path / "runs" / "tiny-001")["position"]).epoch == 1


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
    position = Position(**read_raw(run)["position"])
    assert 1 <= position.epoch < EPOCHS
    done = job(stop_after="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 images a step = 2 a device x 2 device(s) x 1 forward pass(es)" in done.stdout + done.stderr
    assert Position(**read_raw(run)["position"]).epoch == EPOCHS
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
