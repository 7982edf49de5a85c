"""Runs of `detect` on a device, as a user starts them: the second half of `scripts/gpu-check`."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

import torch
import yaml

from detect.deploy.runtimes.base import require
from detect.deploy.runtimes.onnxruntime import PROVIDERS
from detect.errors import EXIT_STOPPED
from detect.inspection.device_steps import Check, CheckSetup, tried

EPOCHS = 3
RUN_BATCH = 8
TIMEOUT_S = 900
SAME_WEIGHTS = 1e-2
"""Relative difference of a resumed run on a GPU, where sums have no fixed order; on a CPU it is 0."""


def run_checks(setup: CheckSetup) -> Iterator[Check]:
    """Resume, NaN guard, several devices, latency; each by commands of `detect`."""
    write_config(setup)
    yield tried("Resume", lambda: check_resume(setup))
    yield tried("NaN guard", lambda: check_nan(setup))
    yield tried("Several devices", lambda: check_ddp(setup))
    yield tried("Latency", lambda: check_latency(setup))


def write_config(setup: CheckSetup) -> None:
    """The configuration of all runs."""
    config = {
        "seed_everything": 0,
        "model": setup.model,
        "data": {"root": str(setup.root), "total_batch_size": RUN_BATCH, "workers": 0},
        "trainer": {
            "max_epochs": EPOCHS,
            "accelerator": "gpu" if setup.device == "cuda" else "cpu",
            "devices": 1,
            "enable_progress_bar": False,
            "logger": False,
        },
    }
    (setup.out / "run.yaml").write_text(yaml.safe_dump(config))


def detect(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=TIMEOUT_S)


def command(*words: str | Path) -> list[str]:
    """The words of `detect`, with this Python."""
    return [sys.executable, "-m", "detect", *map(str, words)]


def fit_words(setup: CheckSetup, name: str) -> tuple[str | Path, ...]:
    """Of a run in the folder `name`."""
    return ("fit", "--config", setup.out / "run.yaml", "--out", setup.out / name)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a command said last."""
    lines = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
    return shorten(lines[-1], 200, placeholder=" ...")


def check_resume(setup: CheckSetup) -> Check:
    """A run that SIGTERM ends within its second epoch and that is resumed, against one that none stopped."""
    title = "Resume"
    straight = detect(*fit_words(setup, "straight"))
    if straight.returncode:
        return Check(title, "failed", f"detect fit ended with {straight.returncode}: {last_line(straight)}")
    stopped = stop_after_an_epoch(setup)
    if stopped not in (0, 143):
        return Check(title, "failed", f"after SIGTERM detect fit ended with {stopped}, not with 143")
    resumed = detect(*fit_words(setup, "resumed"), "--ckpt_path", "last")
    if resumed.returncode:
        return Check(
            title, "failed", f"the resumed run ended with {resumed.returncode}: {last_line(resumed)}"
        )
    difference = weights_difference(setup.out / "straight", setup.out / "resumed")
    bound = SAME_WEIGHTS if setup.device == "cuda" else 0.0
    where = "after its end" if stopped == 0 else "and was resumed"
    return Check(
        title,
        "left out" if stopped == 0 else "passed" if difference <= bound else "failed",
        f"A run was stopped by SIGTERM in its second epoch {where}: its last weights differ by "
        f"{difference:.1e} of their length from those of a run that was never stopped (at most {bound:.0e}).",
    )


def stop_after_an_epoch(setup: CheckSetup) -> int:
    """Exit code of a run that gets SIGTERM once it has written its first epoch."""
    log = setup.out / "resumed.log"
    rows = setup.out / "resumed" / "metrics.csv"
    with log.open("w") as output:
        process = subprocess.Popen(
            command(*fit_words(setup, "resumed")), stdout=output, stderr=subprocess.STDOUT
        )
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < TIMEOUT_S:
            if rows.exists() and len(rows.read_text().splitlines()) > 1:
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.05)
        return process.wait(TIMEOUT_S)


def weights_difference(a: Path, b: Path) -> float:
    """Length of the difference between the last weights of two runs, over that of the first's."""
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
        for run in (a, b)
    ]
    first, second = (
        torch.cat([value.double().flatten() for _, value in sorted(state.items())]) for state in states
    )
    return ((first - second).norm() / first.norm()).item()


def check_nan(setup: CheckSetup) -> Check:
    """A learning rate without bounds: the run must end with its code, and keep what is needed to see why."""
    words = ("--model.optimizer.init_args.lr", "1e30")
    done = detect(*fit_words(setup, "nan"), *words)
    kept = (setup.out / "nan" / "nan").exists()
    return Check(
        "NaN guard",
        "passed" if done.returncode == EXIT_STOPPED and kept else "failed",
        f"With a learning rate of 1e30 detect fit ended with {done.returncode} (3 is right), and "
        f"{'kept' if kept else 'did not keep'} the batch. It said: {last_line(done)}",
    )


def check_ddp(setup: CheckSetup) -> Check:
    """A run on all devices; on the CPU on two processes."""
    devices = torch.cuda.device_count() if setup.device == "cuda" else 2
    title, most = "Several devices", RUN_BATCH // 2
    if devices < 2:
        return Check(title, "left out", "There is one GPU.")
    devices = max(n for n in range(2, min(devices, most) + 1) if RUN_BATCH % n == 0)
    words = ("--trainer.devices", str(devices), "--trainer.strategy", "ddp")
    began = time.monotonic()
    done = detect(*fit_words(setup, "ddp"), *words)
    seconds = time.monotonic() - began
    if done.returncode:
        return Check(title, "failed", f"detect fit ended with {done.returncode}: {last_line(done)}")
    losses = [last_loss(setup.out / name) for name in ("straight", "ddp")]
    return Check(
        title,
        "passed",
        f"{devices} devices trained {EPOCHS} epochs in {seconds:.0f} s. The loss of the last epoch is "
        f"{losses[1]}; on one device {losses[0]}, where BatchNorm sees {RUN_BATCH} images at once.",
    )


def last_loss(run: Path) -> str:
    """The training loss in the last row of metrics.csv."""
    heading, *rows = (run / "metrics.csv").read_text().splitlines()
    return f"{float(rows[-1].split(',')[heading.split(',').index('train/loss')]):.3f}"


def check_latency(setup: CheckSetup) -> Check:
    """ONNX Runtime with each provider that is installed, from a photograph's file to its boxes."""
    title = "Latency"
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None:
        return Check(title, "left out", "ONNX Runtime is not installed: bash scripts/install export")
    onnxruntime = require("onnxruntime", extra="export")
    model = setup.out / "model.onnx"
    best = setup.out / "straight" / "checkpoints" / "best.ckpt"
    done = detect("export", "--ckpt_path", best, "--format", "onnx", "--form", "raw", "--out", model)
    if done.returncode:
        return Check(title, "failed", f"detect export ended with {done.returncode}: {last_line(done)}")
    present = onnxruntime.get_available_providers()
    rows = [latency_row(setup, model, name) for name, full in PROVIDERS.items() if full in present]
    absent = [name for name, full in PROVIDERS.items() if full not in present]
    missing = f" Not installed: {', '.join(absent)} (package onnxruntime-gpu)." if absent else ""
    return Check(
        title,
        "measured" if all(row[1] for row in rows) else "failed",
        f"detect benchmark, medians in ms of one image from its file to its boxes.{missing}",
        ("provider", "file to input", "network", "boxes", "total", "remark"),
        tuple(rows),
    )


def latency_row(setup: CheckSetup, model: Path, provider: str) -> tuple[str, ...]:
    """Medians of one provider, or why there are none."""
    figures = setup.out / f"latency-{provider}.json"
    words = ("--rounds", "20", "--warmup", "5", "--memory", "false", "--json", figures)
    done = detect("benchmark", "--model", model, "--provider", provider, *words)
    if done.returncode:
        return (provider, "", "", "", "", last_line(done))
    (row,) = json.loads(figures.read_text())["rows"]
    stages = ("pre_ms", "network_ms", "post_ms", "total_ms")
    return (provider, *(f"{row[stage]['p50']:.2f}" for stage in stages), f"version {row['version']}")
