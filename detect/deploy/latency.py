"""Latency that can be trusted: runs interleaved round by round, warm-up, percentiles, and the protocol block.

Two subjects are compared by the ratio of their times in the same round, so that what slows the machine for a
while slows both. A difference is called real only where the spread of that ratio leaves out 1.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detect.deploy.runtimes.table import RUNTIMES
from detect.errors import InputError

Clock = Literal["wall", "cpu"]
"""Wall time, or processor time of this process, which leaves out the time that other programs had."""
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
STAGES = ("pre", "network", "post")
SPREAD_PERCENTILES = (5, 95)
PAUSE_S = 0.002
"""Pause between two runs: thread pools of a runtime spin for about a millisecond after a run."""
PACKAGES = ("torch", "torchvision", "numpy", "pillow")
"""Take part whatever the runtime is."""

Subject = Callable[[], dict[str, float]]
"""One run: the seconds that each stage took."""


class Ratio(NamedTuple):
    """Time of a subject over that of another, round by round."""

    median: float
    low: float
    """5th percentile over rounds."""
    high: float
    """95th percentile over rounds."""

    @property
    def is_real(self) -> bool:
        """Whether the spread leaves out 1."""
        return self.low > 1 or self.high < 1

    def __str__(self) -> str:
        text = f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"
        return text if self.is_real else f"{text}, no difference shown"


class Protocol(NamedTuple):
    """How it was measured."""

    rounds: int = 50
    warmup: int = 5
    """Rounds before the first that counts."""
    clock: Clock = "wall"
    cores: tuple[int, ...] | None = None
    """Processor cores that this process is pinned to; None: as it was started."""

    def check(self) -> None:
        """Stop at numbers that make no measurement.

        Raises:
            InputError: names the option.
        """
        if self.rounds < 3:
            raise InputError(f"--rounds is {self.rounds}; a spread needs at least 3")
        if self.warmup < 1:
            raise InputError(
                f"--warmup is {self.warmup}; the first run of a network is never like the others"
            )


def interleave(
    subjects: Sequence[Subject], protocol: Protocol, *, after_round: Callable[[int], None] = lambda done: None
) -> list[dict[str, NDArray[np.float64]]]:
    """Run every subject once a round, in an order that turns from round to round.

    Args:
        subjects: what is run.
        protocol: rounds and clock.
        after_round: is told how many rounds that count are done.

    Returns:
        Of each subject: (rounds,) ms of every stage and of "total".
    """
    samples: list[list[dict[str, float]]] = [[] for _ in subjects]
    for round_number in range(-protocol.warmup, protocol.rounds):
        for place in round_order(len(subjects), round_number):
            time.sleep(PAUSE_S)
            seconds = subjects[place]()
            if round_number >= 0:
                samples[place].append(seconds | {"total": sum(seconds.values())})
        after_round(round_number + 1)
    return [
        {stage: np.array([sample[stage] for sample in taken]) * 1e3 for stage in taken[0]}
        for taken in samples
    ]


def round_order(count: int, round_number: int) -> list[int]:
    """Forwards and backwards by turns, then one further: each comes first, and after each other."""
    start = round_number // 2 % count
    order = [*range(start, count), *range(start)]
    return order[::-1] if round_number % 2 else order


def summarise(ms: ArrayLike) -> dict[str, float]:
    """Percentiles and mean of some times in ms, and how many there are."""
    values = np.asarray(ms, dtype=np.float64)
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    rounded = {"p50": p50, "p95": p95, "p99": p99, "mean": values.mean()}
    return {name: round(float(value), 4) for name, value in rounded.items()} | {"n": len(values)}


def paired_ratio(ms: ArrayLike, reference_ms: ArrayLike) -> Ratio:
    """Times of one subject over those of another in the same rounds."""
    ratios = np.asarray(ms, dtype=np.float64) / np.asarray(reference_ms, dtype=np.float64)
    low, high = np.percentile(ratios, SPREAD_PERCENTILES)
    return Ratio(float(np.median(ratios)), float(low), float(high))


def runtime_words(row: dict[str, Any]) -> str:
    """The runtime of a row of the JSON, and its provider unless that is the CPU; older files have none."""
    provider = row.get("provider", "cpu")
    return str(row["runtime"]) if provider == "cpu" else f"{row['runtime']} {provider}"


def row_setting(row: dict[str, Any]) -> str:
    """The runtime of a row of the JSON, and precision, threads and batch where not fp32, 1 and 1."""
    parts = [runtime_words(row)]
    parts += [str(row["precision"])] if row["precision"] != "fp32" else []
    parts += [f"{row['threads']} threads"] if row["threads"] != 1 else []
    parts += [f"batch {row['batch']}"] if row["batch"] != 1 else []
    return ", ".join(parts)


class Stopwatch:
    """Times the stages of one run, one after the other."""

    def __init__(self, clock: Clock) -> None:
        self._now = CLOCKS[clock]
        self.seconds: dict[str, float] = {}
        self._last = self._now()

    def stop(self, stage: str) -> None:
        """What has passed since the last stop, or since the start, was `stage`."""
        now = self._now()
        self.seconds[stage] = now - self._last
        self._last = now


def pin(cores: tuple[int, ...] | None) -> None:
    """Pin this process to some cores.

    Raises:
        InputError: the system cannot, or a core is not there.
    """
    if cores is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("--cores: this system cannot pin a process to cores; leave it out")
    allowed = os.sched_getaffinity(0)
    if not set(cores) <= allowed:
        raise InputError(f"--cores {' '.join(map(str, cores))}: this process may use {sorted(allowed)}")
    os.sched_setaffinity(0, cores)


def describe_machine() -> dict[str, Any]:
    """What figures depend on besides the code: processor, governor, cores, system, versions, load."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "pinned_to": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "niceness": os.nice(0),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": installed_versions(),
    }


def load_average() -> list[float] | None:
    """Programs that ran or waited to run over the last 1, 5 and 15 minutes, this one included."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def installed_versions() -> dict[str, str]:
    """Versions of the packages that take part, as far as they are installed."""
    found = {}
    for package in dict.fromkeys((*PACKAGES, *(record.package for record in RUNTIMES.values()))):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's name, as far as the system tells it."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
