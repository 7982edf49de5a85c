"""Benchmark files, and which of their rows belong to which run: the one that the measured weights are of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detect.deploy.exported_file import file_sha256
from detect.deploy.latency import row_setting
from detect.errors import InputError
from detect.report.run_groups import RunGroup

CHECKPOINTS = ("best.ckpt", "last.ckpt")
FORMAT = "a benchmark file has protocol and rows, as `detect benchmark --json` writes them"


class LatencyRow(NamedTuple):
    """Medians of one row of a benchmark, in ms per batch."""

    model: str
    """The file that was measured, as it was given."""
    checkpoint_sha256: str | None
    """Hash of the checkpoint that its weights came from; None for random weights, or if not noted."""
    notes_checkpoint: bool
    """False in files of older versions, which have no key `checkpoint_sha256`."""
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
    except (OSError, ValueError, RecursionError) as error:
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


def untied_notices(rows: Sequence[LatencyRow]) -> list[str]:
    """One sentence about benchmark files that note no hash of the weights, as older versions wrote them."""
    untied = [row for row in rows if not row.notes_checkpoint]
    if not untied:
        return []
    names = ", ".join(dict.fromkeys(row.source.name for row in untied))
    return [
        f"{names}: {len(untied)} rows do not note which weights were measured, so they cannot be tied to a "
        "run; measure again with detect benchmark."
    ]


def _row(row: dict[str, Any], machine: str, source: Path) -> LatencyRow:
    memory = row.get("peak_rss_mb")
    return LatencyRow(
        model=str(row["model"]),
        checkpoint_sha256=row.get("checkpoint_sha256"),
        notes_checkpoint="checkpoint_sha256" in row,
        setting=row_setting(row),
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

    A row belongs to the run that has the checkpoint which the measured weights came from. Of several for one
    group and setting, as of several seeds, the first counts.
    """
    owned: dict[str, dict[str, LatencyRow]] = {group.name: {} for group in groups}
    owner_of = _owners(groups) if any(row.checkpoint_sha256 for row in rows) else {}
    others = []
    for row in rows:
        owner = owner_of.get(row.checkpoint_sha256 or "")
        if owner is None:
            others.append(row)
        else:
            owned[owner].setdefault(row.setting, row)
    return owned, others


def _owners(groups: Sequence[RunGroup]) -> dict[str, str]:
    """Name of the group by the hash of each checkpoint of its runs; the first where runs are copies."""
    found: dict[str, str] = {}
    for group in groups:
        for run in group.runs:
            for path in (run.folder / "checkpoints" / name for name in CHECKPOINTS):
                if path.is_file():
                    found.setdefault(file_sha256([path]), group.name)
    return found
