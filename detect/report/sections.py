"""What the sections of a run's page show: plain values, plots and images for `templates/run.html`.

Numbers are formatted here or by the template's filters; text is escaped by the template.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import yaml
from markupsafe import Markup
from numpy.typing import NDArray

from detect.data.checks.splits import FEW_BOXES
from detect.evaluation.class_thresholds import Goal, find_class_thresholds
from detect.evaluation.confusion import confusion_matrix
from detect.evaluation.error_types import EXPLAINED, POSITIVE_IOU
from detect.evaluation.metrics import METRICS, metric_names, show_metric
from detect.inspection.anchor_fit import AnchorFit
from detect.inspection.anchor_layout import MATCH_IOU
from detect.model.counts import Counts
from detect.report.album import Album, choose_images, rank_images
from detect.report.analysis import Analysis
from detect.report.data_facts import SplitFacts
from detect.report.html import DASH, count, part, percent
from detect.report.plots import (
    Plot,
    Series,
    bar_chart,
    histogram,
    line_chart,
    plot,
    size_scatter,
    sparkline_points,
)
from detect.report.run_files import RunFiles
from detect.training.losses import TOTAL

LOSS_WORDS = {
    "loss_cls": "class",
    "loss_box": "box",
    "loss_cwd": "class maps of the teacher",
    "loss_ld": "boxes of the teacher",
}
SHOWN_CLASSES = 20
"""With more classes than this, as many are shown, the worst, and the others are folded."""
MATRIX_CLASSES = 20
"""With more classes than this the most frequent confusions are listed instead of the matrix."""
LISTED_CONFUSIONS = 20
THRESHOLDS_APART = 0.1
"""Between the best score thresholds of two classes, from which on one for all serves them badly."""
PLOTTED_BOXES = 5000
"""As many, evenly over the split, make the cloud."""
SHARED_IOUS = (0, 5, 8)
"""Places of 0.5, 0.75 and 0.9 among COCO's thresholds."""
KIND_NAMES = {kind: kind.name.lower() for kind in EXPLAINED}
Rows = list[Sequence[str | Markup]]
"""Cells of a table, row by row."""


def facts(run: RunFiles, metrics: dict[str, Any] | None, counts: Counts | None) -> list[tuple[str, str]]:
    """Name and value of the figures that everyone asks for first."""
    metrics = metrics or {}
    values = [(name, show_metric(metrics.get(name))) for name in metric_names("epoch")]
    if "baseline" in metrics:
        values.append(("mAP of constant boxes", show_metric(metrics["baseline"]["mAP"])))
    if counts is not None:
        values += [
            ("params", f"{counts.params / 1e6:.2f} M"),
            ("MAdds", f"{counts.madds / 1e9:.3f} B"),
        ]
    epochs = run.curves.get("epoch")
    if epochs is not None:
        values.append(("epochs", f"{len(epochs)} of {run.section('trainer').get('max_epochs') or '?'}"))
    best = best_epoch(run.curves)
    if best is not None:
        values.append(("best epoch", str(best)))
    speed = run.speed.get("images_per_second")
    if speed is not None and np.isfinite(speed).any():
        values.append(("images / s", f"{np.nanmedian(speed):.1f}"))
    return values


def best_epoch(curves: dict[str, NDArray[np.float64]]) -> int | None:
    """The epoch with the highest mAP; None where no validation ran."""
    values = curves.get("val/mAP")
    if values is None or not np.isfinite(values).any() or "epoch" not in curves:
        return None
    return int(curves["epoch"][np.nanargmax(values)])


class ClassRows(NamedTuple):
    """The table of classes in three parts, the worst AP first."""

    shown: Rows
    better: Rows
    """Of many classes, those that are folded."""
    empty: Rows
    """Classes without boxes in the split: they have no AP."""


def class_rows(metrics: dict[str, Any], analysis: Analysis | None, train_boxes: dict[str, int]) -> ClassRows:
    """AP of every class, the worst first, with its precision over recall as a small line."""
    names = analysis.scored.annotations.classes.names if analysis else ()
    rows: Rows = []
    empty: Rows = []
    for name, of_class in sorted(metrics.get("per_class", {}).items(), key=lambda item: item[1]["AP"]):
        line: str | Markup = ""
        if analysis is not None and name in names:
            precision = analysis.curves.precision[0, :, names.index(name), 0]
            line = part("sparkline", sparkline_points(precision[::2]), f"precision over recall of {name}")
        figures = (show_metric(of_class["AP"]), show_metric(of_class["AP50"]))
        counts = (of_class["boxes"], of_class["images"], train_boxes.get(name))
        (rows if of_class["boxes"] else empty).append((name, *figures, *map(count, counts), line))
    return ClassRows(rows[:SHOWN_CLASSES], rows[SHOWN_CLASSES:], empty)


def loss_curves(columns: Iterable[str]) -> dict[str, str]:
    """Columns of metrics.csv with the terms of the loss, and their words in a legend."""
    terms = [name.removeprefix("train/") for name in columns if name.startswith("train/")]
    return {
        f"{stage}/{term}": f"{stage} {LOSS_WORDS.get(term, term)}"
        for term in terms
        if term != TOTAL
        for stage in ("train", "val")
    }


def over_epochs(label: str, epochs: NDArray[np.float64], values: NDArray[np.float64]) -> Series:
    """A line through the epochs that have a value: not all are validated, and -1 is COCO's word for none."""
    there = np.isfinite(values) & (values >= 0)
    return Series(label, epochs[there], values[there])


def training(run: RunFiles) -> list[Plot]:
    """Losses, metrics, learning rate and speed over the epochs."""
    curves = run.curves
    if not curves:
        return []
    epochs = curves.get("epoch", np.arange(1.0, 1 + len(next(iter(curves.values())))))

    def lines(names: dict[str, str]) -> list[Series]:
        return [
            over_epochs(label, epochs, curves[name])
            for name, label in names.items()
            if name in curves and np.isfinite(curves[name]).any()
        ]

    losses = {f"{stage}/{TOTAL}": f"{stage} {TOTAL}" for stage in ("train", "val")}
    by_chart: dict[str, dict[str, str]] = {}
    for metric in METRICS:
        if metric.chart:
            by_chart.setdefault(metric.chart, {})[f"val/{metric.name}"] = metric.name
    charts = [
        ("Loss", lines(losses), "loss", False),
        ("Parts of the loss", lines(loss_curves(curves)), "loss", False),
        *((title, lines(names), "average precision", True) for title, names in by_chart.items()),
        ("Learning rate", lines({"lr": "learning rate"}), "learning rate", True),
        ("Speed", _speed(run), "images per second", True),
    ]
    return [
        plot(title, line_chart(series, x_label="epoch", y_label=unit, from_zero=from_zero))
        for title, series, unit, from_zero in charts
        if series
    ]


def _speed(run: RunFiles) -> list[Series]:
    names = ("epoch", "images_per_second")
    if not all(name in run.speed for name in names):
        return []
    return [Series("images per second", *(run.speed[name] for name in names))]


def errors(analysis: Analysis) -> dict[str, Any]:
    """Kinds of error and what each costs, in TIDE's terms."""
    costs = analysis.costs
    lost = {kind: costs.lost[kind] for kind in EXPLAINED}
    chart = bar_chart(
        [KIND_NAMES[kind] for kind in EXPLAINED],
        list(lost.values()),
        x_label="AP50 that repairing it alone would gain",
    )
    rows: Rows = [
        (KIND_NAMES[kind], meaning, count(costs.counts[kind]), f"{lost[kind]:.3f}")
        for kind, meaning in EXPLAINED.items()
    ]
    rows += [
        ("all false positives", "if each scored 0", "", f"{costs.lost_to_false_positives:.3f}"),
        ("all misses", "if those boxes did not exist", "", f"{costs.lost_to_misses:.3f}"),
    ]
    return {"ap50": costs.ap50, "plot": plot("AP50 lost to each kind of error", chart), "rows": rows}


def precision_and_recall(analysis: Analysis) -> list[Plot]:
    """Curves over recall, and over the score threshold."""
    return [_over_recall(analysis.curves.precision), _over_score(analysis)]


def _over_recall(precision: NDArray[np.float64]) -> Plot:
    recall = np.linspace(0, 1, precision.shape[1])
    measured = precision[0, 0, :, 0] > -1
    by_iou = [
        Series(f"IoU {0.5 + 0.05 * t:.2f}", recall, precision[t][:, measured, 0].mean(1))
        for t in SHARED_IOUS
        if measured.any()
    ]
    chart = line_chart(by_iou, x_label="recall", y_label="precision", x_range=(0, 1), from_zero=True)
    return plot("Precision over recall, mean of the classes", chart)


def _over_score(analysis: Analysis) -> Plot:
    scores = analysis.scores
    over_score = [
        Series(name, scores.thresholds, values)
        for name, values in (("precision", scores.precision), ("recall", scores.recall), ("F1", scores.f1))
    ]
    threshold = f"{analysis.threshold:.2f}"
    best = scores.f1.max(initial=0.0)
    advice = (
        f"F1 is best, {show_metric(best)}, at a score of {threshold}. "
        f"Use it: detect predict --score_threshold {threshold} ... {_thresholds_apart(analysis)}".strip()
        if best > 0
        else "No detection matches a box at IoU 0.5, whatever its score: there is no threshold to advise."
    )
    chart = line_chart(
        over_score, x_label="score threshold", y_label="value at IoU 0.5", x_range=(0, 1), from_zero=True
    )
    return plot("Choosing a score threshold", chart, caption=advice)


def _thresholds_apart(analysis: Analysis) -> str:
    """Advice to give each class a threshold of its own, where the best ones lie apart; else empty."""
    if analysis.class_thresholds is not None:
        return "Without --score_threshold, predictions use the detector's thresholds of the classes."
    annotations, _, detections = analysis.scored
    found = find_class_thresholds(annotations, detections, Goal("best-f1"), default=analysis.threshold)
    frequent = [row for row in found if row.boxes >= FEW_BOXES and not row.notice]
    if not frequent:
        return ""
    low, high = (pick(frequent, key=lambda row: row.threshold) for pick in (min, max))
    if high.threshold - low.threshold < THRESHOLDS_APART:
        return ""
    return (
        f"The classes differ, from {low.threshold:.2f} ({low.name}) to {high.threshold:.2f} ({high.name}): "
        "detect thresholds --ckpt_path best.ckpt --data.root ... --at best-f1 --out tuned.ckpt finds them."
    )


def shown_scores(analysis: Analysis) -> str:
    """What a detection scores that is counted in the confusion matrix and drawn."""
    if (thresholds := analysis.class_thresholds) is None:
        return f"score at least {analysis.threshold:.2f}"
    names = analysis.scored.annotations.classes.names
    if len(names) > SHOWN_CLASSES:
        each = f"from {min(thresholds):.2f} to {max(thresholds):.2f}"
    else:
        each = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, thresholds, strict=True))
    return f"score more than the threshold of their class ({each})"


def confusions(analysis: Analysis) -> dict[str, Any]:
    """The confusion matrix of the detections that are shown, or the most frequent confusions."""
    classes = analysis.scored.annotations.classes
    matrix = confusion_matrix(analysis.scored.ground_truth, analysis.above, classes.num_classes)
    values: dict[str, Any] = {"iou": POSITIVE_IOU, "names": classes.names, "matrix": None, "rows": []}
    if classes.num_classes <= MATRIX_CLASSES:
        return values | {"matrix": _matrix_rows(matrix, classes.names)}
    return values | {"rows": _confusion_rows(matrix, classes.names)}


def _matrix_rows(matrix: NDArray[np.int64], names: tuple[str, ...]) -> list[tuple[str, list[Any]]]:
    """Name of each row, "" for no object at the end, and (count, share of the row) of its cells."""
    order = [*range(1, len(matrix)), 0]
    totals = np.maximum(matrix.sum(axis=1), 1)
    return [
        (
            names[row - 1] if row else "",
            [
                (
                    DASH if row == column == 0 else count(int(matrix[row, column])),
                    float(matrix[row, column] / totals[row]) if row else 0.0,
                )
                for column in order
            ],
        )
        for row in order
    ]


def _confusion_rows(matrix: NDArray[np.int64], names: tuple[str, ...]) -> Rows:
    confused = matrix[1:, 1:].copy()
    np.fill_diagonal(confused, 0)
    most = np.argsort(-confused, axis=None, kind="stable")[:LISTED_CONFUSIONS]
    return [
        (names[i], names[j], count(int(confused[i, j])), percent(confused[i, j] / matrix[i + 1].sum()))
        for i, j in zip(*np.unravel_index(most, confused.shape), strict=True)
        if confused[i, j] > 0
    ]


def images(analysis: Analysis) -> dict[str, Any]:
    """Ground truth beside detections, the most confident false positives and the largest misses."""
    annotations, ground_truth, _ = analysis.scored
    album = Album(annotations, ground_truth, analysis.above)
    ranked = rank_images(ground_truth, analysis.above, len(annotations))
    pairs = album.pairs(choose_images(ranked))
    return {
        "pairs": pairs,
        "false_positives": album.false_positives() if pairs else [],
        "misses": album.misses() if pairs else [],
        "unreadable": album.unreadable,
    }


def split_rows(splits: dict[str, SplitFacts]) -> Rows:
    """Sizes of the splits."""
    return [
        (
            name,
            *map(count, (split.images, split.empty_images, split.boxes)),
            *map(count, (split.small, split.medium, split.large, split.ignored, split.most_boxes)),
            f"{split.boxes / max(split.images, 1):.1f}",
        )
        for name, split in splits.items()
    ]


def anchor_plots(fit: AnchorFit | None) -> list[Plot]:
    """Sizes of boxes and anchors on the input, and how well the best anchor fits each box."""
    if fit is None or not fit.all.boxes:
        return []
    anchors = np.concatenate([level.reshape(-1, 4) for level in fit.layout.levels()])
    anchors_wh = np.unique((anchors[:, 2:] - anchors[:, :2]).round(2), axis=0)
    shown = np.linspace(0, fit.all.boxes - 1, min(PLOTTED_BOXES, fit.all.boxes)).astype(int)
    bins = np.linspace(0, 1, 21)
    return [
        plot("Boxes and anchors on the input", size_scatter(fit.boxes_wh[shown], anchors_wh)),
        plot(
            "How well the best anchor fits",
            histogram(fit.best_iou, bins=bins, x_label="IoU with the best anchor", mark=MATCH_IOU),
            caption=f"Anchor recall at IoU {MATCH_IOU}: {percent(fit.all.met / fit.all.boxes)} % of the "
            f"boxes, with {len(anchors):,} anchors; the other boxes are learnt by their best anchor alone.",
        ),
    ]


def reproduction(run: RunFiles) -> list[tuple[str, str]]:
    """Title and text of the configuration and the manifest, as they are in the run folder."""
    found = []
    if run.config:
        config = yaml.safe_dump(run.config, sort_keys=False, default_flow_style=None, width=100)
        found.append(("config.yaml", config))
    if run.manifest is not None:
        # The configuration stands above, and a diff is read line by line.
        manifest = {key: value for key, value in run.manifest.items() if key not in ("config", "changes")}
        found.append(("manifest.json", json.dumps(manifest, indent=1)))
        if diff := (run.manifest.get("changes") or {}).get("diff"):
            found.append(("Uncommitted changes of the code", diff))
    return found
