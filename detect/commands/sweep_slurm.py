"""`detect sweep --slurm`: each job of the sweep is a task of one SLURM array, sent through submitit.

Before the time of a job is over, and when SLURM queues it again, it saves; its next start resumes from there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detect.commands.sweep import POLL_SECONDS, last_line, launch, next_step, python_path, report_end
from detect.commands.sweep_jobs import Job, SweepState
from detect.config.trusted_classes import own_folders
from detect.errors import InputError, RunStopped, install_hint
from detect.system.files import write_atomically
from detect.system.signals import noted_signals

if TYPE_CHECKING:
    from submitit import SlurmExecutor
    from submitit.helpers import DelayedSubmission

FOLDER = "slurm"
"""In the folder of the sweep: what submitit writes, and results."""
PROGRAMS = ("sbatch", "srun", "squeue")
ASK_SECONDS = 5.0
"""Between two looks at the queue."""
LOOKS_FOR_RESULT = 13
"""Looks at the queue after which a job that has left it is lost; a shared disk may show what another machine
wrote a minute later."""
DEFAULT_MINUTES = 24 * 60
AT_ONCE = 256
"""Most jobs that run at a time."""
SAVE_SECONDS = 300
"""Before its time is over a job is told to save."""
TIMEOUTS = 1_000
"""Times that submitit queues a job again whose time is over."""
OWN_WORDS = frozenset(
    {"array", "error", "job-name", "nodes", "ntasks", "open-mode", "output", "signal", "wait"}
)
"""Options of sbatch that the sweep itself decides."""
GPU_WORDS = frozenset({"gpus", "gpus-per-node", "gpus-per-task", "gres"})
CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")
SHIELDED = ("sh", "-c", 'trap "" USR2; exec "$@"', "sh")
"""Before a command: SLURM's warning, SIGUSR2, reaches every process of a job and would end one that does not
know it; `SlurmTask.checkpoint` answers it."""


@dataclass(frozen=True)
class Command:
    """One step of a job."""

    step: str
    words: list[str]
    log: Path


class SlurmTask:
    """What a node runs: the commands of a job one after the other, until one fails.

    submitit pickles it. Exit codes and seconds of the steps go into the file `result`.
    """

    def __init__(self, commands: Sequence[Command], result: Path) -> None:
        self.commands, self.result = commands, result

    def __call__(self) -> None:
        self.result.unlink(missing_ok=True)
        ended: dict[str, tuple[int, float]] = {}
        for command in self.commands:
            started = time.monotonic()
            self.process = launch(command.words, command.log, ())
            exit_code = self.process.wait()
            ended[command.step] = exit_code, time.monotonic() - started
            if exit_code:
                break
        write_atomically(self.result, json.dumps(ended))

    def checkpoint(self) -> DelayedSubmission:
        """Let the command save; submitit calls this inside of a signal handler, then queues the job again."""
        from submitit.helpers import DelayedSubmission

        self.process.terminate()
        # The interrupted `wait` holds Popen's lock: wait without it, and leave the exit code to that one.
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(SlurmTask(self.commands, self.result))


@dataclass(frozen=True)
class Slurm:
    """Runs the jobs of a sweep on a cluster: a `detect.commands.sweep.Runner`.

    Args:
        options: of sbatch, without dashes in front, and array-parallelism; True for one without a value.
    """

    options: Mapping[str, str | bool]

    def __call__(self, jobs: Sequence[Job], steps: Sequence[str], state: SweepState, out: Path) -> list[str]:
        """Send what is neither done nor queued as one array, and wait; returns what failed, in words.

        Raises:
            InputError: SLURM or submitit is missing, or sbatch refuses the jobs.
            RunStopped: on SIGINT or SIGTERM; the jobs stay in the queue.
        """
        executor = self.executor(out)
        queue = ask_queue() or {}
        for job in jobs:
            if state.slurm_job(job) not in queue:
                note_result(job, state, out)  # of a sweep that did not wait for it
        waiting = [job for job in jobs if next_step(job, steps, state)]
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} jobs are done already", flush=True)
        new = [job for job in waiting if state.slurm_job(job) not in queue]
        if len(new) < len(waiting):
            print(f"{len(waiting) - len(new)} jobs are in SLURM's queue already", flush=True)
        if new:
            self.send(new, steps, executor, state=state, out=out)
        return wait_for(waiting, state, out)

    def send(
        self,
        jobs: Sequence[Job],
        steps: Sequence[str],
        executor: SlurmExecutor,
        *,
        state: SweepState,
        out: Path,
    ) -> None:
        """Submit jobs as one array and note their ids."""
        from submitit.core.utils import FailedJobError

        (out / FOLDER).mkdir(exist_ok=True)
        tasks = []
        for job in jobs:
            result_file(job, out).unlink(missing_ok=True)
            todo = steps[steps.index(next_step(job, steps, state)) :]
            commands = [Command(step, self.words(job, step), job.log(step, out)) for step in todo]
            tasks.append(SlurmTask(commands, result_file(job, out)))
        try:
            sent = executor.submit_array(tasks)
        except FailedJobError as error:
            raise InputError(f"SLURM refuses the jobs: {error}".strip()) from error
        for job, task in zip(jobs, sent, strict=True):
            state.sent(job, task.job_id)
        array = sent[0].job_id.partition("_")[0]
        print(f"{len(jobs)} jobs are sent to SLURM as {array}", flush=True)

    def words(self, job: Job, step: str) -> list[str]:
        """A step's command; SLURM itself says which GPUs are a task's, here only their number counts."""
        path = ["env", f"PYTHONPATH={python_path()}"] if own_folders() else []
        return [*path, *SHIELDED, *job.command(step, tuple(str(gpu) for gpu in range(self.gpus)))]

    @property
    def gpus(self) -> int:
        """GPUs of a job, from `gpus-per-node=a100:2` or `gres=gpu:2`."""
        for name in GPU_WORDS & self.options.keys():
            value = str(self.options[name])
            if name != "gres" or value.startswith("gpu"):
                count = value.rpartition(":")[2]
                return int(count) if count.isdigit() else 1
        return 0

    def executor(self, out: Path) -> SlurmExecutor:
        """What sends the jobs.

        Raises:
            InputError: see `__call__`.
        """
        if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
            raise InputError(f"--slurm: there is no {', '.join(missing)} on this machine, as a cluster has")
        try:
            from submitit import SlurmExecutor
        except ImportError as error:
            raise InputError(f"--slurm needs submitit: {install_hint('slurm')}") from error
        options = dict(self.options)
        minutes = to_minutes(str(options.pop("time", DEFAULT_MINUTES)))
        at_once = str(options.pop("array-parallelism", AT_ONCE))
        if not at_once.isdigit():
            raise InputError(
                f"--slurm array-parallelism={at_once}: give the number of jobs that run at a time"
            )
        executor = SlurmExecutor(out / FOLDER, max_num_timeout=TIMEOUTS)
        executor.update_parameters(
            time=minutes,
            job_name=out.name,
            array_parallelism=int(at_once),
            signal_delay_s=min(SAVE_SECONDS, minutes * 60 // 2),
            stderr_to_stdout=True,
            # srun does not take it from the job, from SLURM 22.05 on
            setup=['[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK'],
            additional_parameters={"requeue": True, **options},
        )
        return executor


def sbatch_options(words: Sequence[str]) -> dict[str, str | bool]:
    """Options of sbatch from words as `gpus-per-node=1` or `exclusive`; underscores, leading dashes are fine.

    Raises:
        InputError: the sweep decides on one itself.
    """
    options: dict[str, str | bool] = {}
    for word in words:
        name, has_value, value = word.partition("=")
        name = name.lstrip("-").replace("_", "-")
        if name in OWN_WORDS:
            raise InputError(f"--slurm {word}: detect sweep gives sbatch its own --{name}")
        options[name] = value if has_value else True
    return options


def to_minutes(time_limit: str) -> int:
    """Minutes of a time limit as sbatch takes it: 720, 12:00:00 or 1-12:00:00.

    Raises:
        InputError: it is written in another way.
    """
    if time_limit.isdigit() and int(time_limit):
        return int(time_limit)
    match = CLOCK.fullmatch(time_limit)
    if match is None:
        raise InputError(f"--slurm time={time_limit}: give minutes, H:MM:SS or D-HH:MM:SS")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return max(1, (days * 24 + hours) * 60 + minutes + (seconds > 0))


def ask_queue() -> dict[str, tuple[str, str]] | None:
    """State and nodes of this user's jobs by their ids; None where SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i|%T|%N"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return None
    rows = [line.strip().split("|") for line in answer.stdout.splitlines()]
    return {job: (job_state, nodes) for job, job_state, nodes in rows}


def result_file(job: Job, out: Path) -> Path:
    """Where a task says how its steps ended."""
    return out / FOLDER / f"{job.name}.json"


def note_result(job: Job, state: SweepState, out: Path) -> dict[str, tuple[int, float]]:
    """Note how the steps of a job ended; returns exit code and seconds of each, empty if none is known."""
    path = result_file(job, out)
    if not path.is_file():
        return {}
    ended: dict[str, tuple[int, float]] = json.loads(path.read_text(encoding="utf-8"))
    for step, (exit_code, _) in ended.items():
        state.end(job, step, exit_code)
    path.unlink()
    return ended


def wait_for(jobs: Sequence[Job], state: SweepState, out: Path) -> list[str]:
    """Wait until all have left the queue; returns what failed, in words.

    Raises:
        RunStopped: on SIGINT or SIGTERM.
    """
    waiting, looks, running, failures = list(jobs), dict[str, int](), set[str](), list[str]()
    silent = False
    with noted_signals() as signals:
        while waiting:
            wait_a_while(signals, [state.slurm_job(job) for job in waiting])
            queue = ask_queue()
            if (queue is None) != silent:
                silent = not silent
                print("SLURM does not answer" if silent else "SLURM answers again", flush=True)
            for job in list(waiting):
                if queue is None:
                    break
                job_state, nodes = queue.get(state.slurm_job(job), ("", ""))
                if job_state == "RUNNING" and job.name not in running:
                    running.add(job.name)
                    print(f"{job.name}: runs on {nodes}", flush=True)
                if job_state:
                    continue
                ended = note_result(job, state, out)
                looks[job.name] = looks.get(job.name, 0) + 1
                if ended or looks[job.name] == LOOKS_FOR_RESULT:
                    waiting.remove(job)
                    failures += report_job(job, ended, state.slurm_job(job), out)
    return failures


def report_job(job: Job, ended: Mapping[str, tuple[int, float]], slurm_job: str, out: Path) -> list[str]:
    """Say how each step of a job ended; returns what failed."""
    if not ended:
        log = out / FOLDER / f"{slurm_job}_0_log.out"
        said = last_line(log) if log.is_file() else "it wrote nothing"
        failure = f"{job.name}: SLURM's job {slurm_job} ended without a result: {said} (log: {log})"
        print(f"FAILED {failure}", flush=True)
        return [failure]
    ends = [
        report_end(job, step, exit_code, seconds, log=job.log(step, out))
        for step, (exit_code, seconds) in ended.items()
    ]
    return [failure for failure in ends if failure is not None]


def wait_a_while(signals: Sequence[int], slurm_jobs: Sequence[str]) -> None:
    """Wait before the next look at the queue.

    Raises:
        RunStopped: a signal came.
    """
    until = time.monotonic() + ASK_SECONDS
    while not signals and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    if signals:
        arrays = " ".join(dict.fromkeys(job.partition("_")[0] for job in slurm_jobs))
        message = (
            f"{len(slurm_jobs)} jobs stay in SLURM's queue: the same command waits for them, "
            f"`scancel {arrays}` ends them after they have saved"
        )
        raise RunStopped(message, exit_code=128 + signals[0])
