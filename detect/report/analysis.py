"""A run's detections analysed: all of them, and those above the thresholds that predictions would use."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detect.evaluation.backends import PrecisionRecall, image_ranks, precision_recall, select
from detect.evaluation.confusion import ScoreCurve, score_curve
from detect.evaluation.error_types import ErrorCosts, Outcomes, classify_detections, error_costs
from detect.evaluation.evaluator import Metrics, compute_metrics
from detect.report.scored_files import Scored


class Analysis(NamedTuple):
    """Everything that the page says about detections."""

    scored: Scored
    metrics: Metrics
    curves: PrecisionRecall
    costs: ErrorCosts
    scores: ScoreCurve
    threshold: float
    """The score with the best F1."""
    class_thresholds: tuple[float, ...] | None
    """Of the run's detector, label 1 first; None where it has none."""
    above: Outcomes
    """Outcomes of the detections above `class_thresholds`; without these at or above `threshold`."""


def analyse(scored: Scored, class_thresholds: tuple[float, ...] | None = None) -> Analysis:
    """Compute it all from the two files of a run, and the thresholds of the classes that its detector has."""
    annotations, ground_truth, detections = scored
    outcomes = classify_detections(annotations, ground_truth, detections)
    scores = score_curve(ground_truth, outcomes)
    threshold = scores.best_threshold
    if class_thresholds is None:
        shown = detections.scores >= threshold
    else:
        shown = detections.scores > np.array(class_thresholds)[detections.labels - 1]
    return Analysis(
        scored=scored,
        metrics=compute_metrics(annotations, detections),
        curves=precision_recall(
            ground_truth,
            detections,
            ranks=image_ranks(annotations),
            num_classes=annotations.classes.num_classes,
            backend="faster",
        ),
        costs=error_costs(ground_truth, outcomes),
        scores=scores,
        threshold=threshold,
        class_thresholds=class_thresholds,
        above=classify_detections(annotations, ground_truth, select(detections, shown)),
    )
