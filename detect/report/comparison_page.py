"""The comparison as a page for a browser and as a table for a document."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from detect.report.comparison import COMPARED, Comparison, paper_row
from detect.report.html import DASH, figures, notice, paragraph, percent, table, text, write_page
from detect.report.pareto import PANEL_INCHES, draw_panel, panels
from detect.report.plots import SIZE_INCHES, Series, figure, line_chart
from detect.report.run_groups import Pair, RunGroup, differing_settings

CURVES = (
    ("mAP", "val/mAP", 100.0),
    ("Training loss", "train/loss", 1.0),
    ("Validation loss", "val/loss", 1.0),
)
LEGEND_ROW_INCHES = 0.2


def result_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and rows in plain text, the highest mAP first."""
    headings = ["run", "seeds", *COMPARED, "params (M)", "MAdds (B)"]
    headings += [f"{setting} (ms)" for setting in comparison.settings]
    headings += ["paper row", "paper mAP", "paper params (M)", "paper MAdds (B)", "paper ms"]
    ranked = sorted(comparison.groups, key=lambda group: -(group.mean("mAP") or -1.0))
    return headings, [_result_row(group, comparison) for group in ranked]


def _result_row(group: RunGroup, comparison: Comparison) -> list[str]:
    row = [group.name, str(len(group.runs)), *(with_spread(group, metric) for metric in COMPARED)]
    if group.model is None:
        row += [DASH, DASH]
    else:
        row += [f"{group.model.counts.params / 1e6:.2f}", f"{group.model.counts.madds / 1e9:.3f}"]
    latency = comparison.latency[group.name]
    row += [f"{latency[key].total_ms:.2f}" if key in latency else DASH for key in comparison.settings]
    paper = paper_row(group)
    if paper is None:
        return [*row, *[DASH] * 5]
    return [*row, paper.row, paper.mAP, paper.params_m, paper.madds_b, paper.latency_ms]


def with_spread(group: RunGroup, metric: str) -> str:
    """Mean in percent, with the standard deviation where there are several seeds."""
    spread = group.spread(metric)
    return percent(group.mean(metric)) + ("" if spread is None else f" ± {100 * spread:.1f}")


def pair_table(pairs: list[Pair]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows in plain text."""
    headings = ["first", "second", "second minus first, mAP", "95 % interval", "verdict"]
    return headings, [_pair_row(pair) for pair in pairs]


def _pair_row(pair: Pair) -> list[str]:
    names = [pair.first.name, pair.second.name]
    difference = pair.difference
    if difference is None:
        return [*names, DASH, DASH, f"not comparable: {pair.reason}"]
    better = pair.second if difference.mAP > 0 else pair.first
    verdict = f"{better.name} is better" if difference.distinguishable else "not distinguishable"
    interval = f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    return [*names, f"{100 * difference.mAP:+.1f}", interval, verdict]


def what_the_interval_holds(comparison: Comparison) -> str:
    """How to read the verdicts, in a sentence or two."""
    seeds = {len(group.runs) for group in comparison.groups}
    told = (
        f"Paired bootstrap over the images of the split, {comparison.resamples:,} times: "
        "an interval that holds 0 is called not distinguishable. "
    )
    if seeds == {1}:
        return (
            told + "Each has one seed: another seed of the same configuration may differ by more than this."
        )
    return told + "Seeds are drawn along with the images; a group with one seed counts as if all were alike."


def markdown(comparison: Comparison) -> str:
    """The tables for a document."""
    parts = ["# Comparison\n", markdown_table(*result_table(comparison)), "\nMetrics in percent.\n"]
    if comparison.other_latency:
        rows = [
            [row.model, row.setting, f"{row.total_ms:.2f}", f"{row.network_ms:.2f}"]
            for row in comparison.other_latency
        ]
        headings = ["file", "runtime", "total (ms)", "network (ms)"]
        parts += ["\n## Other files\n", markdown_table(headings, rows)]
    if comparison.pairs:
        parts += ["\n## Differences\n", what_the_interval_holds(comparison) + "\n"]
        parts.append(markdown_table(*pair_table(comparison.pairs)))
    return "\n".join(parts)


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """A table of GitHub's Markdown."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(headings), line(["---"] * len(headings)), *map(line, rows)]) + "\n"


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page."""
    parts: dict[str, tuple[str, Callable[[Comparison], str]]] = {
        "result": ("Result", _results),
        "cost": ("Accuracy against cost", _costs),
        "differences": ("Which differences hold", _differences),
        "curves": ("Learning curves", _curves),
        "settings": ("What was set differently", _settings),
    }
    runs = sum(len(group.runs) for group in comparison.groups)
    write_page(
        path,
        title="Comparison",
        subtitle=f"{runs} runs of {len(comparison.groups)} configurations",
        head=notice(comparison.notices),
        parts={anchor: (title, make(comparison)) for anchor, (title, make) in parts.items()},
    )


def _results(comparison: Comparison) -> str:
    headings, rows = result_table(comparison)
    body = table([text(cell) for cell in headings], [[text(cell) for cell in row] for row in rows])
    body += paragraph(
        "Metrics are COCO's, in percent; with several seeds the mean and the standard deviation. Latency is "
        "the median from the file to its boxes. The paper's rows have the same backbone: mAP on COCO "
        "test-dev, latency on a Pixel 1."
    )
    if comparison.other_latency:
        others = [
            (text(row.model), text(row.setting), f"{row.total_ms:.2f}", f"{row.network_ms:.2f}")
            for row in comparison.other_latency
        ]
        body += "<h3>Files of no run</h3>"
        body += table(("file", "runtime", "total, ms", "network, ms"), others, left=2)
    return body


def _costs(comparison: Comparison) -> str:
    return figures(
        *(
            figure(f"{panel.title}: {panel.cost_label}", draw_panel(panel), size=PANEL_INCHES)
            for panel in panels(comparison.groups, comparison.latency)
        )
    )


def _differences(comparison: Comparison) -> str:
    if not comparison.pairs:
        return ""
    headings, rows = pair_table(comparison.pairs)
    body = paragraph(what_the_interval_holds(comparison))
    if len(rows) > 20:
        body += paragraph(
            f"Of {len(rows)} pairs about {len(rows) * 0.05:.0f} would stand out by chance alone."
        )
    return body + table(headings, [[text(cell) for cell in row] for row in rows], left=2)


def _curves(comparison: Comparison) -> str:
    charts = []
    height = SIZE_INCHES[1] + LEGEND_ROW_INCHES * len(comparison.groups) / 2
    for title, column, factor in CURVES:
        curves = [(group.name, *group.curve(column)) for group in comparison.groups]
        series = [Series(name, x, factor * np.where(y < 0, np.nan, y)) for name, x, y in curves if len(x)]
        if series:
            unit = "percent" if factor == 100 else "loss"
            draw = line_chart(series, x_label="epoch", y_label=unit, legend_below=True)
            charts.append(figure(title, draw, size=(SIZE_INCHES[0], height)))
    return figures(*charts) if charts else ""


def _settings(comparison: Comparison) -> str:
    different = differing_settings(comparison.groups)
    if not different:
        return paragraph("Nothing but the seed.") if len(comparison.groups) == 1 else ""
    rows = [[text(key), *_marked(values)] for key, values in different.items()]
    return table(["setting", *(text(group.name) for group in comparison.groups)], rows)


def _marked(values: list[Any]) -> list[str]:
    """Cells of a setting; what is not the most frequent value is marked, by a sign as by colour."""
    shown = ["" if value is None else str(value) for value in values]
    usual = max(shown, key=shown.count)
    return [
        text(cell) if cell == usual else f'<td class="differs">{text(cell) or DASH}</td>' for cell in shown
    ]
