"""The parts of a run's page, each a function from what is known to HTML; nothing known gives nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from detect.evaluation.confusion import confusion_matrix
from detect.evaluation.error_types import EXPLAINED, POSITIVE_IOU
from detect.evaluation.metrics import METRICS, metric_names
from detect.inspection.anchor_fit import AnchorFit
from detect.inspection.anchor_layout import MATCH_IOU
from detect.model.counts import Counts
from detect.report.data_facts import SplitFacts
from detect.report.html import DASH, cards, figures, folded, paragraph, percent, table, text
from detect.report.judged import Judged
from detect.report.pictures import Album, choose_images, rank_images
from detect.report.plots import (
    Series,
    bar_chart,
    figure,
    histogram,
    line_chart,
    size_scatter,
    sparkline,
)
from detect.report.run_files import RunFiles

MATRIX_CLASSES = 20
"""More classes than this are listed by their most frequent confusions instead."""
LISTED_CONFUSIONS = 20
PLOTTED_BOXES = 5000
"""As many, evenly over the split, make the cloud."""
SHARED_IOUS = (0, 5, 8)
"""Places of 0.5, 0.75 and 0.9 among COCO's thresholds."""
KIND_NAMES = {kind: kind.name.lower() for kind in EXPLAINED}


def summary(run: RunFiles, metrics: dict[str, Any] | None, counts: Counts | None) -> str:
    """The figures that everyone asks for first."""
    values = [(name, percent((metrics or {}).get(name))) for name in metric_names("epoch")]
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
    return cards(values) + paragraph(
        "Metrics are COCO's, in percent, of the best checkpoint on the validation split."
    )


def best_epoch(curves: dict[str, NDArray[np.float64]]) -> int | None:
    """The epoch with the highest mAP; None where no validation ran."""
    values = curves.get("val/mAP")
    if values is None or not np.isfinite(values).any() or "epoch" not in curves:
        return None
    return int(curves["epoch"][np.nanargmax(values)])


def class_table(metrics: dict[str, Any], judged: Judged | None, train_boxes: dict[str, int]) -> str:
    """AP of every class, the worst first, with its precision over recall as a small line."""
    names = judged.scored.annotations.classes.names if judged else ()
    rows = []
    for name, figures_of_class in sorted(
        metrics.get("per_class", {}).items(), key=lambda item: item[1]["AP"]
    ):
        line = ""
        if judged is not None and name in names:
            precision = judged.curves.precision[0, :, names.index(name), 0]
            line = sparkline(precision[::2], label=f"precision over recall of {name}")
        rows.append(
            (
                text(name),
                percent(figures_of_class["AP"]),
                percent(figures_of_class["AP50"]),
                f"{figures_of_class['boxes']:,}",
                f"{figures_of_class['images']:,}",
                f"{train_boxes[name]:,}" if name in train_boxes else DASH,
                line,
            )
        )
    headings = ("class", "AP", "AP50", "boxes", "images", "boxes trained", "precision over recall")
    return table(headings, rows)


def training(run: RunFiles) -> str:
    """Losses, metrics, learning rate and speed over the epochs."""
    curves = run.curves
    if not curves:
        return paragraph("No epoch was finished.")
    epochs = curves.get("epoch", np.arange(1.0, 1 + len(next(iter(curves.values())))))

    def lines(names: dict[str, str], factor: float = 1.0) -> list[Series]:
        return [
            Series(label, epochs, factor * np.where(curves[name] < 0, np.nan, curves[name]))
            for name, label in names.items()
            if name in curves and np.isfinite(curves[name]).any()
        ]

    losses = {f"{stage}/{name}": f"{stage} {name}" for name in ("loss",) for stage in ("train", "val")}
    parts = {
        f"{stage}/loss_{part}": f"{stage} {word}"
        for part, word in (("cls", "class"), ("box", "box"))
        for stage in ("train", "val")
    }
    by_chart: dict[str, dict[str, str]] = {}
    for metric in METRICS:
        if metric.chart:
            by_chart.setdefault(metric.chart, {})[f"val/{metric.name}"] = metric.name
    charts = [
        ("Loss", lines(losses), "loss", False),
        ("Class and box loss", lines(parts), "loss", False),
        *((title, lines(names, 100), "percent", True) for title, names in by_chart.items()),
        ("Learning rate", lines({"lr": "learning rate"}), "learning rate", True),
        ("Speed", _speed(run), "images per second", True),
    ]
    return figures(
        *(
            figure(title, line_chart(series, x_label="epoch", y_label=unit, from_zero=from_zero))
            for title, series, unit, from_zero in charts
            if series
        )
    )


def _speed(run: RunFiles) -> list[Series]:
    names = ("epoch", "images_per_second")
    if not all(name in run.speed for name in names):
        return []
    return [Series("images per second", *(run.speed[name] for name in names))]


def errors(judged: Judged) -> str:
    """What goes wrong and what it costs, in TIDE's terms."""
    costs = judged.costs
    names = [KIND_NAMES[kind] for kind in EXPLAINED]
    lost = [100 * costs.lost[kind] for kind in EXPLAINED]
    chart = figure(
        "AP50 lost to each kind of error",
        bar_chart(names, lost, x_label="points of AP50 that mending it alone would gain"),
    )
    rows = [
        (text(KIND_NAMES[kind]), text(meaning), f"{costs.counts[kind]:,}", f"{100 * costs.lost[kind]:.1f}")
        for kind, meaning in EXPLAINED.items()
    ]
    rows += [
        ("all false positives", "if each scored 0", "", f"{100 * costs.lost_to_false_positives:.1f}"),
        ("all misses", "if those boxes did not exist", "", f"{100 * costs.lost_to_misses:.1f}"),
    ]
    explanation = paragraph(
        f"AP50 is {100 * costs.ap50:.1f}. Each row says what it would gain if that kind of error alone were "
        "mended (TIDE, arXiv 2008.08115); kinds overlap, so the rows do not add up to 100."
    )
    return explanation + figures(chart) + table(("error", "meaning", "count", "AP50 lost"), rows, left=2)


def precision_and_recall(judged: Judged) -> str:
    """Curves over recall, and over the score that is taken as the threshold."""
    recall = np.linspace(0, 100, judged.curves.precision.shape[1])
    measured = judged.curves.precision[0, 0, :, 0] > -1
    by_iou = [
        Series(f"IoU {0.5 + 0.05 * t:.2f}", recall, 100 * judged.curves.precision[t][:, measured, 0].mean(1))
        for t in SHARED_IOUS
        if measured.any()
    ]
    scores = judged.scores
    over_score = [
        Series(name, scores.thresholds, 100 * values)
        for name, values in (("precision", scores.precision), ("recall", scores.recall), ("F1", scores.f1))
    ]
    best = f"F1 is best, {percent(scores.f1.max(initial=0.0))}, at a score of {judged.threshold:.2f}."
    return figures(
        figure(
            "Precision over recall, mean of the classes",
            line_chart(
                by_iou,
                x_label="recall, percent",
                y_label="precision, percent",
                x_range=(0, 100),
                from_zero=True,
            ),
        ),
        figure(
            "Choosing a score threshold",
            line_chart(
                over_score,
                x_label="score threshold",
                y_label="percent, IoU 0.5",
                x_range=(0, 1),
                from_zero=True,
            ),
            caption=best + f" Use it: detect predict --score_threshold {judged.threshold:.2f} ...",
        ),
    )


def confusions(judged: Judged) -> str:
    """Which class is taken for which, at the score with the best F1."""
    classes = judged.scored.annotations.classes
    matrix = confusion_matrix(judged.scored.ground_truth, judged.above, classes.num_classes)
    intro = paragraph(
        f"Detections that score at least {judged.threshold:.2f}, matched at IoU {POSITIVE_IOU}. Rows are "
        "what is annotated, columns what was detected."
    )
    if classes.num_classes <= MATRIX_CLASSES:
        return intro + _matrix_table(matrix, classes.names)
    return intro + _confusion_list(matrix, classes.names)


def _matrix_table(matrix: NDArray[np.int64], names: tuple[str, ...]) -> str:
    order = [*range(1, len(matrix)), 0]
    totals = np.maximum(matrix.sum(axis=1), 1)
    rows = []
    for row in order:
        cells = [f'<td class="left">{text(names[row - 1]) if row else "<em>nothing</em>"}</td>']
        for column in order:
            count, share = int(matrix[row, column]), matrix[row, column] / totals[row] if row else 0.0
            shade = f' style="--share:{share:.2f}"' if share > 0 else ""
            shown = DASH if row == column == 0 else f"{count:,}"
            cells.append(f'<td{shade} title="{share:.0%} of the row">{shown}</td>')
        rows.append(cells)
    return table(["", *map(text, names), "<em>missed</em>"], rows, name="matrix")


def _confusion_list(matrix: NDArray[np.int64], names: tuple[str, ...]) -> str:
    confused = matrix[1:, 1:].copy()
    np.fill_diagonal(confused, 0)
    most = np.argsort(-confused, axis=None, kind="stable")[:LISTED_CONFUSIONS]
    rows = [
        (text(names[i]), text(names[j]), f"{confused[i, j]:,}", percent(confused[i, j] / matrix[i + 1].sum()))
        for i, j in zip(*np.unravel_index(most, confused.shape), strict=True)
        if confused[i, j] > 0
    ]
    if not rows:
        return paragraph("No class was taken for another.")
    return table(("annotated", "detected as", "boxes", "% of the class"), rows, left=2)


def pictures(judged: Judged) -> str:
    """Ground truth beside detections, the surest false positives and the largest misses."""
    annotations, ground_truth, _ = judged.scored
    album = Album(annotations, ground_truth, judged.above)
    ranked = rank_images(ground_truth, judged.above, len(annotations))
    pairs = album.pairs(choose_images(ranked))
    false_positives, misses = album.false_positives(), album.misses()
    if not pairs:
        reason = album.unreadable[0] if album.unreadable else "the split is empty"
        return paragraph(f"No picture could be shown: {reason}")
    body = paragraph(
        "Ground truth on the left (above on a phone), detections that score at least "
        f"{judged.threshold:.2f} on the right. Blue is right, vermillion wrong or missed, pink ignored. The "
        "images with the lowest F1 come first, and after them a few from the rest up to the best."
    )
    body += pairs
    if false_positives:
        body += f"<h3>The surest false positives</h3>{false_positives}"
    if misses:
        body += f"<h3>Missed, the largest of each class first</h3>{misses}"
    if album.unreadable:
        body += paragraph(f"{len(album.unreadable)} pictures could not be read: {album.unreadable[0]}")
    return body


def data(splits: dict[str, SplitFacts], fit: AnchorFit | None) -> str:
    """Sizes of the splits, and anchors against boxes."""
    rows = [
        (
            text(name),
            *(
                f"{value:,}"
                for value in (
                    split.images,
                    split.empty_images,
                    split.boxes,
                    split.small,
                    split.medium,
                    split.large,
                    split.ignored,
                    split.most_boxes,
                )
            ),
            f"{split.boxes / max(split.images, 1):.1f}",
        )
        for name, split in splits.items()
    ]
    headings = (
        *("split", "images", "without boxes", "boxes", "small", "medium", "large", "ignored"),
        *("most an image", "mean an image"),
    )
    body = table(headings, rows) if rows else ""
    return body if fit is None else body + anchor_figures(fit)


def anchor_figures(fit: AnchorFit) -> str:
    """Sizes of boxes and anchors on the input, and how well the best anchor fits each box."""
    if not fit.all.boxes:
        return ""
    anchors = np.concatenate([level.reshape(-1, 4) for level in fit.layout.levels()])
    anchors_wh = np.unique((anchors[:, 2:] - anchors[:, :2]).round(2), axis=0)
    shown = np.linspace(0, fit.all.boxes - 1, min(PLOTTED_BOXES, fit.all.boxes)).astype(int)
    return figures(
        figure("Boxes and anchors on the input", size_scatter(fit.boxes_wh[shown], anchors_wh)),
        figure(
            "How well the best anchor fits",
            histogram(
                fit.best_iou,
                bins=np.linspace(0, 1, 21),
                x_label="IoU with the best anchor",
                mark=MATCH_IOU,
            ),
            caption=f"{percent(fit.all.met / fit.all.boxes)} % of the boxes have an anchor of IoU "
            f"{MATCH_IOU} or more among {len(anchors):,}; the others are learnt by their best anchor alone.",
        ),
    )


def reproduction(run: RunFiles) -> str:
    """The configuration and the manifest as they are in the run folder."""
    body = ""
    if run.config:
        config = yaml.safe_dump(run.config, sort_keys=False, default_flow_style=None, width=100)
        body += folded("config.yaml", f"<pre>{text(config)}</pre>")
    if run.manifest is not None:
        # The configuration stands above, and a diff is read line by line.
        manifest = {key: value for key, value in run.manifest.items() if key not in ("config", "changes")}
        body += folded("manifest.json", f"<pre>{text(json.dumps(manifest, indent=1))}</pre>")
        if diff := (run.manifest.get("changes") or {}).get("diff"):
            body += folded("What the code had that its commit has not", f"<pre>{text(diff)}</pre>")
    return body or paragraph("There is neither a config.yaml nor a manifest.json.")
