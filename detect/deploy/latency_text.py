"""The JSON of a benchmark for people: a table of its rows, lines about how they were measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from detect.deploy.latency import STAGES, Ratio, runtime_words


def latency_table(result: dict[str, Any]) -> Table:
    """The rows for people: medians of each stage, the tail of the total, the ratio with its spread."""
    protocol, rows = result["protocol"], result["rows"]
    table = Table(title=f"ms per batch, {protocol['clock']} time, median of {protocol['rounds']} rounds")
    table.add_column("model", overflow="fold", min_width=12)
    table.add_column("runtime", overflow="fold", min_width=11)
    for name in ("precision", "threads", "batch"):
        table.add_column(name)
    for name in ("pre", "network", "post", "total", "mean", "p95", "p99", "net MB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("total to first row", min_width=19)
    for row in rows:
        net = row["net_mb"]
        table.add_row(
            Text(Path(row["model"]).name),
            runtime_words(row),
            row["precision"],
            str(row["threads"]),
            str(row["batch"]),
            *(f"{row[f'{stage}_ms']['p50']:.2f}" for stage in (*STAGES, "total")),
            *(f"{row['total_ms'][figure]:.2f}" for figure in ("mean", "p95", "p99")),
            "-" if net is None else f"{net:.0f}",
            "1" if row is rows[0] else str(Ratio(row["ratio_to_first"], *row["ratio_spread"])),
        )
    return table


def protocol_lines(protocol: dict[str, Any]) -> Iterator[str]:
    """The protocol block for people."""
    yield (
        f"{protocol['cpu']}, {protocol['cores']} cores, pinned to {protocol['pinned_to']}, governor "
        f"{protocol['governor'] or 'unknown'}; {protocol['system']}, Python {protocol['python']}"
    )
    yield ", ".join(f"{package} {version}" for package, version in protocol["versions"].items())
    yield (
        f"{protocol['rounds']} rounds after {protocol['warmup']} to warm up, interleaved; images "
        f"{', '.join(protocol['pictures'])}; load average {protocol['load_average_before']} before, "
        f"{protocol['load_average_after']} after"
    )
