"""`detect latency-table`: the whole network with one width changed, a few points a width, interleaved."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detect.config.model_section import read_model_section
from detect.deploy.export import verification_images
from detect.deploy.latency import Protocol, Stopwatch, Subject, cpu_name, interleave, paired_ratio
from detect.deploy.load import open_exported
from detect.deploy.runtimes.base import Runtime, RuntimeOptions
from detect.deploy.runtimes.table import RUNTIMES
from detect.errors import InputError, install_hint
from detect.model.checkpoint import TRAINING_KEYS
from detect.model.counts import PAPER_CLASSES
from detect.search.latency_table import Check, LatencyTable, Point, Setting, read_table
from detect.search.networks import NetworkFiles
from detect.search.widths import STEP, Widths, explicit, smaller, step_of, widths_of, with_widths
from detect.types import INPUT_SIZE

CHANGED_SHARE = 0.5
"""Of the widths in a network that checks the predictions; the others stay."""
SECONDS_PER_MINUTE = 60


@dataclass(frozen=True)
class MeasureOptions:
    """In what a network is measured, and how."""

    runtime: str = "onnxruntime"
    int8: bool = False
    threads: int = 1
    protocol: Protocol = field(default_factory=lambda: Protocol(rounds=30, warmup=3))

    def check(self) -> None:
        """Stop at numbers that make no measurement.

        Raises:
            InputError: names the option.
        """
        self.protocol.check()
        if self.threads < 1:
            raise InputError(f"--threads is {self.threads}; give 1 or more")

    def setting(self, stated: dict[str, Any]) -> Setting:
        """The machine and the runtime, for a network of these settings.

        Raises:
            InputError: the runtime is not installed.
        """
        record = RUNTIMES[self.runtime]
        try:
            runtime_version = version(record.package)
        except PackageNotFoundError as error:
            raise InputError(
                f"--runtime {self.runtime} needs {record.package}: {install_hint(record.extra)}"
            ) from error
        height, width = stated.get("image_size") or INPUT_SIZE
        return Setting(
            cpu=cpu_name(),
            cores=os.cpu_count() or 1,
            system=f"{platform.system()} {platform.machine()}",
            runtime=self.runtime,
            version=runtime_version,
            precision="int8" if self.int8 else "fp32",
            threads=self.threads,
            image_size=(int(height), int(width)),
            clock=self.protocol.clock,
        )


@dataclass(frozen=True)
class TableOptions:
    """What a latency table holds."""

    points: int = 3
    """Networks of each width, beside the start."""
    least: float = 0.25
    """Of a width: the smallest that is measured."""
    check: int = 0
    """Random networks whose prediction is compared with their measured latency at the end."""
    other_machine: bool = False
    """Read a table of another machine; nothing is measured into it."""

    def require_sense(self) -> None:
        """Stop at numbers that make no table.

        Raises:
            InputError: names the option.
        """
        if self.points < 1 or self.check < 0:
            raise InputError(f"--points is {self.points}, --check {self.check}; give 1 or more, 0 or more")
        if not 0 < self.least < 1:
            raise InputError(f"--least is {self.least}; give a share of each width, between 0 and 1")


class Bench:
    """Measures networks beside each other, in one runtime, in files that are removed afterwards.

    Args:
        folder: for the files.
        options: runtime and protocol.
    """

    def __init__(self, folder: Path, options: MeasureOptions) -> None:
        self.options = options
        self.files = NetworkFiles(folder, options.runtime, int8=options.int8)

    def measure(self, networks: Sequence[dict[str, Any]]) -> list[NDArray[np.float64]]:
        """Times of networks with random weights, of the network alone, batch 1.

        Each is loaded twice, forwards and backwards: of identical networks the first one that a process loads
        is the slowest by a percent or more, and the last one the fastest.

        Args:
            networks: `model:` sections that state every width.

        Returns:
            Of each: (rounds,) ms, the mean of both; the same place is the same round.
        """
        files = [self.files.write(stated) for stated in networks]
        options = RuntimeOptions(threads=self.options.threads, batch=1)
        with ExitStack() as stack:
            runtimes = [
                stack.enter_context(open_exported(file, self.options.runtime, options=options))
                for file in [*files, *reversed(files)]
            ]
            subjects = [one_run(runtime, self.options.protocol) for runtime in runtimes]
            taken = [ms["network"] for ms in interleave(subjects, self.options.protocol)]
        for file in files:
            self.files.remove(file)
        count = len(files)
        return [
            (first + last) / 2 for first, last in zip(taken[:count], taken[: -count - 1 : -1], strict=True)
        ]

    def ratio(self, network: dict[str, Any], start: dict[str, Any]) -> float:
        """Time of a network over that of the start, in the same rounds."""
        reference, own = self.measure([start, network])
        return paired_ratio(own, reference).median


def one_run(runtime: Runtime, protocol: Protocol) -> Subject:
    """A subject of `interleave` that runs the network alone, always on the same image."""
    image = verification_images(runtime.spec, None)[:1].contiguous()

    def run() -> dict[str, float]:
        watch = Stopwatch(protocol.clock)
        runtime.run(image)
        watch.stop("network")
        return watch.seconds

    return run


def latency_table(
    config: Path,
    output: Path,
    measuring: MeasureOptions,
    options: TableOptions,
    *,
    num_classes: int | None = None,
) -> int:
    """Measure a latency table, or what is missing of it, and print it; returns the exit code.

    Args:
        config: of `detect fit`: the network to start from.
        output: the table; it is written after every width, and read first where it is there.
        measuring: runtime and protocol.
        options: points, checks.
        num_classes: in place of the configuration's; null: those, or COCO's where it takes them from data.

    Raises:
        InputError: a wrong option, or the table at `output` is of another network or machine.
    """
    measuring.check()
    options.require_sense()
    settings = read_model_section(config)
    if settings is None:
        raise InputError(f"{config}: has no model.backbone; an overlay alone is no model")
    classes = num_classes or settings.get("num_classes") or PAPER_CLASSES
    stated = network_alone(explicit({**settings, "num_classes": classes}))
    table = begin_table(stated, output, measuring, other_machine=options.other_machine)
    if table.setting.key == measuring.setting(stated).key:
        with tempfile.TemporaryDirectory(prefix="detect-latency-") as folder:
            bench = Bench(Path(folder), measuring)
            table = measure_missing(table, bench, options, after_width=lambda table: table.write(output))
            networks = random_networks(
                table.start, options.check, least=options.least, step=step_of(table.setting.precision)
            )
            for widths in networks[len(table.checks) :]:
                table = check_predictions(table, bench, [widths])
                table.write(output)
    print_table(table)
    print(f"written: {output}")
    return 0


def network_alone(stated: dict[str, Any]) -> dict[str, Any]:
    """Settings without what only trains the network."""
    return {key: value for key, value in stated.items() if key not in TRAINING_KEYS}


def begin_table(
    stated: dict[str, Any], path: Path, measuring: MeasureOptions, *, other_machine: bool = False
) -> LatencyTable:
    """The table at `path` as far as it is, or an empty one.

    Raises:
        InputError: it is of another network, or of another machine or setting; says what differs.
    """
    setting = measuring.setting(stated)
    if not path.is_file():
        return LatencyTable(setting, stated, widths_of(stated), measuring.protocol.rounds)
    table = read_table(path)
    table.require(setting, path, other_machine=other_machine)
    if table.network != stated:
        raise InputError(f"{path} holds for another network: give another --out, or move it away")
    return table


def measure_missing(
    table: LatencyTable,
    bench: Bench,
    options: TableOptions,
    *,
    after_width: Callable[[LatencyTable], None] = lambda table: None,
) -> LatencyTable:
    """Measure every width that the table lacks.

    Args:
        table: as far as it is.
        bench: of the table's setting.
        options: points of each width.
        after_width: is given the table after each width.
    """
    missing, began = table.missing, time.monotonic()
    step = step_of(table.setting.precision)
    print_line(f"{len(table.start)} widths, {len(table.points)} of them measured already")
    for done, name in enumerate(missing, 1):
        values = smaller(table.start[name], options.points, least=options.least, step=step)
        changed = [with_widths(table.network, {name: value}) for value in values]
        start, *others = bench.measure([table.network, *changed])
        ratios = [paired_ratio(ms, start) for ms in others]
        points = tuple(Point(value, *ratio) for value, ratio in zip(values, ratios, strict=True))
        table = table.with_points(name, points, float(np.median(start)))
        after_width(table)
        left = (time.monotonic() - began) / done * (len(missing) - done) / SECONDS_PER_MINUTE
        shown = ", ".join(f"{point.channels}: {point.ratio - 1:+.1%}" for point in points)
        print_line(f"{name} {table.start[name]} -> {shown}; about {left:.0f} min left")
    return table


def check_predictions(table: LatencyTable, bench: Bench, networks: Sequence[Widths]) -> LatencyTable:
    """Measure networks with several widths changed beside the start, and note what was predicted."""
    checks = list(table.checks)
    for widths in networks:
        measured = bench.ratio(with_widths(table.network, widths), table.network) * table.start_ms
        checks.append(Check(widths, table.predict(widths), measured))
        print_line(
            f"check {len(checks)}: {len(widths)} widths changed, predicted {checks[-1].predicted_ms:.2f} ms, "
            f"measured {measured:.2f} ms, error {checks[-1].error:.1%}"
        )
    return replace(table, checks=tuple(checks))


def random_networks(start: Widths, count: int, *, least: float, step: int = STEP) -> list[Widths]:
    """Networks of which about half of the widths are smaller, each by chance; always the same ones."""
    rng = np.random.default_rng(0)
    networks = []
    for _ in range(count):
        names = [name for name in start if rng.random() < CHANGED_SHARE]
        low = {name: smaller(start[name], 1, least=least, step=step) for name in names}
        networks.append(
            {
                name: int(rng.integers(low[name][0] // step, -(-start[name] // step))) * step
                for name in names
                if low[name]
            }
        )
    return networks


def print_table(table: LatencyTable) -> None:
    """The table for people: the difference of every point, and how far its rounds lie apart."""
    setting, whole = table.setting, table.start_ms
    console = Console(width=max(Console().width, 100), highlight=False)
    shown = Table(title=f"latency of the whole network, {whole:.2f} ms, with one width changed")
    for name in ("width", "channels", "difference ms", "5 % to 95 % of rounds"):
        shown.add_column(name, justify="left" if name == "width" else "right")
    for name, points in table.points.items():
        for point in points:
            low, high = ((ratio - 1) * whole for ratio in (point.low, point.high))
            change = f"{table.start[name]} -> {point.channels}"
            shown.add_row(name, change, f"{(point.ratio - 1) * whole:+.3f}", f"{low:+.3f} to {high:+.3f}")
    console.print(shown)
    console.print(
        f"{setting.runtime} {setting.version}, {setting.precision}, {setting.threads} thread(s), input "
        f"{setting.image_size[0]}x{setting.image_size[1]}, {setting.clock} time, {table.rounds} rounds; "
        f"{setting.cpu}, {setting.cores} cores; key {setting.key}"
    )
    if table.checks:
        console.print(
            f"predictions of {len(table.checks)} random networks: median error {table.median_error:.1%}, "
            f"largest {max(check.error for check in table.checks):.1%}"
        )


def print_line(text: str) -> None:
    """A line of progress, at once."""
    print(text, flush=True)
