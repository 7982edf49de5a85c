"""Gathers runs and benchmark files, and says what is known of each group of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detect.errors import InputError
from detect.evaluation.bootstrap import RESAMPLES
from detect.evaluation.metrics import metric_names
from detect.inspection.models import TABLE_6, PaperRow
from detect.report.latency_files import LatencyRow, assign, read_benchmark, untied_notices
from detect.report.run_files import read_run
from detect.report.run_groups import Pair, RunGroup, compare_pairs, group_runs
from detect.report.run_page import read_model

COMPARED = metric_names("comparison")
BENCHMARK_FILE = "benchmark.json"
"""Read from a run folder where it lies there."""


class Comparison(NamedTuple):
    """All that the page, the table and the JSON say."""

    groups: list[RunGroup]
    latency: dict[str, dict[str, LatencyRow]]
    """Rows by name of the group, then by setting."""
    other_latency: list[LatencyRow]
    """Rows of files that belong to none of the runs."""
    pairs: list[Pair]
    notices: list[str]
    resamples: int
    """Number of resamples of the bootstrap behind `pairs`."""

    @property
    def settings(self) -> list[str]:
        """Runtimes and their options, in the order in which they were measured."""
        return list(dict.fromkeys(setting for rows in self.latency.values() for setting in rows))


def gather(paths: Sequence[Path], *, resamples: int = RESAMPLES) -> Comparison:
    """Read run folders and benchmark files.

    Raises:
        InputError: a path is neither; or a benchmark file is broken.
    """
    runs, latency_rows, notices = [], [], []
    for path in dict.fromkeys(paths):
        if not path.exists():
            raise InputError(f"{path}: no such run or benchmark file")
        if not path.is_dir():
            latency_rows += read_benchmark(path)
            continue
        run = read_run(path)
        found: list[str] = [*run.notices]
        runs.append((run, read_model(run, found)))
        notices += [f"{run.name}: {notice}" for notice in found]
        if (path / BENCHMARK_FILE).is_file():
            latency_rows += read_benchmark(path / BENCHMARK_FILE)
    notices += untied_notices(latency_rows)
    groups = group_runs(runs)
    latency, others = assign(latency_rows, groups)
    pairs = compare_pairs(groups, resamples=resamples)
    return Comparison(groups, latency, others, pairs, notices, resamples)


def paper_row(group: RunGroup) -> PaperRow | None:
    """The row of the paper's Table 6 with the same backbone, whatever the data."""
    if group.model is None:
        return None
    backbone = group.model.net.backbone
    key = (backbone.name, backbone.reduced_tail, backbone.width)
    return next((row for row in TABLE_6 if key == (row.backbone, row.reduced_tail, row.width)), None)


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Plain values of the whole comparison; metrics are fractions of one."""
    return {
        "groups": [
            {
                "name": group.name,
                "runs": [str(run.folder) for run in group.runs],
                "seeds": [run.seed for run in group.runs],
                "metrics": {
                    name: {
                        "mean": group.mean(name),
                        "spread": group.spread(name),
                        "values": group.values(name),
                    }
                    for name in COMPARED
                },
                "params": group.model.counts.params if group.model else None,
                "madds": group.model.counts.madds if group.model else None,
                "latency": {
                    setting: {"total_ms": row.total_ms, "network_ms": row.network_ms, "model": row.model}
                    for setting, row in comparison.latency[group.name].items()
                },
                "paper_row": row.row if (row := paper_row(group)) else None,
            }
            for group in comparison.groups
        ],
        "other_latency": [
            {
                "model": row.model,
                "setting": row.setting,
                "total_ms": row.total_ms,
                "network_ms": row.network_ms,
            }
            for row in comparison.other_latency
        ],
        "pairs": [_pair_json(pair) for pair in comparison.pairs],
    }


def _pair_json(pair: Pair) -> dict[str, Any]:
    names = {"first": pair.first.name, "second": pair.second.name}
    if pair.difference is None:
        return {**names, "reason": pair.reason}
    return {
        **names,
        "mAP_difference": pair.difference.mAP,
        "low": pair.difference.low,
        "high": pair.difference.high,
        "distinguishable": pair.difference.distinguishable,
    }
