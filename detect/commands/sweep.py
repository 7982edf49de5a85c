"""`detect sweep`: several configurations under several seeds, one job per free device, then a comparison.

Every job is `detect fit` and `detect export`, or `detect pretrain`, in processes of their own: what one does
wrong stops no other.
What was finished is kept in OUT/sweep.json, so that the same command resumes where it was stopped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from detect.commands.sweep_jobs import DETECT, STATE_FILE, Job, SweepState
from detect.config.trusted_classes import own_folders
from detect.errors import InputError, RunStopped, install_hint
from detect.report.compare import compare
from detect.system.devices import VISIBLE_GPUS, Slot
from detect.system.output_folder import alone_in
from detect.system.signals import how_it_ended, noted_signals
from detect.training.run_folder import RUN_VARIABLE

SWEEPS_IN = "runs a sweep in"
POLL_SECONDS = 0.2
EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
EXIT_FINDINGS = 1
Runner = Callable[[Sequence[Job], Sequence[str], SweepState, Path], list[str]]
"""Runs the steps of jobs that are not done and notes how they ended, in the folder of the sweep; returns what
failed, in words."""


@dataclass(frozen=True)
class SweepOptions:
    """Where jobs run, and what is measured after them."""

    slots: Sequence[Slot]
    runtimes: Sequence[str] = ("onnxruntime",)
    rounds: int = 50
    """Rounds of the benchmark."""
    elsewhere: Runner | None = None
    """Runs the jobs, in the place of `slots`: see `detect.commands.sweep_slurm`."""


@dataclass
class Running:
    """A job on a slot, at one of its steps."""

    job: Job
    step: str
    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)


def sweep(jobs: Sequence[Job], out: Path, options: SweepOptions) -> int:
    """Train, export, benchmark and compare; returns 1 where anything failed.

    Raises:
        InputError: `out` holds other jobs of the same names, or another sweep works there.
        RunStopped: on SIGINT or SIGTERM, after every job has saved.
    """
    classifiers = [job.trains_classifier for job in jobs]
    if any(classifiers) and not all(classifiers):
        raise InputError("configurations of detect fit and detect pretrain are not compared: name one kind")
    with alone_in(out, SWEEPS_IN):
        (out / "logs").mkdir(exist_ok=True)
        state = SweepState(out / STATE_FILE)
        state.begin(jobs)
        missing = [package for package in EXPORT_PACKAGES if importlib.util.find_spec(package) is None]
        if missing and not any(classifiers):
            hint = install_hint("export")
            print(f"export and benchmark are left out: {', '.join(missing)} not installed; {hint}")
        exports = not missing and not any(classifiers)
        steps = ("fit", "export") if exports else ("fit",)
        if options.elsewhere:
            failures = options.elsewhere(jobs, steps, state, out)
        else:
            failures = run_jobs(jobs, steps, options.slots, state=state, out=out)
        trained = [job for job in jobs if state.done(job, "fit")]
        benchmark_file = out / "benchmark.json"
        if exports and not benchmark(trained, benchmark_file, options, state=state):
            failures.append(f"benchmark: see {out / 'logs' / 'benchmark.log'}")
        print(f"{len(trained)} of {len(jobs)} jobs are trained")
        for failure in failures:
            print(f"FAILED {failure}")
        if trained:
            measured = [benchmark_file] if benchmark_file.is_file() else []
            compare([*(job.folder for job in trained), *measured], out / "comparison")
        return EXIT_FINDINGS if failures else 0


def run_jobs(
    jobs: Sequence[Job], steps: Sequence[str], slots: Sequence[Slot], *, state: SweepState, out: Path
) -> list[str]:
    """Run what is not done, one job a slot; returns what failed, in words.

    Raises:
        RunStopped: see `sweep`.
    """
    waiting = [job for job in jobs if not all(state.done(job, step) for step in steps)]
    free, running, failures = list(slots), dict[Slot, Running](), list[str]()
    print(f"{len(jobs) - len(waiting)} of {len(jobs)} jobs are done already", flush=True)
    with noted_signals() as signals:
        while waiting or running:
            while waiting and free:
                slot, job = free.pop(0), waiting.pop(0)
                running[slot] = start(job, next_step(job, steps, state), slot, out)
            time.sleep(POLL_SECONDS)
            if signals:
                stop([run.process for run in running.values()], signals[0])
            for slot, run in list(running.items()):
                exit_code = run.process.poll()
                if exit_code is None:
                    continue
                state.end(run.job, run.step, exit_code)
                seconds = time.monotonic() - run.started
                failure = report_end(run.job, run.step, exit_code, seconds, log=run.log)
                step = next_step(run.job, steps, state) if failure is None else ""
                if failure is not None:
                    failures.append(failure)
                if step:
                    running[slot] = start(run.job, step, slot, out)
                else:
                    del running[slot]
                    free.append(slot)
    return failures


def next_step(job: Job, steps: Sequence[str], state: SweepState) -> str:
    """The first step that is not done; empty where all are."""
    return next((step for step in steps if not state.done(job, step)), "")


def start(job: Job, step: str, slot: Slot, out: Path) -> Running:
    """Begin a step on a slot, its output in OUT/logs."""
    log = job.log(step, out)
    place = f"GPU {', '.join(slot)}" if slot else "the CPU"
    print(f"{job.name}: {step} on {place}", flush=True)
    return Running(job, step, launch(job.command(step, slot), log, slot), log)


def launch(command: list[str], log: Path, slot: Slot) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own: an interrupt reaches it once, from `stop`.

    Of a SLURM job around it, it learns nothing: it is no task of that.
    """
    environment = {
        key: value
        for key, value in os.environ.items()
        if key != RUN_VARIABLE and not key.startswith("SLURM_")
    }
    if own_folders():
        environment["PYTHONPATH"] = python_path()
    if slot:
        environment[VISIBLE_GPUS] = ",".join(slot)
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def python_path() -> str:
    """PYTHONPATH, with the folders of the user's own modules."""
    return os.pathsep.join([*filter(None, [os.getenv("PYTHONPATH")]), *own_folders()])


def report_end(job: Job, step: str, exit_code: int, seconds: float, *, log: Path) -> str | None:
    """Say how a step ended; what failed in words, None where all is well."""
    took = f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
    if exit_code == 0:
        print(f"{job.name}: {step} done in {took}", flush=True)
        return None
    failure = f"{job.name}: {step} {how_it_ended(exit_code)}: {last_line(log)} (log: {log})"
    print(f"FAILED {failure}", flush=True)
    return failure


def last_line(log: Path) -> str:
    """What a job said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def stop(processes: Sequence[subprocess.Popen[bytes]], signum: int) -> NoReturn:
    """Hand a signal on, once, and wait until every process has saved.

    Raises:
        RunStopped: after that, with 130 or 143.
    """
    print(f"stopping {len(processes)} jobs; they save first", flush=True)
    for process in processes:
        process.send_signal(signum)
    for process in processes:
        process.wait()
    message = "the sweep was stopped; the same command resumes it"
    raise RunStopped(message, exit_code=128 + signum)


def benchmark(trained: Sequence[Job], path: Path, options: SweepOptions, *, state: SweepState) -> bool:
    """Measure one exported file a configuration, interleaved; whether all is well. Nothing new: nothing done.

    Seeds do not change the time that a network takes: the first one that was exported stands for all.
    """
    models: dict[Path, Path] = {}
    for job in trained:
        if state.done(job, "export") and job.exported.is_file():
            models.setdefault(job.config, job.exported)
    if not models or measured_already(path, list(models.values())):
        return True
    command = [*DETECT, "benchmark", "--model", *map(str, models.values())]
    command += ["--runtime", *options.runtimes, "--rounds", str(options.rounds), "--json", str(path)]
    print(f"benchmark of {len(models)} files", flush=True)
    with noted_signals() as signals:
        process = launch(command, path.parent / "logs" / "benchmark.log", ())
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if signals:
                stop([process], signals[0])
    return process.returncode == 0


def measured_already(path: Path, models: Sequence[Path]) -> bool:
    """Whether a benchmark has every one of these files as it is now, with the hash of its weights."""
    if not path.is_file():
        return False
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        measured = {row["model"] for row in rows if "checkpoint_sha256" in row}
    except (ValueError, KeyError, TypeError):
        return False
    newest = max(model.stat().st_mtime for model in models)
    return measured >= {str(model) for model in models} and path.stat().st_mtime >= newest
