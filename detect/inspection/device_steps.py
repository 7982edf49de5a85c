"""Training steps on a device, timed, and their memory: the first half of `scripts/gpu-check`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from detect.data.datamodule import DetectionData
from detect.inspection.step_time import endless_batches
from detect.model.checkpoint import without_weights
from detect.training.build import build_module
from detect.training.memory_estimate import GB, StepShape, estimate
from detect.training.module import DetectionModule, allow_graphs
from detect.training.parameters import parameter_groups
from detect.types import Batch

WARM_STEPS = 3
"""Not timed: kernels are chosen, graphs are compiled, workers start."""
STAGES = ("loading", "to the device", "forward and loss", "backward", "update")
COUNT_BOUND = 0.25
"""Share by which counted memory may miss what torch's allocator gave."""
DTYPES: dict[str, torch.dtype | None] = {"float32": None, "bf16": torch.bfloat16}
"""Of autocast, by the name of the precision."""
Verdict = Literal["passed", "failed", "measured", "left out"]


class Check(NamedTuple):
    """A part of the page."""

    title: str
    verdict: Verdict
    sentence: str
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class CheckSetup:
    """What all checks run on."""

    device: str
    """cuda or cpu."""
    model: dict[str, Any]
    """Plain values of a `model:` section."""
    root: Path
    """Folder of a data set."""
    out: Path
    """Folder for runs and files."""
    batch_size: int
    steps: int
    """That are timed."""

    def data(self, *, cache: bool = False) -> DetectionData:
        """The data set, opened."""
        data = DetectionData(
            self.root,
            total_batch_size=self.batch_size,
            cache="ram" if cache else None,
            image_size=self.image_size,
        )
        data.open()
        return data

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) px of the input."""
        height, width = self.model["image_size"]
        return height, width

    def module(self, data: DetectionData) -> DetectionModule:
        """A fresh detector in training, on the CPU; the same one each time."""
        torch.manual_seed(0)
        return build_module(without_weights(self.model) | {"num_classes": data.classes.num_classes}).train()


def on_device(batch: Batch, device: str) -> Batch:
    """A batch of the loader, moved."""
    target = type(batch.target)._make(column.to(device) for column in batch.target)
    return batch._replace(images=batch.images.to(device), target=target)


def autocast(device: str, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Mixed precision, or none for None."""
    return nullcontext() if dtype is None else torch.autocast(device, dtype)


# ---- speed


def check_speed(setup: CheckSetup) -> Check:
    """Images a second of each way to train, and the share of each stage."""
    rows: list[tuple[str, ...]] = []
    for cache in (False, True):
        data = setup.data(cache=cache)
        for name, dtype, compiled in (
            ("eager, float32", None, False),
            ("eager, bf16", torch.bfloat16, False),
            ("compiled, bf16", torch.bfloat16, True),
        ):
            words = (name, "in memory" if cache else "decoded")
            try:
                rows.append((*words, *speed_row(setup, data, dtype, compiled=compiled)))
            except Exception as error:  # a machine without a compiler still has the other rows
                rows.append((*words, "left out", *([""] * len(STAGES)), first_line(error)))
    return Check(
        "Images a second",
        "measured",
        f"{setup.batch_size} images of {setup.image_size[0]} x {setup.image_size[1]} per step, {setup.steps} "
        f"steps after {WARM_STEPS}. Shares of the time are of steps that wait after each stage, so "
        "that nothing overlaps there.",
        ("step", "images", "per second", *STAGES, "first step"),
        tuple(rows),
    )


def speed_row(
    setup: CheckSetup, data: DetectionData, dtype: torch.dtype | None, *, compiled: bool
) -> tuple[str, ...]:
    """Images a second, the share of each stage, and the seconds of the first step."""
    step = TrainingStep(setup, data, dtype, compiled=compiled)
    batches = endless_batches(data)
    began = time.perf_counter()
    step.run(next(batches))
    step.wait()
    first = time.perf_counter() - began
    for batch in islice(batches, WARM_STEPS - 1):
        step.run(batch)
    step.wait()
    began = time.perf_counter()
    for batch in islice(batches, setup.steps):
        step.run(batch)
    step.wait()
    rate = setup.steps * setup.batch_size / (time.perf_counter() - began)
    seconds = dict.fromkeys(STAGES, 0.0)
    last = time.perf_counter()
    for batch in islice(batches, max(2, setup.steps // 4)):
        step.wait()
        seconds["loading"] += time.perf_counter() - last
        step.run(batch, seconds)
        last = time.perf_counter()
    whole = sum(seconds.values())
    return (f"{rate:.1f}", *(f"{value / whole:.0%}" for value in seconds.values()), f"{first:.1f} s")


class TrainingStep:
    """A detector on the device, one step at a time."""

    def __init__(
        self, setup: CheckSetup, data: DetectionData, dtype: torch.dtype | None, *, compiled: bool
    ) -> None:
        self.device, self.dtype = setup.device, dtype
        self.module = setup.module(data).to(setup.device)
        self.module.net.anchors_of(setup.image_size)
        self.optimizer = self.module.optimizer_from(
            parameter_groups(self.module.net, self.module.parameter_config)
        )
        self.loss_terms: Callable[..., Any] = self.module.loss_terms
        if compiled:
            allow_graphs(1)
            self.loss_terms = torch.compile(self.module.loss_terms, fullgraph=True)

    def run(self, batch: Batch, seconds: dict[str, float] | None = None) -> None:
        """One step; with `seconds` it waits after each stage and adds what that took."""
        stages = iter(STAGES[1:])
        last = time.perf_counter()

        def done() -> None:
            nonlocal last
            stage = next(stages)
            if seconds is not None:
                self.wait()
                now = time.perf_counter()
                seconds[stage] += now - last
                last = now

        moved = on_device(batch, self.device)
        done()
        with autocast(self.device, self.dtype):
            sums = self.loss_terms(self.module.layout(moved.images), moved.target)
        done()
        self.optimizer.zero_grad()
        (sums.total / sums.positives.clamp(min=1)).backward()
        done()
        self.optimizer.step()
        done()

    def wait(self) -> None:
        """Until the device has done all that it was told."""
        if self.device == "cuda":
            torch.cuda.synchronize()


# ---- memory


def check_memory(setup: CheckSetup) -> Check:
    """The estimate that `detect fit` prints against the allocator."""
    data = setup.data()
    batch = next(endless_batches(data))
    boxes = batch.target.boxes.shape[1]
    rows: list[tuple[str, ...]] = []
    good = True
    for name, dtype in DTYPES.items():
        precision = None if dtype is None else "bf16-mixed"
        shape = StepShape(setup.batch_size, setup.image_size, boxes, precision=precision)
        expected = estimate(setup.module(data), shape)
        step = TrainingStep(setup, data, dtype, compiled=False)
        measured = allocated(step, batch)
        if setup.device == "cuda" or dtype is None:  # a CPU keeps copies in float32 of what is in bf16
            good &= abs(expected.counted / measured - 1) <= COUNT_BOUND
        seen = f"{used_gb():.2f} GB" if setup.device == "cuda" else "no GPU"
        figures = [f"{size / GB:.3f} GB" for size in (expected.counted, measured, expected.total)]
        rows.append((name, *figures, seen))
        del step
    return Check(
        "Memory and its estimate",
        "passed" if good else "failed",
        "The most that tensors of two steps held at once: counted from shapes, and as torch's allocator gave "
        f"it (they may differ by {COUNT_BOUND:.0%}); what detect fit says before the start, and what is used "
        "of the GPU, with CUDA's own.",
        ("precision", "counted", "allocated", "detect fit says", "used of the GPU"),
        tuple(rows),
    )


def allocated(step: TrainingStep, batch: Batch) -> int:
    """The most bytes that torch's allocator had given out at once within two steps."""
    if step.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            step.run(batch)
        return int(torch.cuda.max_memory_allocated())
    module = step.module
    weights = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))

    def run() -> None:
        for _ in range(2):
            step.run(batch)

    return weights + allocated_on_cpu(run)


def allocated_on_cpu(run: Callable[[], None]) -> int:
    """The most bytes that torch's allocator gives out at once while `run` runs, beyond those before it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    held = peak = 0
    for _, change in sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]"):
        held += change
        peak = max(peak, held)
    return peak


def used_gb() -> float:
    """Memory of the first GPU that is in use, whoever uses it."""
    free, total = torch.cuda.mem_get_info()
    return (total - free) / GB


def first_line(error: BaseException) -> str:
    """What an error says, cut to a cell of a table."""
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0]}"[:160]


def tried(title: str, check: Callable[[], Check]) -> Check:
    """A check, or its failure as a part of the page: a page with a gap says more than none."""
    try:
        return check()
    except Exception as error:  # whatever a machine that no one has seen can do
        return Check(title, "failed", f"It ended with {first_line(error)}")


def step_checks(setup: CheckSetup) -> Iterator[Check]:
    """Those of single steps."""
    yield tried("Memory and its estimate", lambda: check_memory(setup))
    yield tried("Images a second", lambda: check_speed(setup))
