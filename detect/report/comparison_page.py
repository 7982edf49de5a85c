"""The comparison as a page for a browser and as a table for a document."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detect.evaluation.metrics import show_metric
from detect.report.comparison import COMPARED, Comparison, paper_row
from detect.report.html import DASH, write_page
from detect.report.pareto import PANEL_INCHES, draw_panel, panels
from detect.report.plots import SIZE_INCHES, Plot, Series, line_chart, plot
from detect.report.run_groups import Pair, RunGroup, differing_settings

CURVES = (
    ("mAP", "val/mAP", "mAP"),
    ("Training loss", "train/loss", "loss"),
    ("Validation loss", "val/loss", "loss"),
)
LEGEND_ROW_INCHES = 0.2
PAPER_UNIT = "The paper prints mAP in percent; here it is divided by 100."


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
    return [*row, paper.row, show_metric(paper.mAP_fraction), paper.params_m, paper.madds_b, paper.latency_ms]


def with_spread(group: RunGroup, metric: str) -> str:
    """Mean, with the standard deviation where there are several seeds."""
    spread = group.spread(metric)
    return show_metric(group.mean(metric)) + ("" if spread is None else f" ± {spread:.3f}")


def pair_table(pairs: list[Pair]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows in plain text."""
    headings = ["first", "second", "second minus first, mAP", "95 % interval", "verdict"]
    return headings, [pair_row(pair) for pair in pairs]


def pair_row(pair: Pair) -> list[str]:
    """The cells of one pair."""
    names = [pair.first.name, pair.second.name]
    difference = pair.difference
    if difference is None:
        return [*names, DASH, DASH, f"not comparable: {pair.reason}"]
    better = pair.second if difference.mAP > 0 else pair.first
    verdict = f"{better.name} is better" if difference.distinguishable else "not distinguishable"
    interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
    return [*names, f"{difference.mAP:+.3f}", interval, verdict]


def how_to_read_the_interval(comparison: Comparison) -> str:
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


def other_rows(comparison: Comparison) -> list[list[str]]:
    """File, runtime, total and network ms of what belongs to none of the runs."""
    return [
        [row.model, row.setting, f"{row.total_ms:.2f}", f"{row.network_ms:.2f}"]
        for row in comparison.other_latency
    ]


def markdown(comparison: Comparison) -> str:
    """The tables for a document."""
    parts = [
        "# Comparison\n",
        markdown_table(*result_table(comparison)),
        f"\nMetrics are fractions of one. {PAPER_UNIT}\n",
    ]
    if comparison.other_latency:
        headings = ["file", "runtime", "total (ms)", "network (ms)"]
        parts += ["\n## Other files\n", markdown_table(headings, other_rows(comparison))]
    if comparison.pairs:
        parts += ["\n## Differences\n", how_to_read_the_interval(comparison) + "\n"]
        parts.append(markdown_table(*pair_table(comparison.pairs)))
    return "\n".join(parts)


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """A table of GitHub's Markdown."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(headings), line(["---"] * len(headings)), *map(line, rows)]) + "\n"


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page."""
    runs = sum(len(group.runs) for group in comparison.groups)
    result_headings, result_rows = result_table(comparison)
    pair_headings, pair_rows = pair_table(comparison.pairs)
    values = {
        "title": "Comparison",
        "subtitle": f"{runs} runs of {len(comparison.groups)} configurations",
        "notices": comparison.notices,
        "result_headings": result_headings,
        "result_rows": result_rows,
        "other_rows": other_rows(comparison),
        "paper_unit": PAPER_UNIT,
        "costs": [
            plot(f"{panel.title}: {panel.cost_label}", draw_panel(panel), size=PANEL_INCHES)
            for panel in panels(comparison.groups, comparison.latency)
        ],
        "interval": how_to_read_the_interval(comparison),
        "pair_headings": pair_headings,
        "pair_rows": pair_rows,
        "curves": _curves(comparison),
        "groups": [group.name for group in comparison.groups],
        "settings": _settings(comparison),
    }
    write_page(path, "comparison.html", values)


def _curves(comparison: Comparison) -> list[Plot]:
    charts = []
    height = SIZE_INCHES[1] + LEGEND_ROW_INCHES * len(comparison.groups) / 2
    for title, column, y_label in CURVES:
        curves = [(group.name, *group.curve(column)) for group in comparison.groups]
        series = [Series(name, x, np.where(y < 0, np.nan, y)) for name, x, y in curves if len(x)]
        if series:
            draw = line_chart(series, x_label="epoch", y_label=y_label, legend_below=True)
            charts.append(plot(title, draw, size=(SIZE_INCHES[0], height)))
    return charts


def _settings(comparison: Comparison) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Key of each setting that differs, and its values, each with whether it is not the most frequent."""
    found = []
    for key, values in differing_settings(comparison.groups).items():
        shown = ["" if value is None else str(value) for value in values]
        usual = max(shown, key=shown.count)
        found.append((key, [(cell, cell != usual) for cell in shown]))
    return found
