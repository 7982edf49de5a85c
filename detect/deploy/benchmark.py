"""`detect benchmark`: models by runtimes by threads by batch sizes, from a photograph's file to its boxes."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import resource
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from detect.config.trusted_classes import own_modules, trust
from detect.data.images.decode import load_pixels
from detect.data.synthetic.images import generated_images
from detect.deploy.export import ExportOptions, export
from detect.deploy.exported_file import Precision, file_sha256
from detect.deploy.inference import Detector
from detect.deploy.latency import (
    STAGES,
    Protocol,
    Stopwatch,
    describe_machine,
    interleave,
    load_average,
    paired_ratio,
    pin,
    summarise,
)
from detect.deploy.latency_plot import plot_latency
from detect.deploy.latency_text import latency_table, protocol_lines
from detect.deploy.load import CONFIG_SUFFIXES, exported_format, load_detector, open_exported
from detect.deploy.runtimes.base import Provider, Runtime, RuntimeOptions
from detect.deploy.runtimes.onnxruntime import OnnxRuntime
from detect.deploy.runtimes.table import FORMATS, RUNTIMES
from detect.deploy.spec import Form
from detect.errors import InputError
from detect.system.files import write_atomically

MEMORY_RUNS = 3
"""After which a process has had its largest memory."""
GENERATED_IMAGES = 4
TABLE_WIDTH = 150
"""Characters; a narrower terminal or a file gets long lines rather than broken words."""


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is compared, and how."""

    runtimes: Sequence[str] = ("onnxruntime",)
    """Names in `table.RUNTIMES`."""
    threads: Sequence[int] = (1,)
    batches: Sequence[int] = (1,)
    providers: Sequence[Provider] = ("cpu",)
    """Of ONNX Runtime; the other runtimes compute on the CPU."""
    protocol: Protocol = field(default_factory=Protocol)
    form: Form = "raw"
    """Form of the files that are exported from a checkpoint or a config for the measurement."""
    precision: Precision | None = None
    """bf16 for OpenVINO; null: as the file is."""
    pictures: list[Path] | None = None
    """Null: generated ones."""
    memory: bool = True
    """Measure the memory of each row in a process of its own."""

    def check(self) -> None:
        """Stop at numbers that make no measurement.

        Raises:
            InputError: names the option.
        """
        self.protocol.check()
        for name, values in (("threads", self.threads), ("batch", self.batches)):
            if min(values) < 1:
                raise InputError(f"--{name} is {min(values)}; give 1 or more")
        if tuple(self.providers) != ("cpu",) and OnnxRuntime.name not in self.runtimes:
            raise InputError(
                f"--provider {' '.join(self.providers)} is for ONNX Runtime: "
                f"give --runtime {OnnxRuntime.name}"
            )


@dataclass(frozen=True)
class Row:
    """One line of the table before it is measured."""

    model: Path
    """As the user gave it."""
    file: Path
    """What is loaded: the same, or what was exported from it."""
    runtime: str
    options: RuntimeOptions
    batch: int


def benchmark(models: list[Path], options: BenchmarkOptions, *, json_file: Path | None = None) -> int:
    """Measure, print a table, and write JSON and a plot beside it.

    Args:
        models: checkpoints, exported files or configs.
        options: runtimes, threads, batches and the protocol.
        json_file: where to; the plot gets the same name with .png.

    Raises:
        InputError: no runtime fits a model, or is not installed.
    """
    options.check()
    pin(options.protocol.cores)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    with tempfile.TemporaryDirectory(prefix="detect-benchmark-") as folder:
        rows = plan_rows(models, options, Path(folder), console)
        images = options.pictures or write_images(Path(folder))
        result = measure(rows, images, options).to_json()
    Console(width=max(console.width, TABLE_WIDTH)).print(latency_table(result))
    for line in protocol_lines(result["protocol"]):
        console.print(line)
    if json_file is not None:
        write_atomically(json_file, json.dumps(result, indent=1) + "\n")
        plot = json_file.with_suffix(".png")
        plot_latency(result, plot)
        console.print(f"written: {json_file}, {plot}")
    return 0


def plan_rows(models: list[Path], options: BenchmarkOptions, folder: Path, console: Console) -> list[Row]:
    """Every pair of model and runtime that fits, in the order given, with every number of threads and batch.

    Raises:
        InputError: a model fits none of the runtimes.
    """
    rows = []
    for model in models:
        if model.suffix in CONFIG_SUFFIXES:
            console.print(f"{model}: a config, so its weights are random; times are those of its shape")
        able = [runtime for runtime in options.runtimes if fits(model, runtime)]
        for runtime in options.runtimes:
            if runtime not in able:
                console.print(f"left out: {model} in {runtime}, which does not read it")
        if not able:
            raise InputError(f"{model}: none of {', '.join(options.runtimes)} runs it")
        for runtime in able:
            file = prepare(model, runtime, options.form, folder)
            providers = options.providers if runtime == OnnxRuntime.name else ("cpu",)
            rows += [
                Row(model, file, runtime, RuntimeOptions(threads, options.precision, provider, batch), batch)
                for provider in providers
                for threads in options.threads
                for batch in options.batches
            ]
    return rows


def fits(model: Path, runtime: str) -> bool:
    """Whether a runtime can run a model, after an export where it is a checkpoint or a config."""
    format = exported_format(model)
    return format is None or format in RUNTIMES[runtime].reads


def prepare(model: Path, runtime: str, form: Form, folder: Path) -> Path:
    """The file to load: the model's own, or one that is exported from it into `folder` for the runtime."""
    formats = RUNTIMES[runtime].reads
    if exported_format(model) is not None or not formats:
        return model
    key = zlib.crc32(str(model.resolve()).encode())  # two models may have one name
    file = folder / f"{model.stem}-{key:08x}{FORMATS[formats[0]].suffix}"
    if not file.exists():
        export(model, file, ExportOptions(format=formats[0], form=form))
    return file


def open_row(row: Row) -> Runtime:
    """The runtime of a row, loaded."""
    record = RUNTIMES[row.runtime]
    if record.reads:
        return open_exported(row.file, row.runtime, options=row.options)
    return record.load(load_detector(row.file).detector, row.options)


def write_images(folder: Path) -> list[Path]:
    """Generated images as JPEG files of a camera's quality."""
    paths = [folder / f"{i}.jpg" for i in range(GENERATED_IMAGES)]
    for path, pixels in zip(paths, generated_images(GENERATED_IMAGES), strict=True):
        Image.fromarray(pixels).save(path, quality=90)
    return paths


class PhotographToBoxes:
    """One run of a row: read and resize files, run the network, decode and suppress.

    Args:
        detector: the network of the row.
        files: images; a batch takes the next ones, round and round.
        batch: how many.
        protocol: for its clock.
    """

    def __init__(self, detector: Detector, files: list[Path], batch: int, protocol: Protocol) -> None:
        self.detector, self.files, self.batch, self.clock = detector, files, batch, protocol.clock
        self._next = 0

    def __call__(self) -> dict[str, float]:
        places = range(self._next, self._next + self.batch)
        files = [self.files[place % len(self.files)] for place in places]
        self._next += self.batch
        watch = Stopwatch(self.clock)
        inputs = self.detector.prepare([load_pixels(file) for file in files])
        images = inputs.images.contiguous()
        watch.stop("pre")
        outputs = self.detector.runtime.run(images)
        watch.stop("network")
        self.detector.finish(outputs, inputs.orig_size)
        watch.stop("post")
        return watch.seconds


class Measured(NamedTuple):
    """What was taken of all rows together."""

    rows: list[dict[str, Any]]
    """Rows of the JSON."""
    samples_ms: list[dict[str, NDArray[np.float64]]]
    """(rounds,) of each row and stage, and of "total"; the same place is the same round."""
    protocol: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The benchmark JSON."""
        return {"protocol": self.protocol, "rows": self.rows}


def measure(rows: list[Row], images: list[Path], options: BenchmarkOptions) -> Measured:
    """Load every row, run them interleaved, and describe what was taken."""
    protocol = options.protocol
    memory: list[Memory] = []
    for number, row in enumerate(rows, 1):
        if options.memory:
            print_line(f"memory of row {number} of {len(rows)}: {row.model.name}, {row.runtime}")
        memory.append(memory_of(row, images) if options.memory else Memory(None, None))
    torch.set_num_threads(1)  # preprocessing and postprocessing are the same for every row
    before = load_average()
    with contextlib.ExitStack() as stack:
        runtimes = [stack.enter_context(open_row(row)) for row in rows]
        subjects = [
            PhotographToBoxes(Detector(runtime), images, row.batch, protocol)
            for runtime, row in zip(runtimes, rows, strict=True)
        ]
        print_line(f"{protocol.rounds} rounds of {len(rows)} rows, after {protocol.warmup} to warm up")
        taken = interleave(subjects, protocol, after_round=rounds_printer(protocol.rounds))
        described = [
            describe_row(row, runtime, ms, taken[0]) | used._asdict()
            for row, runtime, ms, used in zip(rows, runtimes, taken, memory, strict=True)
        ]
    return Measured(described, taken, describe_protocol(protocol, images, before))


def describe_protocol(protocol: Protocol, images: list[Path], before: list[float] | None) -> dict[str, Any]:
    """The protocol block, once everything was measured.

    Args:
        protocol: rounds and clock.
        images: what was run on.
        before: load average before the first run.
    """
    return describe_machine() | {
        "rounds": protocol.rounds,
        "warmup": protocol.warmup,
        "clock": protocol.clock,
        "order": "interleaved, turned each round",
        "stages": "pre: JPEG file to network input; post: network output to boxes in px of the file",
        "pictures": image_sizes(images),
        "load_average_before": before,
        "load_average_after": load_average(),
    }


def describe_row(
    row: Row, runtime: Runtime, ms: dict[str, NDArray[np.float64]], first_ms: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """One row of the JSON; ratios are of the total, to the first row in the same rounds."""
    ratio = paired_ratio(ms["total"], first_ms["total"])
    return {
        "model": str(row.model),
        "checkpoint_sha256": checkpoint_sha256(row, runtime),
        "runtime": runtime.name,
        "provider": row.options.provider,
        "version": runtime.version,
        "precision": runtime.precision,
        "form": runtime.spec.form,
        "threads": row.options.threads,
        "batch": row.batch,
        **{f"{stage}_ms": summarise(ms[stage]) for stage in (*STAGES, "total")},
        "ratio_to_first": round(ratio.median, 4),
        "ratio_spread": [round(ratio.low, 4), round(ratio.high, 4)],
        "differs_from_first": ratio.is_real,
    }


def checkpoint_sha256(row: Row, runtime: Runtime) -> str | None:
    """Hash of the checkpoint that the weights of a row come from; None: random weights of a config."""
    if exported_format(row.model) is not None:
        return runtime.spec.checkpoint_sha256
    return None if row.model.suffix in CONFIG_SUFFIXES else file_sha256([row.model])


class Memory(NamedTuple):
    """What a process of its own holds while it loads and runs a row, in MB (1e6 bytes)."""

    peak_rss_mb: float | None
    """The most, with Python and torch; None: not measured."""
    net_mb: float | None
    """What the row added to what the process held before it: runtime, file and runs."""


def memory_of(row: Row, images: list[Path]) -> Memory:
    """Memory of a row, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    allowed = (own_modules(),)  # a process of its own starts without any permission
    with ProcessPoolExecutor(1, mp_context=context, initializer=trust, initargs=allowed) as process:
        return process.submit(_load_and_run, row, images).result()


def _load_and_run(row: Row, images: list[Path]) -> Memory:
    torch.set_num_threads(1)
    before = _peak_rss_mb()  # what is imported stays, so that the peak so far is what the process holds
    with open_row(row) as runtime:
        run = PhotographToBoxes(Detector(runtime), images, row.batch, Protocol())
        for _ in range(MEMORY_RUNS):
            run()
    peak = _peak_rss_mb()
    return Memory(round(peak, 1), round(peak - before, 1))


def _peak_rss_mb() -> float:
    """The most that this process has held; what it began from, a child of a large process, does not count."""
    status = Path("/proc/self/status")
    if status.exists():  # the system's other figure is inherited from the parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)  # bytes there, KiB elsewhere


def rounds_printer(rounds: int) -> Callable[[int], None]:
    """Says how far the rounds are, at each quarter: also where the output is a pipe."""
    quarters = {rounds * quarter // 4 for quarter in (1, 2, 3)}

    def after_round(done: int) -> None:
        if done in quarters:
            print_line(f"  {done} of {rounds} rounds")

    return after_round


def print_line(text: str) -> None:
    """A line of progress, at once."""
    print(text, flush=True)


def image_sizes(images: list[Path]) -> list[str]:
    """Height x width of each image."""
    return ["x".join(map(str, load_pixels(path).shape[:2])) for path in images]
