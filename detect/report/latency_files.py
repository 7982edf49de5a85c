"""Benchmark files, and which of their rows belong to which run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detect.errors import InputError
from detect.report.run_groups import RunGroup

FORMAT = "a benchmark file has protocol and rows, as `detect benchmark --json` writes them"


class LatencyRow(NamedTuple):
    """Medians of one row of a benchmark, in ms a batch."""

    model: str
    """The file that was measured, as it was given."""
    setting: str
    """Runtime, and precision, threads and batch where they are not fp32, 1 and 1."""
    total_ms: float
    network_ms: float
    peak_rss_mb: float | None
    machine: str
    source: Path


def read_benchmark(path: Path) -> list[LatencyRow]:
    """The rows of a benchmark JSON.

    Raises:
        InputError: no such file, or not one of ours; names the row.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} as JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise InputError(f"{path} is neither a run folder nor a benchmark: {FORMAT}")
    protocol = content.get("protocol")
    machine = str(protocol.get("cpu", "")) if isinstance(protocol, dict) else ""
    rows = []
    for number, row in enumerate(content["rows"]):
        try:
            rows.append(_row(row, machine, path))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: row {number} (counted from 0) lacks or misstates {error}; {FORMAT}"
            ) from error
    return rows


def _row(row: dict[str, Any], machine: str, source: Path) -> LatencyRow:
    parts = [str(row["runtime"])]
    parts += [str(row["precision"])] if row["precision"] != "fp32" else []
    parts += [f"{row['threads']} threads"] if row["threads"] != 1 else []
    parts += [f"batch {row['batch']}"] if row["batch"] != 1 else []
    memory = row.get("peak_rss_mb")
    return LatencyRow(
        model=str(row["model"]),
        setting=", ".join(parts),
        total_ms=float(row["total_ms"]["p50"]),
        network_ms=float(row["network_ms"]["p50"]),
        peak_rss_mb=None if memory is None else float(memory),
        machine=machine,
        source=source,
    )


def assign(
    rows: Sequence[LatencyRow], groups: Sequence[RunGroup]
) -> tuple[dict[str, dict[str, LatencyRow]], list[LatencyRow]]:
    """Rows of each group by its name and their setting, and the rows that belong to none.

    A row belongs to the run whose folder its file lies in, or whose folder's name is part of its path or its
    name. Of several for one group and setting, as of several seeds, the first counts.
    """
    owned: dict[str, dict[str, LatencyRow]] = {group.name: {} for group in groups}
    others = []
    for row in rows:
        owner = next((group for group in groups if _owns(group, row)), None)
        if owner is None:
            others.append(row)
        else:
            owned[owner.name].setdefault(row.setting, row)
    return owned, others


def _owns(group: RunGroup, row: LatencyRow) -> bool:
    path = Path(row.model)
    for run in group.runs:
        folder = run.folder.resolve()
        places = (path.resolve(), (row.source.parent / path).resolve())
        if any(folder in place.parents for place in places):
            return True
        if run.name in path.parts or run.name == path.stem:
            return True
    return False
