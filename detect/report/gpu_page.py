"""The page of `scripts/gpu-check`: what a device can be trusted with, and how fast it is."""

from __future__ import annotations

import json
import platform
import time
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from detect.data.synthetic.shapes import make_shapes
from detect.deploy.latency import cpu_name, installed_versions
from detect.inspection.device_equality import equality_checks
from detect.inspection.device_runs import run_checks
from detect.inspection.device_steps import Check, CheckSetup, step_checks
from detect.inspection.step_time import without_log
from detect.report.html import write_page
from detect.system.files import write_atomically
from detect.training.memory_estimate import GB

PAGE, FIGURES = "gpu-check.html", "gpu-check.json"
LEAST_IMAGES = 32
"""To train on: a run of several steps per epoch."""


def gpu_check(
    out: Path, model: dict[str, Any], *, device: str, batch_size: int, steps: int, runs: bool = True
) -> int:
    """Make the checks on generated images and write `out`/gpu-check.html and .json.

    Args:
        out: a folder that is not there yet.
        model: plain values of a `model:` section.
        device: cuda or cpu.
        batch_size: images per step.
        steps: that are timed.
        runs: also those that start `detect`.

    Returns:
        1 where a check failed, else 0.
    """
    began = time.monotonic()
    out.mkdir(parents=True)
    root = out / "shapes"
    make_shapes(root, train=max(LEAST_IMAGES, 2 * batch_size), val=LEAST_IMAGES // 4, unseen=0)
    setup = CheckSetup(device, model, root, out, batch_size=batch_size, steps=steps)
    checks: list[Check] = []
    with without_log():
        for check in chain(equality_checks(setup), step_checks(setup), run_checks(setup) if runs else ()):
            checks.append(check)
            print(f"{check.verdict:8}  {check.title}: {check.sentence}", flush=True)
            write(out, checks, device, seconds=time.monotonic() - began)
    print(f"{out / PAGE}  ({time.monotonic() - began:.0f} s)")
    return int(any(check.verdict == "failed" for check in checks))


def write(out: Path, checks: list[Check], device: str, *, seconds: float) -> None:
    """The page and its figures, with the checks so far."""
    failed = [check.title for check in checks if check.verdict == "failed"]
    facts = machine_facts(device)
    values = {
        "title": "GPU check" if device == "cuda" else "GPU check, on a CPU",
        "subtitle": f"{len(checks)} checks in {seconds:.0f} s. {versions()}",
        "failed": failed,
        "facts": facts,
        "checks": checks,
    }
    write_page(out / PAGE, "gpu_check.html", values)
    figures = {"device": dict(facts), "seconds": round(seconds), "checks": [c._asdict() for c in checks]}
    write_atomically(out / FIGURES, json.dumps(figures, indent=1))


def machine_facts(device: str) -> list[tuple[str, str]]:
    """What the checks ran on."""
    if device == "cpu":
        return [("device", "CPU"), ("processor", cpu_name())]
    properties = torch.cuda.get_device_properties(0)
    return [
        ("GPUs", str(torch.cuda.device_count())),
        ("the first", properties.name),
        ("its memory", f"{properties.total_memory / GB:.1f} GB"),
        ("CUDA", str(torch.version.cuda)),
        ("bfloat16", "yes" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"),
    ]


def versions() -> str:
    """System and packages in a line."""
    packages = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    return f"{platform.platform()}, Python {platform.python_version()}, {packages}"
