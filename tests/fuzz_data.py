"""Hostile data sets: small folders in each format, mutated by a seeded hand, and what `detect` makes of them.

    python -m tests.fuzz_data --count 2000 --seed 0
    python -m tests.fuzz_data --seed 0 --only 137     (one case, with its traceback)

Each case must end as a usable data set, every sample of which can be loaded, or as an `InputError` or a
refusal that names a file; within a few seconds of processor time, within a bound of memory, with nothing
written but to the cache and the output folder. Case i of a seed is a pure function of both.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from detect.data.augment.transforms import default_augmentations
from detect.data.checks.repeated_images import paths_of
from detect.data.convert import WRITERS, convert
from detect.data.dataset import DetectionDataset, SampleKey
from detect.errors import InputError
from detect.inspection.data_check import DataReport, check
from detect.inspection.data_check_text import print_report
from tests.data_sets import coco_file, make_coco_split, make_voc, make_yolo, save_picture
from tests.mutations import MUTATIONS, Target

CPU_LIMIT_S = 5.0
"""Of one case; a healthy one takes a few hundredths."""
MEMORY_LIMIT_MB = 1200.0
"""That a case may add to the process: the largest picture that is decoded, twice."""
CONVERTED = 0.25
"""Share of the cases that are also written in another format."""
FORMATS = tuple(WRITERS)


class Overtime(BaseException):
    """Raised by the timer; no handler of the project's takes it for an error of a file."""


class Outcome(NamedTuple):
    """How a case ended."""

    format: str
    mutation: str
    end: str
    """usable, refused, or FAILED."""
    findings: int
    cpu_s: float
    detail: str = ""
    """The refusal, or the traceback of a failure."""


def make_base(root: Path, data_format: str) -> Path:
    """A healthy data set of two splits and five small pictures, one of them a PNG."""
    if data_format == "coco":
        for split, names in (("train", ["a.jpg", "b.jpg", "c.png"]), ("val", ["d.jpg", "e.jpg"])):
            objects = [(i, c, [3 * i, 2 * c, 20, 10]) for i in range(1, len(names) + 1) for c in (3, 9)]
            content = coco_file([(name, 64, 48) for name in names], objects, {3: "cat", 9: "dog"})
            make_coco_split(root, content, split)
    elif data_format == "voc":
        objects = [("cat", (3, 4, 30, 20)), ("dog", (20, 10, 50, 40))]
        make_voc(root, {"train": dict.fromkeys("abc", objects), "val": dict.fromkeys("de", objects)})
        (root / "JPEGImages" / "c.jpg").unlink()
        save_picture(root / "JPEGImages" / "c.png", seed=9)
    else:
        lines = "0 0.5 0.5 0.25 0.25\n1 0.3 0.4 0.2 0.3\n"
        make_yolo(root, {"train": dict.fromkeys("abc", lines), "val": dict.fromkeys("de", lines)})
        (root / "images" / "train" / "c.jpg").unlink()
        save_picture(root / "images" / "train" / "c.png", seed=9)
    return root


class Fuzzer:
    """Runs cases in a folder of its own.

    Args:
        scratch: an empty folder.
        seed: of all cases.
    """

    def __init__(self, scratch: Path, seed: int) -> None:
        self.scratch = scratch
        self.seed = seed
        self.bases = {name: make_base(scratch / "base" / name, name) for name in FORMATS}
        self.outside = save_picture(scratch / "outside" / "secret.jpg", seed=99).parent
        os.environ["DETECT_CACHE"] = str(scratch / "cache")

    def run(self, number: int) -> Outcome:
        """Case `number`, whose folder is gone afterwards."""
        rng = np.random.default_rng((self.seed, number))
        data_format = FORMATS[number % len(FORMATS)]
        home = self.scratch / f"case{number}"
        root = home / "data"
        shutil.copytree(self.bases[data_format], root)
        names = [name for name, (formats, _) in MUTATIONS.items() if data_format in formats]
        mutation = names[int(rng.integers(len(names)))]
        MUTATIONS[mutation][1](Target(root, self.outside, data_format, rng))
        before = snapshot(home) | snapshot(self.outside)
        start = time.process_time()
        try:
            with limited_time(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow, on broken files
                end, findings, detail = self._judge(root, home / "copy", rng)
            after = snapshot(home, but=home / "copy") | snapshot(self.outside)
            if after != before:
                end, detail = "FAILED", f"changed: {sorted(set(after.items()) ^ set(before.items()))[:4]}"
        except (Exception, Overtime):
            end, findings, detail = "FAILED", 0, traceback.format_exc()
        spent = time.process_time() - start
        shutil.rmtree(home)
        shutil.rmtree(self.scratch / "cache", ignore_errors=True)
        return Outcome(data_format, mutation, end, findings, spent, detail)

    def _judge(self, root: Path, copy: Path, rng: np.random.Generator) -> tuple[str, int, str]:
        """How the case ended, the number of findings, and the refusal."""
        try:
            report = check(root)
        except InputError as error:
            return ("refused" if str(root) in str(error) else "FAILED"), 0, str(error)
        print_report(report, Console(file=io.StringIO()))
        json.dumps(report.to_json())
        if rng.random() < CONVERTED:
            with contextlib.suppress(InputError):  # refusals were judged above
                convert(root, FORMATS[int(rng.integers(3))], output=copy)
        if report.refusals:
            named = all(str(root) in refusal for refusal in report.refusals)
            return ("refused" if named else "FAILED"), len(report.findings), "; ".join(report.refusals)
        load_every_sample(report)
        return "usable", len(report.findings), ""


def load_every_sample(report: DataReport) -> None:
    """What is said to be usable can be decoded, augmented and is finite."""
    for content in report.splits.values():
        dataset = DetectionDataset(content, (32, 32), augmentations=default_augmentations())
        assert len(paths_of(content)) == len(dataset) > 0
        for row in range(len(dataset)):
            sample = dataset[SampleKey(0, row, 8)]
            assert sample.image.shape == (32, 32, 3)
            assert np.isfinite(sample.boxes).all()
            assert (sample.labels > 0).all()


def snapshot(root: Path, but: Path | None = None) -> dict[str, tuple[int, ...]]:
    """Each entry below `root` with its kind, size and time; links are not followed."""
    found = {}
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(parent, name) != but]
        for name in files:
            status = os.lstat(os.path.join(parent, name))
            found[os.path.join(parent, name)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


@contextlib.contextmanager
def limited_time() -> Iterator[None]:
    """Raise `Overtime` after `CPU_LIMIT_S` of processor time."""

    def interrupt(signum: int, frame: object) -> None:
        raise Overtime(f"more than {CPU_LIMIT_S:g} s of processor time")

    previous = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def peak_mb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def limit_memory() -> None:
    """Let the system refuse more than the bound: what asks for it then fails with MemoryError."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = used + int(MEMORY_LIMIT_MB * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    """Run the cases, print what became of them; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", default=None, help="these cases alone, in full")
    options = parser.parse_args()
    numbers = (
        options.only if options.only is not None else range(options.first, options.first + options.count)
    )
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fuzzer = Fuzzer(Path(folder).resolve(), options.seed)
        fuzzer.run(0)  # what is imported on the way is no memory of a case
        imported_mb = peak_mb()
        limit_memory()
        for number in numbers:
            outcome = fuzzer.run(number)
            outcomes.append(outcome)
            if outcome.end == "FAILED" or options.only is not None:
                print(f"case {number}: {outcome.format}, {outcome.mutation}: {outcome.end}", flush=True)
                print(outcome.detail, flush=True)
    print(summary(outcomes))
    print(f"peak memory {peak_mb():.0f} MB, of which {imported_mb:.0f} MB are what is imported")
    return int(any(outcome.end == "FAILED" for outcome in outcomes))


def summary(outcomes: list[Outcome]) -> str:
    """Counts by what was done to the data, and the worst time and memory."""
    ends = Counter((outcome.mutation, outcome.end) for outcome in outcomes)
    lines = [f"{'mutation':24}{'usable':>8}{'refused':>9}{'FAILED':>8}"]
    for mutation in sorted({outcome.mutation for outcome in outcomes}):
        usable, refused, failed = (ends[mutation, end] for end in ("usable", "refused", "FAILED"))
        lines.append(f"{mutation:24}{usable:8}{refused:9}{failed:8}")
    totals = Counter(outcome.end for outcome in outcomes)
    lines.append(f"{'all':24}{totals['usable']:8}{totals['refused']:9}{totals['FAILED']:8}")
    slowest = max(outcome.cpu_s for outcome in outcomes)
    found = sum(outcome.findings for outcome in outcomes)
    lines.append(f"{found} findings; slowest case {slowest:.2f} CPU s")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
