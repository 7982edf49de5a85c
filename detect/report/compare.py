"""`detect compare`: runs and benchmark files side by side, and which differences hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from detect.errors import InputError
from detect.evaluation.bootstrap import RESAMPLES
from detect.report.classifier_comparison import compare_classifiers
from detect.report.classifier_page import is_classifier_run
from detect.report.comparison import gather, to_json
from detect.report.comparison_page import markdown, pair_row, write_comparison
from detect.report.pareto import PANEL_INCHES, draw_panels, panels
from detect.report.plots import save_png
from detect.report.run_files import RunFiles, is_run, read_run
from detect.system.files import write_atomically


def compare(
    paths: Sequence[Path], output: Path, *, resamples: int = RESAMPLES, json_file: Path | None = None
) -> int:
    """Write index.html, table.md and pareto.png into `output`; returns the exit code.

    Args:
        paths: run folders and benchmark files.
        output: a folder, made where it is missing; what a comparison wrote there before is replaced.
        resamples: of the bootstrap.
        json_file: write the figures there as well.

    Raises:
        InputError: a path is neither a run nor a benchmark, `output` is a file, or there is nothing to draw.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--out {output} is a file; give a folder")
    if resamples < 1:
        raise InputError(f"--resamples is {resamples}; give 1 or more, 1000 for an interval that holds")
    if classifiers := classifier_runs(paths):
        output.mkdir(parents=True, exist_ok=True)
        compare_classifiers(classifiers, output, json_file=json_file)
        print(f"  {output / 'index.html'}\n  {output / 'table.md'}")
        return 0
    comparison = gather(paths, resamples=resamples)
    output.mkdir(parents=True, exist_ok=True)
    write_comparison(output / "index.html", comparison)
    write_atomically(output / "table.md", markdown(comparison))
    shown = panels(comparison.groups, comparison.latency)
    columns, rows = min(2, len(shown)), -(-len(shown) // 2)
    size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows)
    save_png(output / "pareto.png", draw_panels(shown), size=size)
    if json_file is not None:
        write_atomically(json_file, json.dumps(to_json(comparison), indent=1))
    for pair in comparison.pairs:
        print("  ".join(pair_row(pair)))
    for name in ("index.html", "table.md", "pareto.png"):
        print(f"  {output / name}")
    return 0


def classifier_runs(paths: Sequence[Path]) -> list[RunFiles]:
    """The runs, where they are of `detect pretrain`; none where they are of detectors.

    Raises:
        InputError: they are of both kinds.
    """
    runs = [read_run(path) for path in dict.fromkeys(paths) if is_run(path)]
    classifiers = [run for run in runs if is_classifier_run(run)]
    if classifiers and len(classifiers) < len(dict.fromkeys(paths)):
        raise InputError("classifiers and detectors, or their benchmarks, cannot be compared: name one kind")
    return classifiers
