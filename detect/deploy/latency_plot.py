"""The rows of a benchmark as bars: where the time of each goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from detect.deploy.latency import STAGES, row_setting
from detect.evaluation.draw import PALETTE

STAGE_NAMES = {"pre": "preprocessing", "network": "network", "post": "decoding + NMS"}
BAR_INCHES = 0.42


def plot_latency(result: dict[str, Any], path: Path) -> None:
    """Draw medians of the stages, stacked, and the 95th percentile of the total.

    Args:
        result: the benchmark JSON.
        path: an image file; its suffix chooses the format.
    """
    rows = result["rows"]
    places = list(range(len(rows)))
    figure, axes = plt.subplots(figsize=(8, 1.6 + BAR_INCHES * len(rows)), layout="constrained")
    left = [0.0] * len(rows)
    for stage, colour in zip(STAGES, PALETTE, strict=False):
        widths = [row[f"{stage}_ms"]["p50"] for row in rows]
        axes.barh(places, widths, left=left, color=[c / 255 for c in colour], label=STAGE_NAMES[stage])
        left = [start + width for start, width in zip(left, widths, strict=True)]
    tails = [row["total_ms"]["p95"] for row in rows]
    axes.plot(tails, places, "k|", markersize=10, label="95th percentile of the total")
    axes.set_yticks(places, [row_title(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(f"ms per batch, {result['protocol']['clock']} time, median")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    axes.set_title(result["protocol"]["cpu"], fontsize="medium")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def row_title(row: dict[str, Any]) -> str:
    """Model, runtime and what is not 1 or fp32."""
    return f"{Path(row['model']).name}, {row_setting(row)}"
